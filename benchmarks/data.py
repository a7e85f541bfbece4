"""ARIM-mdx's claims: a mount against a staged copy, stripes against one connection, kills, a closed instrument.

All parties are processes of this machine, joined by relays that delay and pace bytes as `runtime.measure.trial.link`
says; inputs are frozen in `data_inputs.toml`. The paper's 4.7x compares its direct connection of storage and cloud with
"a conventional approach"; our reading of that is a copy by way of a third machine. Both legs of the copy and the mount
have equal links here. Its 4x compares an academic network with the public Internet, which no stripe does.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import msgspec

from benchmarks.records import ROOT, Null, Ours, Paper, Record, absent, main, skipped, timer
from fleetcast.base.show import show
from fleetcast.cost import data as cost

INPUTS = tomllib.loads((ROOT / "benchmarks" / "data_inputs.toml").read_text(encoding="utf-8"))
COMMAND = "python -m benchmarks.data"
KINDS = ("open", "read", "staged", "striped")
"""What is timed of each file: its first block over the mount, all of it, a copy by way of another place, 8 stripes."""
OPENING = "4.7x lower latency by connecting storage and compute directly, here: opening a file"


@dataclass
class Point:
    """A file and a round trip, s by kind: medians, and what `cost.data` counts."""

    size: float
    rtt: float
    seconds: dict[str, float] = field(default_factory=dict)

    def terms(self, kind: str) -> cost.Terms:
        """Returns what the model counts of a kind."""
        path = cost.Path(INPUTS["link"]["bandwidth"], self.rtt, INPUTS["link"]["window"])
        if kind == "staged":
            return cost.staged(self.size, path, path)
        if kind == "striped":
            return cost.copied(self.size, path, streams=8)
        return cost.mounted(self.size, path, block=INPUTS["read"]["block"], share=float(kind == "read"))


class Places:
    """Two vaults, where the data lies and where it is computed, and whatever links are asked for.

    Args:
        folder: of all that they keep.
    """

    def __init__(self, folder: Path) -> None:
        from benchmarks.data_chain import Started
        from fleetcast.runtime.data.access import grant

        self.folder, tokens = folder, folder / "tokens.toml"
        self.token = grant(tokens, "*", ("read", "write"))
        self.storage, self.compute = (
            Started(self.token, "vault", folder / name, "--tokens", tokens, "--port", 0)
            for name in ("storage", "compute")
        )
        self._count, self._chance = 0, random.Random(INPUTS["seed"])

    def close(self) -> None:
        """Ends them."""
        self.storage.kill()
        self.compute.kill()

    def publish(self, size: int) -> str:
        """Puts a new file into the storage, over no link; returns its name."""
        from fleetcast.runtime.data.push import push, session

        self._count += 1
        path = self.folder / "new"
        path.write_bytes(self._chance.randbytes(size))

        async def send() -> None:
            async with session(self.token) as client:
                await push(client, self.storage.url, "bench", path, f"f{self._count}")

        asyncio.run(send())
        return f"f{self._count}"

    def mounted(self, url: str, name: str, share: float) -> float:
        """Returns s until a share of a file was read over a mount, at least its first byte."""
        from fleetcast.runtime.data.mount import mount

        block = int(INPUTS["read"]["block"])
        start = time.perf_counter()
        with mount(url, "bench", self.token, block=block).open(name) as file:
            file.read(1)
            wanted = share * file.size
            while file.tell() < wanted and file.read(block):
                pass
            return time.perf_counter() - start

    def copied(self, url: str, name: str, streams: int) -> float:
        """Returns s of a copy to a file."""
        from fleetcast.runtime.data.mover import move

        start = time.perf_counter()
        asyncio.run(move([url], "bench", name, self.folder / "copy", self.token, streams=streams))
        return time.perf_counter() - start

    def staged(self, into: str, out: str, name: str) -> float:
        """Returns s until a file that was copied here and sent on lies at the compute."""
        from fleetcast.runtime.data.push import push, session

        async def send() -> None:
            async with session(self.token) as client:
                await push(client, out, "bench", self.folder / "copy", f"{name}-{time.monotonic_ns()}")

        start = time.perf_counter()
        self.copied(into, name, 1)
        asyncio.run(send())
        return time.perf_counter() - start


@contextlib.contextmanager
def places() -> Iterator[Places]:
    """Opens the places in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        found = Places(Path(folder))
        try:
            yield found
        finally:
            found.close()


def timed(repeats: int, run: Callable[[], float]) -> float:
    """Returns the median of several runs, s."""
    return statistics.median(run() for _ in range(repeats))


@cache
def points(which: str, quick: bool) -> list[Point]:
    """Measures the points of the inputs: "fit" or "held"."""
    from benchmarks.data_chain import relay

    link, repeats = INPUTS["link"], 1 if quick else int(INPUTS["points"]["repeats"])
    rows = INPUTS["points"][which]
    found = [Point(size, rtt) for size, rtt in (rows[:3] if quick else rows)]
    with places() as at:
        at.mounted(at.storage.url, at.publish(1000), 1.0)  # what only the first one waits for
        for point in found:
            name = at.publish(int(point.size))
            setting = (link["bandwidth"], point.rtt, link["window"])
            with relay(at.storage.port, *setting) as near, relay(at.compute.port, *setting) as far:
                runs: dict[str, Callable[[], float]] = {
                    "open": partial(at.mounted, near, name, 0.0),
                    "read": partial(at.mounted, near, name, 1.0),
                    "staged": partial(at.staged, near, far, name),
                    "striped": partial(at.copied, near, name, 8),
                }
                point.seconds = {kind: timed(repeats, run) for kind, run in runs.items()}
    return found


def fitted(quick: bool) -> dict[str, cost.Host]:
    """Returns the constants of the hosts, by kind, from the points to fit on; both kinds of mount share theirs."""
    seen = points("fit", quick)
    groups = {"open": ("open", "read"), "read": ("open", "read"), "staged": ("staged",), "striped": ("striped",)}
    return {
        kind: cost.fit([p.terms(k) for p in seen for k in kinds], [p.seconds[k] for p in seen for k in kinds])
        for kind, kinds in groups.items()
    }  # fmt: skip


def plain(point: Point, kind: str) -> float:
    """Returns the null: bytes over bandwidth."""
    block, bandwidth = float(INPUTS["read"]["block"]), float(INPUTS["link"]["bandwidth"])
    size = {"open": min(point.size, block), "staged": 2 * point.size}.get(kind, point.size)
    return size / bandwidth


def forecast(quick: bool, command: str) -> Record:
    """Returns how far the model was off on the points that were held out."""
    hosts, held = fitted(quick), points("held", quick)
    errors = {k: [abs(p.terms(k).seconds(hosts[k]) / p.seconds[k] - 1) for p in held] for k in KINDS}
    nulls = [abs(plain(p, k) / p.seconds[k] - 1) for p in held for k in KINDS]
    every = [e for row in errors.values() for e in row]
    bare = [abs(p.terms(k).wire / p.seconds[k] - 1) for p in held for k in KINDS]
    value = statistics.mean(every)
    return Record(
        system=54, claim="forecast of mounts, staged copies and stripes on points held out, mean relative error",
        paper=Paper(setting="the paper forecasts nothing"),
        ours=Ours(
            value=round(value, 3), unit="share",
            spread=", ".join(f"{k} {statistics.mean(row):.3f} (worst {max(row):.3f})" for k, row in errors.items())
            + f"; without constants of hosts {statistics.mean(bare):.3f}",
            setting=f"{len(held)} held-out points x {len(KINDS)} kinds, constants fitted on "
            f"{len(points('fit', quick))}; " + said(),
        ),
        null=Null(value=round(statistics.mean(nulls), 3), what="bytes over bandwidth"),
        bar="mean error at most 10 %, and less than the null's", holds=value <= 0.10 and value < statistics.mean(nulls),
        reproduced="other setting", reason="a bar of our own; links are emulated", command=command,
    )  # fmt: skip


def opening(quick: bool, command: str) -> Record:
    """Returns how much sooner a file is open over a mount than by a staged copy, measured."""
    held = [*points("fit", quick), *points("held", quick)]
    each = {(p.size, p.rtt): p.seconds["staged"] / p.seconds["open"] for p in held}
    whole = {(p.size, p.rtt): p.seconds["staged"] / p.seconds["read"] for p in held}
    large = {key: ratio for key, ratio in each.items() if key[0] >= 8e6}
    small = min(each, key=lambda key: each[key])
    value = min(large.values()) if large else min(each.values())
    nulls = [plain(p, "staged") / plain(p, "open") for p in held if p.size >= 8e6 or not large]
    return Record(
        system=54, claim=OPENING,
        paper=Paper(value=4.7, unit="x", setting="direct connections between storage and academic cloud, against a "
                    "conventional approach that its abstract does not describe"),
        ours=Ours(
            value=round(value, 2), unit="x",
            spread=", ".join(f"{show(s, 'B')} at {show(r, 's')} {x:.1f}x" for (s, r), x in sorted(each.items()))
            + f"; reading all of the file {min(whole.values()):.2f}x to {max(whole.values()):.2f}x",
            setting=f"the least of files from 8 MB; of all, {show(small[0], 'B')} at {show(small[1], 's')} has the "
            f"least: {each[small]:.2f}x; " + said(),
        ),
        null=Null(value=round(min(nulls), 2), what="by bytes over bandwidth, the least of the same files"),
        bar="at least 4x on each file from 8 MB", holds=value >= 4.0, reproduced="other setting",
        reason="what the paper compared is not said in its abstract; here both ways have equal links, and the ratio "
        "grows with the file, so that any figure can be had: see the region", command=command,
    )  # fmt: skip


def region(quick: bool, command: str) -> Record:
    """Returns where staging takes 4.7 times as long as a mount, by the share of the file that is read."""
    cells = sweep(quick)
    shares, gain = INPUTS["sweep"]["shares"], INPUTS["sweep"]["gain"]
    kept = {s: statistics.mean(row[s] >= gain for row in cells.values()) for s in shares}
    first = {
        rtt: min((size for (size, r), row in cells.items() if r == rtt and row[0.0] >= gain), default=float("inf"))
        for rtt in INPUTS["sweep"]["rtt"]
    }
    most = max(row[1.0] for row in cells.values())
    path = cost.Path(INPUTS["sweep"]["bandwidth"], 0.01, INPUTS["sweep"]["window"])
    hosts = fitted(quick)
    share = cost.largest_share(1e9, path, path, path, gain, host=hosts["open"])
    return Record(
        system=54, claim="region of round trips x sizes where a mount is 4.7 times quicker than a staged copy",
        paper=Paper(value=4.7, unit="x", setting="one figure, no sweep"),
        ours=Ours(
            value=round(kept[0.0], 3), unit="share of the map",
            spread="opened only; " + ", ".join(f"{s:.0%} read {kept[s]:.3f}" for s in shares if s > 0)
            + "; from " + ", ".join(f"{show(s, 'B')} at {show(r, 's')}" for r, s in first.items())
            + f"; all of it read: {most:.2f}x at most; of 1 GB at 10 ms, 4.7x holds while at most {share:.1%} is read",
            setting="forecast; round trips of 1 to 100 ms, 1 MB to 10 GB, each path "
            f"{show(INPUTS['sweep']['bandwidth'], 'B/s')}, window {show(INPUTS['sweep']['window'], 'B')}, blocks of "
            f"{show(INPUTS['read']['block'], 'B')}, hosts as fitted here",
        ),
        null=Null(
            value=round(statistics.mean(2 * s / min(s, INPUTS["read"]["block"]) >= gain for s, _ in cells), 3),
            what="by bytes over bandwidth, opened only",
        ),
        bar="larger files and fewer bytes read never leave the region", holds=monotone(cells, shares, gain),
        reproduced="other setting",
        reason="sizes beyond those measured are the model's; the paper's setting is not published in its abstract",
        command=command,
    )  # fmt: skip


def sweep(quick: bool) -> dict[tuple[float, float], dict[float, float]]:
    """Returns staged over mounted time by size, round trip and share read, with the hosts as fitted."""
    hosts, found, block = fitted(quick), {}, INPUTS["read"]["block"]
    for rtt in INPUTS["sweep"]["rtt"]:
        path = cost.Path(INPUTS["sweep"]["bandwidth"], rtt, INPUTS["sweep"]["window"])
        for size in INPUTS["sweep"]["bytes"]:
            slow = cost.staged(size, path, path).seconds(hosts["staged"])
            found[size, rtt] = {
                share: slow / cost.mounted(size, path, block=block, share=share).seconds(hosts["open"])
                for share in INPUTS["sweep"]["shares"]
            }
    return found


def monotone(cells: dict[tuple[float, float], dict[float, float]], shares: list[float], gain: float) -> bool:
    """Whether a cell's larger neighbours are in the region if it is, and whether reading less never leaves it."""
    larger = all(
        cells[big, rtt][0.0] >= gain
        for (size, rtt), row in cells.items() if row[0.0] >= gain
        for big in INPUTS["sweep"]["bytes"] if big > size
    )  # fmt: skip
    less = all(row[a] >= row[b] * (1 - 1e-9) for row in cells.values() for a, b in pairwise(shares))
    return larger and less


def stripes(quick: bool, command: str) -> Record:
    """Returns what several connections gain over one."""
    from benchmarks.data_chain import relay

    given = INPUTS["stripes"]
    size, counts = (given["bytes"] / 2, [1, 4]) if quick else (given["bytes"], given["streams"])
    path = cost.Path(INPUTS["link"]["bandwidth"], given["rtt"], given["window"])
    with places() as at:
        name = at.publish(int(size))
        with relay(at.storage.port, path.bandwidth, path.rtt, path.window) as url:
            seconds = {n: at.copied(url, name, n) for n in counts}
    ratio = {n: seconds[1] / s for n, s in seconds.items()}
    model = {n: cost.copied(size, path).wire / cost.copied(size, path, streams=n).wire for n in counts}
    most = max(counts)
    return Record(
        system=54, claim="throughput of several connections over one",
        paper=Paper(value=4.0, unit="x", setting="an academic network against the public Internet: not striping"),
        ours=Ours(
            value=round(ratio[most], 2), unit="x",
            spread=", ".join(f"{n}: {x:.2f}x (model {model[n]:.2f}x)" for n, x in ratio.items() if n > 1),
            setting=f"{most} connections; {show(size, 'B')} over {show(path.bandwidth, 'B/s')}, {show(path.rtt, 's')}, "
            f"window {show(path.window, 'B')}: min(n, bandwidth x round trip / window) = "
            f"{cost.stripes(path, most):.2f}x in steady state, less what opening and slow start take",
        ),
        null=Null(value=1.0, what="bytes over bandwidth: connections change nothing"),
        bar="at least 3x where the window is the limit", holds=ratio[most] >= 3.0, reproduced="other setting",
        reason="another comparison than the paper's: the same link with more connections", command=command,
    )  # fmt: skip


def kills(quick: bool, command: str) -> Record:
    """Returns how many files arrived as they were although every process was killed on the way."""
    from benchmarks.data_chain import killed

    given, rows = INPUTS["kills"], []
    for i in range(2 if quick else given["rounds"]):
        with tempfile.TemporaryDirectory() as folder:
            seed = INPUTS["seed"] + i
            rows.append(killed(Path(folder), seed, size=given["bytes"], bandwidth=given["bandwidth"]))
    by = {name: sum(row["kills"][name] for row in rows) for name in rows[0]["kills"]}
    equal = sum(row["equal"] for row in rows)
    return Record(
        system=54, claim="files whose SHA-256 is equal after kill -9 of instrument, gateway and vault, at random",
        paper=Paper(setting="the abstract says nothing of failures"),
        ours=Ours(
            value=f"{equal} of {len(rows)}", spread=", ".join(f"{name} killed {n} times" for name, n in by.items()),
            setting=f"{show(float(given['bytes']), 'B')} over two links of {show(given['bandwidth'], 'B/s')}; arrived "
            f"after {statistics.median(row['seconds'] for row in rows):.0f} s, median",
        ),
        null=Null(what="none was run: without a journal a copy begins anew each time"),
        bar="all of them", holds=equal == len(rows), reproduced="other setting", reason="a bar of our own",
        command=command,
    )  # fmt: skip


def closed(command: str) -> Record:
    """Returns on how many ports an instrument listens."""
    from benchmarks.data_chain import Started, listening

    with places() as at:
        folder = at.folder / "instrument"
        folder.mkdir()
        (folder / "a").write_bytes(b"x")
        words = ("push", folder, "--to", at.storage.url, "--project", "bench", "--watch", "--settle", "0.1 s")
        instrument = Started(at.token, *words, serves=False)
        instrument.line()  # it has sent a file
        ports, others = listening(instrument.process.pid), listening(at.storage.process.pid)
        instrument.kill()
    return Record(
        system=54, claim="ports on which the instrument's end accepts connections",
        paper=Paper(setting="IoT devices move data from equipment computers, which are not opened"),
        ours=Ours(value=len(ports), unit="ports",
                  setting="by the kernel's tables while it watches and sends; it also refuses to bind one"),
        null=Null(value=len(others), what="the vault, by the same look"),
        bar="none", holds=not ports and len(others) == 1, reproduced="yes", command=command,
    )  # fmt: skip


def said() -> str:
    """Returns the setting of the links, for records."""
    link = INPUTS["link"]
    return (
        f"every path {show(link['bandwidth'], 'B/s')}, window {show(float(link['window']), 'B')}, without loss; blocks "
        f"of {show(float(INPUTS['read']['block']), 'B')}"
    )


def records(quick: bool) -> list[Record]:
    """Returns ARIM-mdx's claims and our bars."""
    command = COMMAND + (" --quick" if quick else "")
    if gone := absent("aiohttp", "fsspec", "obstore"):
        return [skipped(system=54, claim=OPENING, bar="at least 4x", why=f"{gone} not installed", command=command)]
    made: list[Callable[[], Any]] = [
        lambda: opening(quick, command), lambda: region(quick, command), lambda: forecast(quick, command),
        lambda: stripes(quick, command), lambda: kills(quick, command), lambda: closed(command),
    ]  # fmt: skip
    found = []
    for make in made:
        with timer() as spent:
            record = make()
        found.append(msgspec.structs.replace(record, seconds=round(spent.seconds, 1)))
    return found


if __name__ == "__main__":
    sys.exit(main(records))
