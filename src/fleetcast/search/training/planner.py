"""The best training plans of a scenario: the whole space is asked, and the best plan of each spread is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.base.spec import build
from fleetcast.base.tables import lookup
from fleetcast.cost.training.energy import energy
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.plans import Plans
from fleetcast.policy import place
from fleetcast.policy.place import NicAware
from fleetcast.scenario.objective import TRAINING
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.plan import one
from fleetcast.scenario.training_plan import DEGREES
from fleetcast.search.memory import single as streaming
from fleetcast.search.ranking import Ranking
from fleetcast.search.training import crossing
from fleetcast.search.training.exhaust import Found, Weigh, exhaust
from fleetcast.search.training.space import Question, Space, space
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
    if state.scenario.plan.shards is not None:
        raise Unsupported(
            "plan.shards: the search knows plan.zero alone",
            'simulate takes shards, and with shards = "auto" finds the quickest levels that fit',
        )
    if (state.scenario.plan.islands or 1) != 1:
        raise Unsupported(
            "plan.islands: the search knows one model on all devices",
            "Plan one island, its devices and its share of the batch, and simulate that plan with islands",
        )
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
    found: list[tuple[float, str, Found, int]] = []
    counts = dict.fromkeys(("enumerated", "memory_feasible", "bounded", "cut_short", "deduplicated", "simulated"), 0)
    check_split(state, {name: one(getattr(plan, name)) for name in DEGREES})
    every = space(Question(state.network, state.workload.sequence, state.workload.batch, state.group.count, plan))
    for dtype in dtypes:
        job = state.job(dtype)
        weigh = weigh_of(state, job, goals[0][0])
        if len(state.tree.groups) > 1:
            result = crossing.search(state, every, job, weigh=weigh, goal=goals[0][0], progress=progress)
        else:
            result = exhaust(every, state.network, job, state.system, weigh=weigh, progress=progress)
        counts["enumerated"] += result.checked
        counts["memory_feasible"] += result.fits
        found += [(result.value[row], dtype, result, row) for row in _first_of_each(result)]
        nearest = result
    counts["simulated"] = counts["memory_feasible"]
    found.sort(key=lambda pair: pair[0])
    told = [_outcome(state, dtype, result, int(result.best[row])) for _, dtype, result, row in found[:top]]
    fitting = [outcome for outcome in streamed if outcome.metrics["fits"]]
    if fitting:
        told = sorted([*told, *fitting], key=lambda outcome: float(lookup(outcome.metrics, goals[0][1])))[:top]
    misses = [] if told else streamed[:1] or [_outcome(state, dtypes[-1], nearest, nearest.nearest)]
    counts["simulated"] += len(streamed)
    return Ranking(
        plans=tuple(told), frontier=tuple(told[:1]), misses=tuple(misses), rejected=tuple(_rejected(state, nearest)),
        counts=counts, goals=goals, axes=(*goals, ("memory", "memory", 1)),
        space=(*lines(state, every), *([STREAMED] if streamed else [])),
    )  # fmt: skip


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
            "objective.minimize", "needs prices", value="cost", limit=f"{device.id} has none",
            hint=f'Add fleet.price = {{ "{device.id}" = "1.00 $/h" }}, or minimise time',
        )  # fmt: skip
    if goal in ("time", "cost"):
        return None

    def joules(plans: Plans, times: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        found = energy(state.network, job, plans, state.system, times, device.power.idle, state.group.limit)
        return sum(found.values(), np.zeros(len(plans)))

    return joules


def _first_of_each(found: Found) -> list[int]:
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


def _outcome(state: Setting, dtype: str, found: Found, number: int) -> Outcome:
    rows = found.space.plans(np.asarray([number], dtype=np.int64))
    return simulate(state, decided(rows, 0, dtype, state.scenario.plan))


def _rejected(state: Setting, found: Found) -> list[Mapping[str, Any]]:
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
