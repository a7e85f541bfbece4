"""Instrument, gateway and vault as processes of their own, links between them; for `benchmarks.data` and the tests."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "fleetcast", "data")
RELAY = """
import sys
from fleetcast.runtime.measure.trial.link import shaped
from fleetcast.scenario.fleet.links import Link
port, bandwidth, rtt, window = int(sys.argv[1]), *map(float, sys.argv[2:])
link = Link(id="x", name="x", kind="wan", bandwidth=bandwidth, latency=rtt / 2, source="emulated")
with shaped(port, [link], window=int(window)) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


class Started:
    """A command of `fleetcast data` as a process; ``url`` where it serves.

    Args:
        token: that it finds in its environment.
        words: of the command.
        serves: whether it says where.
    """

    def __init__(self, token: str, *words: object, serves: bool = True) -> None:
        environment = os.environ | {"FLEETCAST_DATA_TOKEN": token, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, words), "--json"], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.url = str(json.loads(self.line())["url"]) if serves else ""

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def line(self) -> str:
        """Returns the next line that it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def said(self) -> Any:
        """Returns the JSON that it says until its end, and waits for that; `code` is its exit code."""
        assert self.process.stdout is not None
        text = self.process.stdout.read()
        self.code = self.process.wait(60)
        self.process.stdout.close()
        return json.loads(text)

    def kill(self) -> None:
        """Ends it as the kernel does when memory is short: at once."""
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self.process.stdout.close()


@contextlib.contextmanager
def relay(port: int, bandwidth: float, rtt: float, window: float) -> Iterator[str]:
    """Gives a URL that leads to a port over a link, in a process of its own."""
    words = [sys.executable, "-c", RELAY, str(port), str(bandwidth), str(rtt), str(window)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def listening(process: int) -> list[int]:
    """Returns the ports on which a process listens, by the kernel's tables (Linux)."""
    inodes = set()
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(entry.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    ports = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            words = line.split()
            if words[9] in inodes and (words[3] == "0A" or table.startswith("udp")):
                ports.append(int(words[1].rpartition(":")[2], 16))
    return ports


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def killed(
    folder: Path, seed: int, *, size: int, bandwidth: float, most: int = 6, limit: float = 90.0
) -> dict[str, Any]:
    """Sends a file from an instrument over a gateway to a vault while each of them is killed at random instants.

    Args:
        folder: for all of them.
        seed: of the bytes and the instants.
        size: bytes.
        bandwidth: B/s of both links.
        most: kills.
        limit: s until the file must have arrived.

    Returns:
        "kills" by place, "seconds", and whether what arrived is "equal".
    """
    from fleetcast.runtime.data.access import grant
    from fleetcast.runtime.data.manifest import manifest_of
    from fleetcast.runtime.data.vault import Vault, open_store

    chance = random.Random(seed)
    path, tokens = folder / "instrument" / "scan.bin", folder / "tokens.toml"
    path.parent.mkdir(parents=True)
    path.write_bytes(chance.randbytes(size))
    os.utime(path, (1e9, 1e9))
    token = grant(tokens, "*", ("read", "write"))
    vault_port, gateway_port = free_port(), free_port()
    kept = Vault(open_store(str(folder / "vault")))
    kills = dict.fromkeys(("vault", "gateway", "instrument"), 0)
    with (
        relay(gateway_port, bandwidth, 0.004, 1 << 20) as first, relay(vault_port, bandwidth, 0.004, 1 << 20) as second
    ):  # fmt: skip
        starts: dict[str, Callable[[], Started]] = {
            "vault": lambda: Started(token, "vault", folder / "vault", "--tokens", tokens, "--port", vault_port),
            "gateway": lambda: Started(
                token, "gateway", folder / "spool", "--to", second, "--tokens", tokens, "--port", gateway_port
            ),
            "instrument": lambda: Started(
                token, "push", path.parent, "--to", first, "--project", "alpha", "--watch", "--settle", "0.2 s",
                serves=False,
            ),
        }  # fmt: skip
        places: dict[str, Started] = {}
        start = time.monotonic()
        try:
            for name, begin in starts.items():
                places[name] = begin()
            while kept.find("alpha", "scan.bin") is None and time.monotonic() < start + limit:
                time.sleep(chance.uniform(0.05, 0.9))
                if sum(kills.values()) < most:
                    name = chance.choice(sorted(places))
                    places[name].kill()
                    kills[name] += 1
                    places[name] = starts[name]()
        finally:
            for place in places.values():
                place.kill()
    found = kept.find("alpha", "scan.bin")
    sha256 = manifest_of(path, "scan.bin").sha256
    objects = [p for p in (folder / "vault" / "objects").rglob(sha256) if p.is_file()]
    equal = found is not None and found.sha256 == sha256 and [manifest_of(p, "x").sha256 for p in objects] == [sha256]
    return {"kills": kills, "seconds": time.monotonic() - start, "equal": equal}
