"""Processes of this machine that talk to each other: what collectives take by size, and the link that follows.

Processes meet at a file and talk over the loopback interface (torch.distributed, gloo). Each operation is timed at
sizes from 1 KB to 64 MB. Every second size is held out: the others give a curve, log-log linear between its knots, and
Hockney's latency and bandwidth (Parallel Computing 20, 1994); how far both are off at the sizes held out is part of the
answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.base.host import waiting
from fleetcast.base.spec import dump_toml
from fleetcast.cost.collectives import volume
from fleetcast.runtime.measure.machine import Machine, this_machine
from fleetcast.runtime.measure.profile import rounded

Array = NDArray[np.float64]

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "send")
SIZES = tuple(1024 << i for i in range(17))
"""B of the full buffer: 1 KB to 64 MB."""
TIMEOUT = 60.0
"""s that a rank waits for the others."""
WORKER = ("-m", "fleetcast.runtime.measure.collective_worker")
_MOST = 16  # ranks: beyond, a machine's cores are shared so often that times say little


def readings(size: int) -> int:
    """Returns how often an operation on ``size`` bytes is timed."""
    return 40 if size <= 1 << 18 else 12 if size <= 1 << 23 else 5


@dataclass(frozen=True, slots=True)
class Curve:
    """An operation's times by size, and what follows.

    Attributes:
        operation: e.g. "all_reduce".
        ranks: processes.
        sizes: (n,) B.
        best: (n,) s.
        median: (n,) s.
        launch: s at no size.
        rate: B/s that the bytes each rank sends move at.
        affine_error: median error of latency and bandwidth at sizes held out, as a share.
        curve_error: that of the curve through the others.
    """

    operation: str
    ranks: int
    sizes: tuple[float, ...]
    best: tuple[float, ...]
    median: tuple[float, ...]
    launch: float
    rate: float
    affine_error: float
    curve_error: float


@dataclass(frozen=True, slots=True)
class Collectives:
    """What processes of a machine take to talk to each other.

    Attributes:
        machine: what the operating system says.
        curves: by operation and ranks.
        missing: operations that the backend does not have -> why.
        load: processes per core that wanted to run before.
    """

    machine: Machine
    curves: tuple[Curve, ...]
    missing: Mapping[str, str]
    load: float

    @property
    def busy(self) -> bool:
        """Whether other work ran."""
        return self.load > 0.5

    def table(self) -> dict[str, Any]:
        """Returns the link as a file has it: what scenarios read, and what it rests on."""
        pairs = [c for c in self.curves if c.ranks == 2]
        first = next((c for c in pairs if c.operation in ("send", "all_reduce")), self.curves[0])
        reached = max(c.rate for c in pairs or self.curves)
        curves: dict[str, dict[str, list[float]]] = {}
        for c in self.curves:
            curves.setdefault(c.operation, {})[str(c.ranks)] = [1e6 * s for s in c.best]
        affine = {c.operation: {"launch": c.launch, "hop": 0.0, "efficiency": c.rate / reached} for c in pairs}
        spread = float(np.median([np.log(m / b) for c in self.curves for b, m in zip(c.best, c.median, strict=True)]))
        found: dict[str, Any] = rounded({
            "link": {
                "id": f"{self.machine.id}-gloo", "name": f"Processes of one {self.machine.name}, gloo over loopback",
                "kind": "cpu", "bandwidth": reached, "latency": first.launch,
                "source": "fleetcast measure collectives: torch.distributed, gloo, loopback",
            },
            "collectives": {
                "source": "fleetcast measure collectives", "kind": "cpu", "bandwidth": reached,
                "spread": max(spread, 0.01), "size": [int(size) for size in self.curves[0].sizes],
                "affine": affine, "curves": curves,
            },
            "measured": {
                "load": self.load, "missing": dict(self.missing),
                "held_out": [
                    {"operation": c.operation, "ranks": c.ranks, "affine": c.affine_error, "curve": c.curve_error}
                    for c in self.curves
                ],
            },
        })  # fmt: skip
        return found

    def toml(self) -> str:
        """Returns the text of the link's file."""
        return f"# Written by fleetcast measure collectives.\n{dump_toml(self.table())}"


def measure_collectives(
    processes: Sequence[int] = (2, 4), *, sizes: Sequence[int] = SIZES, deadline: float = 300.0,
    progress: Callable[[int, int], None] | None = None,
) -> Collectives:  # fmt: skip
    """Returns what collectives take between processes of this machine.

    Args:
        processes: how many talk to each other, one measurement for each.
        sizes: B of the full buffer, at least three, growing.
        deadline: s after which a measurement is given up; its processes are ended in any case.
        progress: called with (operations and sizes done, all).

    Raises:
        SpecError: fewer than two processes, or more than 16.
        Unsupported: torch is not installed, or the processes failed or took too long.
    """
    for count in processes:
        if not 2 <= count <= _MOST:
            raise SpecError("processes", "cannot be", value=count, limit=f"from 2 to {_MOST}")
    if find_spec("torch") is None:
        raise Unsupported("collectives cannot be timed: torch is not installed", "Install fleetcast[torch]")
    machine = this_machine()
    load = waiting()
    each, curves, missing = len(OPERATIONS) * len(sizes), [], {}
    for i, count in enumerate(processes):
        rows: dict[str, list[dict[str, Any]]] = {}

        def say(row: Mapping[str, Any], before: int = i * each) -> None:
            if progress is not None and "size" in row:
                place = OPERATIONS.index(row["operation"]) * len(sizes) + list(sizes).index(row["size"])
                progress(before + place + 1, len(processes) * each)

        for row in run(count, deadline, say, sizes):
            if "missing" in row:
                missing[row["operation"]] = row["missing"]
            else:
                rows.setdefault(row["operation"], []).append(row)
        curves += [curve(name, count, found) for name, found in rows.items() if len(found) == len(sizes)]
    if not curves:
        raise Unsupported("no collective ran", f"The backend said: {'; '.join(missing.values())}")
    return Collectives(machine, tuple(curves), missing, load)


def run(
    ranks: int, deadline: float, say: Callable[[Mapping[str, Any]], None], sizes: Sequence[int] = SIZES, *,
    worker: Sequence[str] = (), memory: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Returns what rank 0 of ``ranks`` processes says. None of them is left when it returns or raises.

    ``worker`` is what the interpreter runs in each, default `WORKER`; with ``memory`` they meet at a file that no disk
    keeps, where the system has such files.

    Raises:
        Unsupported: one failed, or they took longer than ``deadline`` s.
    """
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback()}
    found: list[dict[str, Any]] = []
    late = threading.Event()
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if memory and shared.is_dir() else None) as folder:
        store = str(Path(folder) / "store")
        begun: list[subprocess.Popen[str]] = []

        def end() -> None:
            for process in begun:
                process.kill()

        def give_up() -> None:
            late.set()
            end()

        timer = threading.Timer(deadline, give_up)
        try:
            for rank in range(ranks):
                begun.append(subprocess.Popen(
                    [sys.executable, *(worker or WORKER), str(rank), str(ranks), store, ",".join(map(str, sizes))],
                    env=env, text=True,
                    stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL, stderr=subprocess.PIPE,
                ))  # fmt: skip
            timer.start()
            for line in begun[0].stdout or ():
                found.append(json.loads(line))
                say(found[-1])
            begun[0].wait()
            # the others are done when rank 0 is; one that is not hangs, and is ended
            patience = time.monotonic() + 5.0
            while begun[0].returncode == 0 and any(p.poll() is None for p in begun) and time.monotonic() < patience:
                time.sleep(0.01)
        finally:
            timer.cancel()
            end()
            said = [(process.communicate()[1] or "").strip().splitlines() for process in begun]
    bad = next((i for i, process in enumerate(begun) if process.returncode), None)
    if late.is_set():
        raise Unsupported(
            f"{ranks} processes took longer than {deadline:g} s", "Measure an idle machine, or fewer processes"
        )
    if begun[0].returncode or bad is not None:
        raise Unsupported(
            f"rank {bad} of {ranks} ended with status {begun[bad or 0].returncode}",
            (said[bad or 0] or ["It said nothing"])[-1][:200],
        )  # fmt: skip
    return found


def loopback() -> str:
    """Returns the name of the loopback interface."""
    return "lo" if Path("/sys/class/net/lo").exists() else "lo0"


def curve(operation: str, ranks: int, rows: Sequence[Mapping[str, Any]]) -> Curve:
    """Returns an operation's times with the fits, every second size held out to judge them.

    Args:
        operation: e.g. "all_reduce".
        ranks: processes.
        rows: "size", "best" and "median" each, sizes growing.
    """
    size, best, median = (
        np.array([row[name] for row in rows], dtype=np.float64) for name in ("size", "best", "median")
    )
    sent = size * float(volume("send" if operation == "broadcast" else operation, ranks))
    judge = np.arange(len(size)) % 2 == 1
    judge[-1] = False  # beyond its last knot a curve is no curve
    launch, per_byte = affine(sent[~judge], best[~judge])
    off = np.abs((launch + per_byte * sent[judge]) / best[judge] - 1.0)
    between = np.exp(np.interp(np.log(size[judge]), np.log(size[~judge]), np.log(best[~judge])))
    launch, per_byte = affine(sent, best)
    return Curve(
        operation, ranks, tuple(size), tuple(best), tuple(median), launch, 1.0 / max(per_byte, 1e-18),
        float(np.median(off)), float(np.median(np.abs(between / best[judge] - 1.0))),
    )  # fmt: skip


def affine(size: Array, seconds: Array) -> tuple[float, float]:
    """Returns (s, s/B), both at least 0, of least squares on relative errors."""
    a = np.stack([1.0 / seconds, size / seconds], axis=1)
    ones = np.ones(len(size))
    found = np.linalg.lstsq(a, ones, rcond=None)[0]
    if found.min() < 0:
        single = [(a[:, j] @ ones) / (a[:, j] @ a[:, j]) for j in (0, 1)]
        errors = [float(np.sum((a[:, j] * single[j] - ones) ** 2)) for j in (0, 1)]
        found = np.array([single[0], 0.0] if errors[0] < errors[1] else [0.0, single[1]])
    return float(found[0]), float(found[1])
