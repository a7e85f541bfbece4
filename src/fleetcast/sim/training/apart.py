"""Experts that train apart: each island's iteration is that of a fleet of its own, with its share of the batch.

The islands are the groups of the fleet, or equal parts of its only group. All of them are alike in size; the slowest
sets the pace of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.show import show
from fleetcast.cost.training import system as systems
from fleetcast.cost.training.islands import ROUTER, break_even
from fleetcast.scenario.fleet.links import Link
from fleetcast.scenario.fleet.links import slowest as slowest_of
from fleetcast.scenario.fleet.tree import Group
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.training_plan import TrainingPlan, read_training_plan
from fleetcast.sim.training.completing import columns
from fleetcast.sim.training.setting import Setting

Simulate = Callable[[Setting, TrainingPlan], Outcome]
_SUMS = ("throughput", "flops", "tokens", "devices", "energy", "power", "cost", "carbon")


def between(state: Setting, groups: Sequence[Group]) -> Link:
    """Returns the link between islands: what joins groups, or the nodes of the only one."""
    if len(groups) == 1:
        return groups[0].network
    return slowest_of(state.tree.link_between(a, b) for a in groups for b in groups if a.name != b.name)


def islands(state: Setting, plan: TrainingPlan, simulate: Simulate) -> Outcome:
    """Returns what an iteration of all islands takes, and the bandwidth between them below which they pay.

    Args:
        state: the scenario, resolved.
        plan: with ``islands``; its degrees are those of one island.
        simulate: of one island.

    Raises:
        SpecError: islands that do not divide the devices or the batch, or are not the fleet's groups.
    """
    count = plan.islands
    assert isinstance(count, int)
    groups = state.tree.groups
    settings, share = settings_of(state, plan, count)
    told = [simulate(one, one.scenario.plan) for one in settings]
    slowest = max(told, key=lambda outcome: float(outcome.metrics["iteration_time"]))
    metrics = dict(slowest.metrics)
    for name in _SUMS:
        metrics[name] = sum(float(outcome.metrics[name]) for outcome in told) * share
    metrics["devices"] = state.group.count
    full = next((one for one in told if not one.metrics["fits"]), slowest)
    metrics["fits"] = bool(full.metrics["fits"])
    alone = float(metrics["iteration_time"])
    made, job = read_training_plan(dict(slowest.plan)), state.job(str(slowest.plan["dtype"]))
    mine = settings[told.index(slowest)]
    at, each = mine.group, mine.group.count
    metrics["break_even"] = break_even(
        state.network, replace(job, batch=mine.workload.batch), columns(made), state.system_of(at), count,
        systems.of(replace(at, network=between(state, groups))).outer, alone,
    )  # fmt: skip
    limit = show(metrics["break_even"], "B/s")
    note = (
        f"{count} islands of {each} devices send nothing to each other; an expert on each, joined by a router that "
        f"takes {ROUTER:.0%} of the work (assumed), pays below {limit} between islands: above it, one model on all of "
        "them is as quick"
        if isfinite(metrics["break_even"])
        else f"{count} islands of {each} devices send nothing to each other; one model on all of them would be slower "
        "at every bandwidth"
    )
    return replace(
        slowest, metrics=metrics, plan=dict(slowest.plan) | {"islands": count},
        intervals={k: v for k, v in slowest.intervals.items() if k not in _SUMS},
        notes=(*state.tree.echo(), *(n for n in slowest.notes if n not in state.tree.notes), note),
        slo=full.slo, provenance=dict(slowest.provenance) | {"over": full.provenance["over"]},
    )  # fmt: skip


def settings_of(state: Setting, plan: TrainingPlan, count: int) -> tuple[list[Setting], int]:
    """Returns the islands that differ, each resolved with its share of the batch, and how many are like each of them.

    Raises:
        SpecError: islands that do not divide the devices or the batch, or are not the fleet's groups.
    """
    groups = state.tree.groups
    if len(groups) > 1 and len(groups) != count:
        raise SpecError(
            "plan.islands", "is not the number of the fleet's groups", value=count, limit=f"{len(groups)} groups",
            hint=f"Write islands = {len(groups)}, or one group",
        )  # fmt: skip
    for what, where, number in (
        ("devices", "fleet.devices", state.group.count),
        ("sequences of a batch", "workload.batch", state.workload.batch),
    ):  # fmt: skip
        if number % count:
            raise SpecError(
                "plan.islands", f"does not divide the {number:,} {what}", value=count, limit=f"a divisor of {where}",
                hint="Change it, or the number it divides",
            )  # fmt: skip
    own = msgspec.structs.replace(plan, islands=None)
    workload = msgspec.structs.replace(state.workload, batch=state.workload.batch // count)
    scenario = msgspec.structs.replace(state.scenario, workload=workload, plan=own)
    each = state.group.count // count
    places = groups if len(groups) > 1 else (replace(state.group, count=each),)
    if any(group.count != each for group in places):
        raise SpecError(
            "plan.islands", "makes islands of unlike sizes", value=[group.count for group in places],
            limit="equal counts of devices", hint="Change fleet.groups",
        )  # fmt: skip
    told = [
        replace(
            state, scenario=scenario, group=group, tree=replace(state.tree, groups=(group,)), notes=(),
            system=state.system_of(group),
        )
        for group in places
    ]  # fmt: skip
    return told, count // len(told)
