"""Rings, halving and servers among processes of this machine over shared memory, and what GenModel makes of them.

The plans are those that `cost.collectives` prices, step by step; the processes check every sum. Times
are those of a machine with a core for each rank: CPU time of the slowest rank in each round, waiting left out, so that
ranks may share cores. Each size, number of ranks and algorithm is left out in turn and predicted from the rest, by
GenModel and by the models that lack its terms.
"""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.cost.collectives import fitting
from fleetcast.cost.collectives.fitting import Timing
from fleetcast.runtime.measure import collectives
from fleetcast.runtime.measure.machine import Machine, this_machine
from fleetcast.runtime.measure.plan_worker import algorithms

SIZES = tuple((3 << 22) * (1 << i) for i in range(3))
"""B of the full buffer: 12, 24 and 48 MiB, beyond caches of one core, divisible by 2, 3, 4, 6 and 8."""
WORKER = ("-m", "fleetcast.runtime.measure.plan_worker")
GROUPS = ("size", "ranks", "algorithm")


@dataclass(frozen=True)
class FanIn:
    """Timings of plans, and the fits.

    Attributes:
        machine: what the operating system says.
        timings: of reduce-scatters and all-gathers.
        load: processes per core that wanted to run before.
    """

    machine: Machine
    timings: tuple[Timing, ...]
    load: float

    @property
    def busy(self) -> bool:
        """Whether other work ran."""
        return self.load > 0.5

    @cached_property
    def fits(self) -> Mapping[str, fitting.Fitted]:
        """Each model's fit to all timings."""
        return {model: fitting.fit(self.timings, model) for model in fitting.MODELS}

    @cached_property
    def held_out(self) -> Mapping[str, Mapping[str, float]]:
        """Model -> what was left out at a time -> mean relative error on it."""
        return {
            model: {by: float(fitting.held_out(self.timings, model, by).mean()) for by in GROUPS}
            for model in fitting.MODELS
        }

    def table(self) -> dict[str, Any]:
        """Returns parameters, errors and timings as plain values."""
        return {
            "machine": self.machine.name, "cores": self.machine.cores, "load": self.load,
            "parameters": asdict(self.fits["genmodel"].parameters),
            "fit_error": {model: fitted.error for model, fitted in self.fits.items()},
            "held_out": {model: dict(row) for model, row in self.held_out.items()},
            "timings": [asdict(timing) for timing in self.timings],
        }  # fmt: skip

    def csv(self) -> str:
        """Returns the timings as CSV text, where and when they were taken in its first line; `read` takes it."""
        text = io.StringIO()
        day, cores = time.strftime("%Y-%m-%d"), self.machine.cores
        text.write(
            f"# CPU s over shared memory, {self.machine.name}, {cores} cores, {self.load:.1f} at work each, {day}\n"
        )
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("algorithm", "ranks", "size", "time", "operation"))
        rows.writerows((t.algorithm, t.ranks, int(t.size), f"{t.time:.4g}", t.operation) for t in self.timings)
        return text.getvalue()


def read(path: Path) -> list[Timing]:
    """Returns the timings of a CSV file; lines that begin with # are skipped."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [
        Timing(row["algorithm"], int(row["ranks"]), float(row["size"]), float(row["time"]), row["operation"])
        for row in csv.DictReader(lines)
    ]  # fmt: skip


def measure_fan_in(
    processes: Sequence[int] = (2, 3, 4, 6, 8), *, sizes: Sequence[int] = SIZES, deadline: float = 300.0,
    progress: Callable[[int, int], None] | None = None,
) -> FanIn:  # fmt: skip
    """Returns what plans take between processes of this machine over shared memory.

    Args:
        processes: how many take part, one measurement for each.
        sizes: B of the full buffer.
        deadline: s after which a measurement is given up; its processes are ended in any case.
        progress: called with (operations done, all).

    Raises:
        SpecError: fewer than two processes or more than 16, or too few to tell algorithms apart.
        Unsupported: the processes failed or took too long.
    """
    for count in processes:
        if not 2 <= count <= 16:
            raise SpecError("processes", "cannot be", value=count, limit="from 2 to 16")
    if len(set(processes)) < 3:
        limit = "three numbers at least: one is left out at a time, and two ranks have one algorithm"
        raise SpecError("processes", "do not tell algorithms apart", value=list(processes), limit=limit)
    if not hasattr(os, "sched_yield"):
        raise Unsupported("plans cannot be timed here: ranks cannot give way to each other", "Use Linux or macOS")
    machine = this_machine()
    load = os.getloadavg()[0] / machine.cores
    every = sum(2 * len(algorithms(count)) * len(sizes) for count in processes)
    done = 0
    timings = []

    def say(_: Mapping[str, Any]) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, every)

    for count in processes:
        for row in collectives.run(count, deadline, say, sizes, worker=WORKER, memory=True):
            timings.append(Timing(row["algorithm"], count, float(row["size"]), row["seconds"], row["operation"]))
    return FanIn(machine, tuple(timings), load)
