"""Instrument, gateway and vault as processes: killed whenever, nothing is lost; the instrument never listens."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("obstore", reason="obstore is not installed")
if sys.platform != "linux":
    pytest.skip("reads /proc", allow_module_level=True)

from fleetcast.runtime.data.access import grant
from fleetcast.runtime.data.manifest import manifest_of
from fleetcast.runtime.data.vault import Vault, open_store
from fleetcast.runtime.measure.trial.link import shaped
from fleetcast.scenario.fleet.links import Link

COMMAND = [sys.executable, "-m", "fleetcast", "data"]


class Started:
    """A command of `fleetcast data` as a process; `url` where it serves."""

    def __init__(self, token: str, *words: object, wait: bool = True) -> None:
        self.words = [str(word) for word in words]
        self.environment = os.environ | {"FLEETCAST_DATA_TOKEN": token, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*COMMAND, *self.words, "--json"], env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.url = json.loads(self.process.stdout.readline())["url"] if wait else ""

    def kill(self) -> None:
        """As the kernel does when memory is short: at once."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self.process.stdout.close()

    def end(self) -> int:
        """Waits for its end; returns the exit code."""
        code = self.process.wait(60)
        self.process.stdout.close()
        return code


def listening(process: int) -> list[int]:
    """Ports on which a process and its children listen, by the kernel's tables."""
    inodes = set()
    for entry in Path(f"/proc/{process}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    ports = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[9] in inodes and (words[3] == "0A" or table.startswith("udp")):
                ports.append(int(words[1].rpartition(":")[2], 16))
    return ports


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens.toml"
    return path, grant(path, "*", ("read", "write"))


def test_whoever_is_killed_whenever_the_file_arrives_as_it_was(tmp_path, tokens):
    path, token = tokens
    chance = random.Random(int(os.environ.get("FLEETCAST_SEED", "7")))
    folder = tmp_path / "instrument"
    folder.mkdir()
    data = chance.randbytes(1_500_000)
    (folder / "scan.bin").write_bytes(data)
    os.utime(folder / "scan.bin", (1e9, 1e9))
    vault_port, gateway_port = free_port(), free_port()
    slow = Link(id="x", name="x", kind="wan", bandwidth=1.2e6, latency=0.002, source="a test")

    def vault() -> Started:
        return Started(token, "vault", tmp_path / "vault", "--tokens", path, "--port", vault_port)

    def gateway(to: int) -> Started:
        words = ("gateway", tmp_path / "spool", "--to", f"http://127.0.0.1:{to}", "--tokens", path)
        return Started(token, *words, "--port", gateway_port)

    kept = Vault(open_store(str(tmp_path / "vault")))
    kills = 0
    with shaped(gateway_port, [slow]) as first, shaped(vault_port, [slow]) as second:
        places = {"vault": vault(), "gateway": gateway(second)}
        words = (
            "push",
            folder,
            "--to",
            f"http://127.0.0.1:{first}",
            "--project",
            "alpha",
            "--watch",
            "--settle",
            "0.2 s",
        )
        places["instrument"] = Started(token, *words, wait=False)
        again = {
            "vault": vault, "gateway": lambda: gateway(second), "instrument": lambda: Started(token, *words, wait=False)
        }  # fmt: skip
        try:
            until = time.monotonic() + 90
            while kept.find("alpha", "scan.bin") is None:
                assert time.monotonic() < until, "it did not arrive"
                time.sleep(chance.uniform(0.05, 0.9))
                if kills < 6:
                    name = chance.choice(sorted(places))
                    places[name].kill()
                    kills += 1
                    places[name] = again[name]()
        finally:
            for place in places.values():
                place.kill()
    found = kept.find("alpha", "scan.bin")
    assert kills >= 3
    assert found.sha256 == manifest_of(folder / "scan.bin", "scan.bin").sha256
    objects = [p for p in (tmp_path / "vault" / "objects").rglob("*") if p.is_file()]
    assert [p.read_bytes() == data for p in objects if p.name == found.sha256] == [True]


def test_the_instrument_listens_nowhere_and_cannot(tmp_path, tokens):
    path, token = tokens
    folder = tmp_path / "instrument"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"x")
    (folder / "secret").symlink_to("/etc/hostname")
    (folder / ".hidden").write_text("x")
    vault = Started(token, "vault", tmp_path / "vault", "--tokens", path, "--port", 0)
    words = ("push", folder, "--to", vault.url, "--project", "alpha", "--watch", "--settle", "0.1 s")
    instrument = Started(token, *words, wait=False)
    try:
        said = json.loads(instrument.process.stdout.readline())
        assert said["name"] == "a.bin"
        assert listening(instrument.process.pid) == []
        assert listening(vault.process.pid) == [int(vault.url.rpartition(":")[2])], "the look itself finds listeners"
        assert open_vault_names(tmp_path) == ["a.bin"]
    finally:
        instrument.kill()
        vault.kill()


def open_vault_names(tmp_path: Path) -> list[str]:
    return Vault(open_store(str(tmp_path / "vault"))).names("alpha")


def test_a_process_that_never_listens_can_still_connect():
    code = (
        "import socket\n"
        "from fleetcast.runtime.data.push import never_listen\n"
        "server = socket.socket(); server.bind(('127.0.0.1', 0)); server.listen()\n"
        "never_listen()\n"
        "socket.create_connection(server.getsockname()).close()\n"
        "try:\n    socket.socket().bind(('127.0.0.1', 0))\n"
        "except PermissionError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert "accepts no connections" in done.stdout


def test_the_commands_one_after_the_other(tmp_path, tokens):
    path, token = tokens
    folder = tmp_path / "instrument"
    (folder / "run 1").mkdir(parents=True)
    (folder / "run 1" / "a.bin").write_bytes(b"abc")
    os.utime(folder / "run 1" / "a.bin", (1e9, 1e9))
    vault = Started(token, "vault", tmp_path / "vault", "--tokens", path, "--port", 0)
    try:
        push = Started(token, "push", folder, "--to", vault.url, "--project", "alpha", wait=False)
        said = json.loads(push.process.stdout.read())
        assert push.end() == 0 and [s["name"] for s in said["sent"]] == ["run 1/a.bin"]
        listed = Started(token, "list", vault.url, "--project", "alpha", wait=False)
        assert json.loads(listed.process.stdout.read())["files"] == [{"name": "run 1/a.bin", "size": 3}]
        assert listed.end() == 0
        to = tmp_path / "copy"
        words = ("move", vault.url, "--project", "alpha", "--name", "run 1/a.bin", "--to", to)
        moved = Started(token, *words, wait=False)
        assert json.loads(moved.process.stdout.read())["size"] == 3 and moved.end() == 0
        assert to.read_bytes() == b"abc"
        (folder / "run 1" / "a.bin").write_bytes(b"xyz")
        os.utime(folder / "run 1" / "a.bin", (1e9, 1e9))
        push = Started(token, "push", folder, "--to", vault.url, "--project", "alpha", wait=False)
        said = json.loads(push.process.stdout.read())
        assert push.end() == 1 and "published with other bytes" in said["failed"][0]["why"]
    finally:
        vault.kill()
