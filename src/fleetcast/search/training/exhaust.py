"""The exact best of a space of training plans: memory first, then time, a chunk of columns at a time.

Memory does not ask how messages are sent or hidden, so plans that differ in nothing else are checked once. What fits is
timed, all of it: no bound, no sample, no order that could hide a better plan. Of each layout the best plan is kept, and
nothing else, so that a space of any size takes little room.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost.training.memory import memory
from fleetcast.cost.training.network import Job, Network
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.step import step
from fleetcast.cost.training.system import System
from fleetcast.search.training.space import Space

CHUNK = 1 << 15
"""Plans that are looked at together: columns of them stay in the processor's caches."""
_MEMORY = ("recompute", "sequence_parallel", "zero", "offload", "fused")

Progress = Callable[[int, int], None]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """What a search of a whole space found.

    Attributes:
        space: the space.
        checked: plans whose memory was asked about.
        fits: plans that fit.
        best: of each layout, the number of its best plan; -1 = none fits.
        value: of each layout, what that plan makes of the goal: s, or what ``weigh`` says.
        need: of each layout, B per device that its leanest plan takes.
        nearest: the number of the plan whose memory is least over, where nothing fits; else -1.
    """

    space: Space
    checked: int
    fits: int
    best: NDArray[np.int64]
    value: Floats
    need: Floats
    nearest: int

    def ranked(self, limit: int | None = None) -> NDArray[np.int64]:
        """Returns the numbers of the best plans, one per layout, best first."""
        order = np.argsort(self.value, kind="stable")
        order = order[self.best[order] >= 0]
        return self.best[order[:limit]]


Weigh = Callable[[Plans, dict[str, Floats]], Floats]
"""What a plan is worth, less is better, from its columns and the seconds of its terms."""


def exhaust(
    space: Space, network: Network, job: Job, system: System, *, weigh: Weigh | None = None,
    progress: Progress | None = None,
) -> Found:  # fmt: skip
    """Returns the best plan of every layout.

    Args:
        space: all plans.
        network: the model.
        job: the batch.
        system: the devices.
        weigh: what is minimised; None = the time of an iteration.
        progress: called with (layouts done, layouts).
    """
    layouts, per = len(space.layouts["tensor"]), space.per_layout
    best = np.full(layouts, -1, dtype=np.int64)
    value, leanest = np.full(layouts, np.inf), np.zeros(layouts)
    alike, member = _alike(space)
    each = len(alike)
    fitting, nearest, least = 0, -1, np.inf
    rows = max(1, CHUNK // each)
    for first in range(0, layouts, rows):
        last = min(first + rows, layouts)
        numbers = (np.arange(first, last, dtype=np.int64)[:, None] * per + alike[None, :]).ravel()
        need = memory(network, job, space.plans(numbers), system)
        over = np.maximum(need["total"] / system.memory, need["host"] / system.host_memory)
        over = np.maximum(over, need["ssd"] / system.ssd_memory)
        leanest[first:last] = need["total"].reshape(last - first, each).min(axis=1)
        at = int(np.argmin(over))
        if over[at] < least:
            least, nearest = float(over[at]), int(numbers[at])
        held = (over <= 1.0).reshape(last - first, each)
        layout, choice = np.nonzero(held[:, member])
        fitting += len(layout)
        _time(space, (layout + first) * per + choice, (network, job, system), weigh, best, value)
        if progress is not None:
            progress(last, layouts)
    return Found(space, len(space), fitting, best, value, leanest, nearest if not fitting else -1)


def _alike(space: Space) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Returns a choice of each kind that memory tells apart, and for every choice which of them it is."""
    table = np.stack([space.choices[name] for name in _MEMORY], axis=1)
    _, first, inverse = np.unique(table, axis=0, return_index=True, return_inverse=True)
    return first.astype(np.int64), inverse.ravel()


def _time(
    space: Space, numbers: NDArray[np.int64], question: tuple[Network, Job, System], weigh: Weigh | None,
    best: NDArray[np.int64], value: Floats,
) -> None:  # fmt: skip
    """Times plans, in order of their numbers, and keeps the best of each layout."""
    for first in range(0, len(numbers), CHUNK):
        part = numbers[first : first + CHUNK]
        plans = space.plans(part)
        terms = step(*question[:2], plans, question[2])
        worth = terms["total"] if weigh is None else weigh(plans, terms)
        layout = part // space.per_layout
        starts = np.flatnonzero(np.r_[True, layout[1:] != layout[:-1]])
        for low, high in zip(starts, np.r_[starts[1:], len(part)], strict=True):
            at = low + int(np.argmin(worth[low:high]))
            row = int(layout[low])
            if worth[at] < value[row]:
                value[row], best[row] = worth[at], part[at]
