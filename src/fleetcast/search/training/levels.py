"""States shared out by level, searched: every way to share, beside every layout and choice that leaves a model whole.

Ways that a plan lists, or with "auto" all over the levels of the fleet. A layout's messages are the same for all its
choices, so that a way on a layout is costed once for all of them, as columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.cost.training.memory import memory
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.plans import SCHEDULES
from fleetcast.scenario.training_plan import Shards, TrainingPlan
from fleetcast.search.training.exhaust import Weigh
from fleetcast.search.training.space import Space
from fleetcast.sim.training.levels import candidates, check_whole, costed, near_levels
from fleetcast.sim.training.setting import Setting


@dataclass(frozen=True)
class Shared:
    """What a search of ways to share found; the first seven as `exhaust.Found` has them.

    Attributes:
        space: layouts that leave a model whole, and their choices.
        checked: plans, each way to share counted.
        fits: those that fit.
        best: of each layout, the number of its best plan; -1 = none fits.
        value: of each layout, what that plan makes of the goal.
        need: of each layout, B per device that its leanest plan takes.
        nearest: the number of the plan whose memory is least over, where nothing fits; else -1.
        ways: of each layout, how its best plan shares; ``nearest_way`` of the nearest.
        nearest_way: see ``ways``.
    """

    space: Space
    checked: int
    fits: int
    best: NDArray[np.int64]
    value: NDArray[np.float64]
    need: NDArray[np.float64]
    nearest: int
    ways: tuple[Shards | None, ...]
    nearest_way: Shards | None


def whole(every: Space, plan: TrainingPlan) -> Space:
    """Returns the part of a space that leaves the model whole, nothing shared or moved but what the plan says.

    Raises:
        SpecError: degrees that cut the model; names the degree.
    """
    layouts, choices = every.layouts, every.choices
    kept = (layouts["tensor"] == 1) & (layouts["pipeline"] == 1) & (layouts["schedule"] == SCHEDULES.index("1f1b"))
    if not kept.any():
        check_whole(int(layouts["tensor"].min()), int(layouts["pipeline"].min()))
        raise SpecError(
            "plan.shards", "leaves each model whole, and no layout of the fleet does", value=str(plan.shards),
            limit="a batch that divides over all devices", hint="Change workload.batch, or write zero instead",
        )  # fmt: skip
    plain = (choices["zero"] == 0) & ((choices["offload"] == 0) | (plan.offload is not None))
    return Space(every.only(kept).layouts, {name: column[plain] for name, column in choices.items()})


def search(
    state: Setting, plan: TrainingPlan, every: Space, job: Job, *, weigh: Weigh | None,
    progress: Callable[[int, int], None] | None = None,
) -> Shared:  # fmt: skip
    """Returns the best plan of every layout, of all its choices and all ways to share.

    Args:
        state: the scenario, resolved.
        plan: with ``shards``.
        every: from `whole`.
        job: the batch.
        weigh: what is minimised; None = the time of an iteration.
        progress: told (layouts done, layouts).

    Raises:
        SpecError: no way that the copies hold.
    """
    layouts = len(every.layouts["tensor"])
    best, value = np.full(layouts, -1, dtype=np.int64), np.full(layouts, np.inf)
    need, ways = np.full(layouts, np.inf), list[Shards | None]([None] * layouts)
    checked, fitting, nearest, near_way, least = 0, 0, -1, None, np.inf
    for layout in range(layouts):
        numbers = layout * every.per_layout + np.arange(every.per_layout, dtype=np.int64)
        rows = every.plans(numbers)
        room = memory(state.network, job, rows, state.system)
        for way in ways_of(state, plan, int(rows.data[0] * rows.context[0])):
            times, held = costed(state, way, rows, job, room)
            over = np.maximum(held["total"] / state.system.memory, held["host"] / state.system.host_memory)
            over = np.maximum(over, held["ssd"] / state.system.ssd_memory)
            worth = np.where(over <= 1.0, times["total"] if weigh is None else weigh(rows, times), np.inf)
            checked, fitting = checked + len(rows), fitting + int((over <= 1.0).sum())
            need[layout] = min(need[layout], float(held["total"].min()))
            at = int(np.argmin(worth))
            if worth[at] < value[layout]:
                value[layout], best[layout], ways[layout] = worth[at], numbers[at], way
            at = int(np.argmin(over))
            if over[at] < least:
                least, nearest, near_way = float(over[at]), int(numbers[at]), way
        if progress is not None:
            progress(layout + 1, layouts)
    if not checked:
        raise SpecError(
            "plan.shards", "lists no way that the copies of a layout hold", value=str(plan.shards),
            limit="divisors of the copies, each of the next", hint='Write shards = "auto"',
        )  # fmt: skip
    return Shared(every, checked, fitting, best, value, need, nearest if not fitting else -1, tuple(ways), near_way)


def ways_of(state: Setting, plan: TrainingPlan, copies: int) -> list[Shards]:
    """Returns the ways to share that a plan lists, or all over the levels, of those that so many copies hold."""
    near = near_levels(state)
    listed = plan.shards.ways() if isinstance(plan.shards, Shards) else candidates(copies, *near)
    names = ("weights", "gradients", "optimizer", "second")
    held = [[int(getattr(way, name) or 1) for name in names] for way in listed]
    return [way for way, counts in zip(listed, held, strict=True) if all(copies % n == 0 for n in counts)]
