"""Jobs of workers and parameter servers, in slots of time: what each kind is, how fast it goes, lists of jobs.

The form of DL2 (Peng et al., arXiv 1909.06040): jobs arrive at slots, a job's kind says what a worker and a server take
and how many epochs it runs, and speed depends on the numbers of workers and servers alone.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fleetcast.base.rng import rng

MOST = 16
"""Workers, and servers, that a job can have in DL2."""
SLOT = 1200.0
"""s of a slot in DL2."""
_TABLE = Path(__file__).parent / "catalog" / "server_jobs" / "dl2.csv"


@dataclass(frozen=True)
class Kinds:
    """Kinds of job.

    Attributes:
        models: names, of length k.
        takes: i4[k, 4], slots of cpu and gpu of a worker, of cpu and gpu of a server.
        epochs: f8[k].
        batches: f8[k], of an epoch.
        speed: f8[k, most + 2, most + 2], steps/s by servers and workers; 0 where there are none of either. One more of
            each than a job can have, for policies that look ahead.
        source: of the speeds.
    """

    models: tuple[str, ...]
    takes: Any
    epochs: Any
    batches: Any
    speed: Any
    source: str = ""

    @property
    def most(self) -> int:
        """Workers, and servers, that a job can have."""
        return int(self.speed.shape[1]) - 2


@dataclass(frozen=True)
class ServerJobs:
    """A list of jobs.

    Attributes:
        kinds: of job.
        arrival: i4[n], slot, ascending.
        kind: i4[n].
        epochs: f8[n], as estimated when the job comes.
        real: f8[n], that it takes.
        seconds: of a slot.
        source: of the list.
    """

    kinds: Kinds
    arrival: Any
    kind: Any
    epochs: Any
    real: Any
    seconds: float = SLOT
    source: str = ""

    def __len__(self) -> int:
        """Number of jobs."""
        return len(self.arrival)

    def estimated(self, error: float, draw: np.random.Generator) -> ServerJobs:
        """Returns the list with real epochs up to that share above or below the estimate, evenly drawn (as DL2's)."""
        return replace(self, real=self.epochs * (1.0 + error * draw.uniform(-1.0, 1.0, len(self))))


@cache
def dl2() -> Kinds:
    """Returns DL2's eight kinds, their speeds by our condensed fit (the table says how good it is)."""
    with _TABLE.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    models = tuple(row["model"] for row in rows)

    def columns(*names: str) -> Any:
        return np.array([[float(row[name]) for name in names] for row in rows])

    work, fixed, share, worker, server = (
        c[:, None, None] for c in columns("work", "fixed", "share", "worker", "server").T
    )
    p, w = np.meshgrid(np.arange(1, MOST + 2), np.arange(1, MOST + 2), indexing="ij")
    speed = np.zeros((len(rows), MOST + 2, MOST + 2))
    speed[:, 1:, 1:] = 1.0 / (work / w + fixed + share * w / p + worker * w + server * p)
    takes = columns("worker_cpu", "worker_gpu", "server_cpu", "server_gpu").astype(np.int32)
    epochs, batches = columns("epochs", "batches").T
    return Kinds(models, takes, epochs, batches, speed, "DL2's measured speeds, fitted")


def synthetic(seed: int, *, kinds: Kinds | None = None, jobs: int = 60, most: int = 3) -> ServerJobs:
    """Returns a synthetic list: kinds drawn evenly; at each slot ``most`` jobs come or, 10 times in 28, one fewer.

    The share is that of the arrivals that DL2's simulator has, cut at three as it does. Fixed before any policy was
    trained on it.

    Args:
        seed: of the list; below 1,000,000 they are held out to judge, above they are trained on.
        kinds: of job; default `dl2`.
        jobs: in all.
        most: that come at one slot.
    """
    kinds = kinds or dl2()
    draw = rng(seed, "workload", "server_jobs")
    come = most - (draw.random(jobs) < 10 / 28)
    arrival = np.repeat(np.arange(jobs, dtype=np.int32), come)[:jobs]
    kind = draw.integers(0, len(kinds.models), jobs).astype(np.int32)
    epochs = kinds.epochs[kind]
    return ServerJobs(kinds, arrival, kind, epochs, epochs, source=f"synthetic: seed {seed}")
