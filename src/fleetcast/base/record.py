"""The event record: what every world and every engine logs, as columns.

One row is one span of one resource: (time, duration, resource, what, count, items). ``count`` says how often the
span repeats inside its duration (k equal decode steps are one row), ``items`` how many requests, tasks or jobs it
held. Statistics, timelines, plots and the determinism tests all read this and nothing else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


ITERATIONS = ("decode", "prefill", "mixed")
"""Kinds of a serving engine's iterations, simulated or run."""


@dataclass(frozen=True)
class Record:
    """Columns of equal length n, rows in the order they were logged.

    Attributes:
        time: f8[n], start, s.
        duration: f8[n], s.
        resource: i4[n], index into ``resources``.
        what: i4[n], index into ``whats``.
        count: i8[n], repetitions inside the span.
        items: i8[n], requests, tasks or jobs in the span.
        level: f8[n], fill of the resource's memory at the end of the span, 0 to 1.
        resources: names of the resources.
        whats: names of the kinds of span.
    """

    time: NDArray[np.float64]
    duration: NDArray[np.float64]
    resource: NDArray[np.int32]
    what: NDArray[np.int32]
    count: NDArray[np.int64]
    items: NDArray[np.int64]
    level: NDArray[np.float64]
    resources: tuple[str, ...] = field(default=())
    whats: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.time)

    def digest(self) -> str:
        """Returns a hash of every byte of the log: same scenario and seed, same digest."""
        h = hashlib.sha256(repr((self.resources, self.whats)).encode())
        for column in (
            self.time, self.duration, self.resource, self.what, self.count, self.items, self.level,
        ):  # fmt: skip
            h.update(column.tobytes())
        return h.hexdigest()
