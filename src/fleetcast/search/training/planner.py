"""The best training plans of a scenario: the whole space is asked, and the best plan of each spread is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.base.spec import build
from fleetcast.base.tables import lookup
from fleetcast.cost.training.energy import energy
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.step import step
from fleetcast.policy.place import stages as place
from fleetcast.policy.place.stages import NicAware
from fleetcast.scenario.objective import TRAINING
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.plan import one
from fleetcast.scenario.training_plan import DEGREES, TrainingPlan
from fleetcast.search.memory import single as streaming
from fleetcast.search.ranking import Ranking
from fleetcast.search.training import crossing, levels
from fleetcast.search.training.exhaust import Found, Weigh, exhaust
from fleetcast.search.training.space import Question, Space, space
from fleetcast.sim.training.apart import settings_of
from fleetcast.sim.training.completing import check_split, decided
from fleetcast.sim.training.setting import Setting
from fleetcast.sim.training.world import simulate

SPREAD = ("tensor", "pipeline", "data", "context", "expert")
"""Plans alike in these are one row of a ranking: the best of them."""


def search(state: Setting, *, top: int | None = 6, progress: Callable[[int, int], None] | None = None) -> Ranking:
    """Returns the ranked plans of a scenario: every plan that the file leaves open was checked, none was sampled.

    Args:
        state: the scenario, resolved.
        top: how many ways to spread the model, each with its best plan; None = all that fit.
        progress: told (layouts done, layouts).

    Raises:
        SpecError: nothing divides, or an objective that needs prices that are not known.
    """
    if top is not None and top < 1:
        raise SpecError("top", "is out of range", value=top, limit="a whole number from 1")
    goals = state.scenario.objective.goals(TRAINING, {})
    plan = state.scenario.plan
    if plan.place is not None and build(place, plan.place, "plan.place").kind != NicAware.kind:
        raise Unsupported(
            f"plan.place = {plan.place!r}: the search knows {NicAware.kind} alone",
            "Leave it out, or simulate a complete plan with it",
        )
    dtypes = plan.dtype if isinstance(plan.dtype, tuple) else (plan.dtype or state.dtype,)
    streamed = streaming.single(state) if streaming.streams(state) else []
    if plan.swap is not None:
        return _streamed(state, streamed, goals)
    found: list[Candidate] = []
    counts = dict.fromkeys(("enumerated", "memory_feasible", "bounded", "cut_short", "deduplicated", "simulated"), 0)
    check_split(state, {name: one(getattr(plan, name)) for name in DEGREES})
    said: list[str] = []
    parts = island_counts(state)
    for count in parts:
        listed = isinstance(plan.islands, tuple)
        asked = msgspec.structs.replace(plan, islands=None if count == 1 else count) if listed else plan
        whole = state if count == 1 else settings_of(state, asked, count)[0][0]
        every = space(Question(state.network, state.workload.sequence, whole.workload.batch, whole.group.count, plan))
        if plan.shards is not None:
            every = levels.whole(every, plan)
        said += [*lines(whole, every), *([f"each of {count} islands"] if count > 1 else [])]
        for dtype in dtypes:
            result = _searched(state, asked, every, dtype, goals[0][0], progress)
            counts["enumerated"] += result.checked
            counts["memory_feasible"] += result.fits
            found += [Candidate(result.value[row], dtype, result, row, asked) for row in _first_of_each(result)]
            nearest = Candidate(0.0, dtype, result, -1, asked)
    counts["simulated"] = counts["memory_feasible"]
    found.sort(key=lambda candidate: candidate.value)
    told = [_outcome(state, candidate) for candidate in found[:top]]
    fitting = [outcome for outcome in streamed if outcome.metrics["fits"]]
    if fitting:
        told = sorted([*told, *fitting], key=lambda outcome: float(lookup(outcome.metrics, goals[0][1])))[:top]
    misses = [] if told else streamed[:1] or [_outcome(state, nearest)]
    counts["simulated"] += len(streamed)
    rejected = tuple(_rejected(state, nearest.found))
    return Ranking(
        plans=tuple(told), frontier=tuple(told[:1]), misses=tuple(misses), rejected=rejected,
        counts=counts, goals=goals, axes=(*goals, ("memory", "memory", 1)),
        space=(*said, *([STREAMED] if streamed else [])),
    )  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A plan that was found.

    Attributes:
        value: what it makes of the goal.
        dtype: of its products.
        found: the search that found it.
        row: its layout; -1 = the nearest of those that do not fit.
        asked: what the scenario says, its islands decided.
    """

    value: float
    dtype: str
    found: Found | levels.Shared
    row: int
    asked: TrainingPlan


def island_counts(state: Setting) -> tuple[int, ...]:
    """Returns how many islands are searched: as listed, those that divide the devices and the batch.

    Raises:
        SpecError: none does.
    """
    asked = state.scenario.plan.islands
    listed = asked if isinstance(asked, tuple) else (asked or 1,)
    groups = len(state.tree.groups)
    kept = [
        count for count in dict.fromkeys(listed)
        if count == 1 or not (state.group.count % count or state.workload.batch % count or groups not in (1, count))
    ]  # fmt: skip
    if not kept:
        settings_of(state, state.scenario.plan, listed[0])  # says what does not divide
    return tuple(kept)


def _searched(
    state: Setting, plan: TrainingPlan, every: Space, dtype: str, goal: str, progress: Callable[[int, int], None] | None
) -> Found | levels.Shared:
    """Returns what a search of one space finds: the best plan of each layout."""
    count = one(plan.islands) or 1
    if count > 1:
        return _apart(state, plan, count, every, dtype, goal, progress)
    job = state.job(dtype)
    weigh = weigh_of(state, job, goal)
    if plan.shards is not None:
        return levels.search(state, plan, every, job, weigh=weigh, progress=progress)
    if len(state.tree.groups) > 1:
        return crossing.search(state, every, job, weigh=weigh, goal=goal, progress=progress)
    return exhaust(every, state.network, job, state.system, weigh=weigh, progress=progress)


def _apart(
    state: Setting, plan: TrainingPlan, count: int, every: Space, dtype: str, goal: str,
    progress: Callable[[int, int], None] | None,
) -> Found | levels.Shared:  # fmt: skip
    """Returns the same of islands: all follow one plan, which fits each of them; the slowest sets the pace.

    Raises:
        Unsupported: shards on islands that differ.
    """
    settings, share = settings_of(state, plan, count)
    first, *others = settings
    job, scale = first.job(dtype), float(share)
    if plan.shards is not None:
        if others:
            raise Unsupported(
                "plan.shards: on islands that differ the search knows plan.zero alone", "Simulate a complete plan"
            )
        return levels.search(first, plan, every, job, weigh=weigh_of(first, job, goal), progress=progress)
    weighs = [weigh_of(island, island.job(dtype), goal) for island in settings]
    if not others:
        found = exhaust(every, first.network, job, first.system, weigh=weighs[0], progress=progress)
        return found if weighs[0] is None else replace(found, value=scale * found.value)

    def together(plans: Plans, terms: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        times = [terms, *(step(island.network, job, plans, island.system) for island in others)]
        if goal == "time":
            return np.asarray(np.max([one["total"] for one in times], axis=0))
        if goal == "cost":
            prices = [float(island.group.price or 0.0) for island in settings]  # seconds of the mean price, as time is
            paid = [price * one["total"] for price, one in zip(prices, times, strict=True)]
            return np.asarray(np.sum(paid, axis=0) / sum(prices))
        drawn = [weigh(plans, one) for weigh, one in zip(weighs, times, strict=True) if weigh is not None]
        return np.asarray(np.sum(drawn, axis=0))

    least = replace(first.system, memory=min(island.system.memory for island in settings))
    return exhaust(every, first.network, job, least, weigh=together, progress=progress)


STREAMED = "plans that stream the model: the optimizer beside the pass back or after it, the best share swapped"


def _streamed(state: Setting, found: list[Outcome], goals: tuple[tuple[str, str, int], ...]) -> Ranking:
    """Returns the ranking of plans that stream, where the scenario asks for no others."""
    told = [outcome for outcome in found if outcome.metrics["fits"]]
    told.sort(key=lambda outcome: float(lookup(outcome.metrics, goals[0][1])))
    counts = dict.fromkeys(("bounded", "cut_short", "deduplicated"), 0)
    counts |= {"enumerated": len(found), "memory_feasible": len(told), "simulated": len(found)}
    return Ranking(
        plans=tuple(told), frontier=tuple(told[:1]), misses=() if told else tuple(found[:1]), rejected=(),
        counts=counts, goals=goals, axes=(*goals, ("memory", "memory", 1)), space=(STREAMED,),
    )  # fmt: skip


def weigh_of(state: Setting, job: Job, goal: str) -> Weigh | None:
    """Returns what a goal makes of plans; None where it is their time, as money is on a fleet that is all taken.

    Raises:
        SpecError: cost is asked for and the devices have no price.
    """
    device = state.group.device
    if goal == "cost" and state.group.prices is None:
        raise SpecError(
            "objective.minimize", "needs prices", value="cost", limit=f"{state.unpriced} has none",
            hint=f'Add fleet.price = {{ "{state.unpriced}" = "1.00 $/h" }}, or minimise time',
        )  # fmt: skip
    if goal in ("time", "cost"):
        return None

    def joules(plans: Plans, times: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        found = energy(state.network, job, plans, state.system, times, device.power.idle, state.group.limit)
        return sum(found.values(), np.zeros(len(plans)))

    return joules


def _first_of_each(found: Found | levels.Shared) -> list[int]:
    """Returns the layout of the best plan of each spread, best first."""
    table = np.stack([found.space.layouts[name] for name in SPREAD], axis=1)
    seen: set[tuple[int, ...]] = set()
    rows = []
    for row in np.argsort(found.value, kind="stable"):
        key = tuple(int(degree) for degree in table[row])
        if found.best[row] >= 0 and key not in seen:
            seen.add(key)
            rows.append(int(row))
    return rows


def _outcome(state: Setting, candidate: Candidate) -> Outcome:
    found, row = candidate.found, candidate.row
    number = found.nearest if row < 0 else int(found.best[row])
    rows = found.space.plans(np.asarray([number], dtype=np.int64))
    made = decided(rows, 0, candidate.dtype, candidate.asked)
    if isinstance(found, levels.Shared):
        made = msgspec.structs.replace(made, shards=found.nearest_way if row < 0 else found.ways[row])
    return simulate(state, made)


def _rejected(state: Setting, found: Found | levels.Shared) -> list[Mapping[str, Any]]:
    """Returns the pairs of tensor and pipeline parallelism of which no plan fits: the least that one needs."""
    layouts = found.space.layouts
    rows: list[Mapping[str, Any]] = []
    for tensor, pipeline in sorted(set(zip(layouts["tensor"].tolist(), layouts["pipeline"].tolist(), strict=True))):
        alike = (layouts["tensor"] == tensor) & (layouts["pipeline"] == pipeline)
        if (found.best[alike] < 0).all():
            rows.append({
                "family": f"TP{tensor} PP{pipeline}", "constraint": "memory", "need": float(found.need[alike].min()),
                "have": state.system.memory, "unit": "B",
            })  # fmt: skip
    return rows


def lines(state: Setting, every: Space) -> list[str]:
    """Returns the space in sentences."""
    layouts = every.layouts

    def span(name: str) -> str:
        return ", ".join(str(n) for n in sorted(set(layouts[name].tolist())))

    choices = "recompute, sharding, offload, messages, overlap"
    return [
        f"{state.devices}: tensor {span('tensor')}; pipeline {span('pipeline')}; micro-batch {span('micro_batch')}; "
        f"pieces of a stage {span('interleave')}",
        f"{len(layouts['tensor']):,} layouts x {every.per_layout:,} choices of {choices}",
    ]
