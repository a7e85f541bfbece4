"""Which improvements of a stream buy most, and where its filter sits best: every choice that is open is simulated.

A plan's upgrades are tried in every set, its filter at every node that can make it. Where a file leaves nothing open,
one improvement a stage is tried instead, each alone: half the data of what sends to a node, half the energy of its
links or operations, a classifier that separates by one deviation more. The pipeline as it is stands in every ranking.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations

import msgspec
import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.cost.streams.scores import Steps
from fleetcast.scenario.kinds.stream import StreamScenario
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.stream_plan import NOWHERE, StreamPlan, Upgrade
from fleetcast.scenario.workload.streams import StreamLink, StreamNode
from fleetcast.search.ranking import Axis, Ranking, undominated, values
from fleetcast.sim.stream.world import Setting, places, setting, simulate

RIVAL: Axis = ("power", "power", 1)
"""What a single goal is traded against."""
OTHER: Axis = ("quality", "f1", -1)
"""And power itself."""


def search(
    scenario: StreamScenario, *, top: int | None = 6, progress: Callable[[int, int], None] | None = None
) -> Ranking:
    """Returns the ranked plans of a stream.

    Args:
        scenario: its plan may leave open which upgrades are made and where the filter sits.
        top: how many plans; None = all.
        progress: told (plans simulated, plans).

    Raises:
        SpecError: anything in the scenario that cannot be.
    """
    if top is not None and top < 1:
        raise SpecError("top", "is out of range", value=top, limit="a whole number from 1")
    goals = scenario.goals()
    axes = goals if len(goals) > 1 else (*goals, RIVAL if goals[0][1] != RIVAL[1] else OTHER)
    choices, space = _choices(scenario)
    found: list[Outcome] = []
    for i, plan in enumerate(choices):
        found.append(simulate(scenario.with_plan(plan)))
        if progress is not None:
            progress(i + 1, len(choices))
    order = sorted(range(len(found)), key=lambda i: (_signed(found[i], goals), len(found[i].plan["use"]), i))
    ranked = [found[i] for i in order]
    keep = undominated([values(outcome, axes) for outcome in ranked])
    counts = dict.fromkeys(("bounded", "cut_short", "deduplicated"), 0)
    counts |= dict.fromkeys(("enumerated", "memory_feasible", "simulated"), len(found))
    shown = ranked if top is None else ranked[:top]
    if top is not None and not any(_as_it_is(outcome) for outcome in shown):
        shown = [*shown, *(outcome for outcome in ranked if _as_it_is(outcome))][: top + 1]
    return Ranking(
        plans=tuple(shown), frontier=tuple(ranked[i] for i in sorted(keep)), misses=(), rejected=(), counts=counts,
        goals=goals, axes=axes, space=space,
    )  # fmt: skip


def _signed(outcome: Outcome, goals: tuple[Axis, ...]) -> tuple[float, ...]:
    return tuple(value if math.isfinite(value) else math.inf for value in values(outcome, goals))


def _as_it_is(outcome: Outcome) -> bool:
    return not outcome.plan["use"] and outcome.plan.get("filter", NOWHERE) == NOWHERE


def _choices(scenario: StreamScenario) -> tuple[list[StreamPlan], tuple[str, ...]]:
    """Returns every plan that the scenario leaves open, and the space in sentences."""
    said = scenario.plan
    names = [upgrade.name for upgrade in said.upgrades]
    sets: list[tuple[str, ...]] = [said.use] if said.use is not None else [()]
    if said.use is None and names:
        sets = [found for size in range(len(names) + 1) for found in combinations(names, size)]
    ats: list[str | None] = [None]
    if scenario.workload.filter is not None:
        found = said.filter if said.filter is not None else (*places(scenario), NOWHERE)
        ats = [found] if isinstance(found, str) else list(found)
    lines = []
    if len(sets) > 1:
        lines.append(f"every set of {len(names)} upgrades")
    if len(ats) > 1:
        lines.append(f"the filter at {', '.join(str(at) for at in ats)}")
    if len(sets) * len(ats) > 1:
        return [StreamPlan(upgrades=said.upgrades, use=use, filter=at) for use in sets for at in ats], tuple(lines)
    base = setting(scenario)
    single = tuple(improvements(base))
    every = (*said.upgrades, *(u for u in single if u.name not in names))
    plans = [StreamPlan(upgrades=every, use=base.plan.use, filter=base.plan.filter)]
    plans += [msgspec.structs.replace(plans[0], use=(*(base.plan.use or ()), u.name)) for u in single]
    return plans, ("one improvement a stage, each alone: half the bytes or joules, or one deviation more of skill",)


def improvements(state: Setting) -> Iterator[Upgrade]:
    """Yields one improvement a stage that would change something, each as an upgrade."""
    flow = state.flow()
    nodes = state.system.nodes
    for i, node in enumerate(nodes):
        senders = [nodes[k] for k in state.system.inputs[i]]
        sensors = [sender for sender in senders if sender.rate is not None]
        if any(sender.size > 0 for sender in sensors):
            halves = tuple(StreamNode(name=s.name, size=s.size / 2) for s in sensors)
            yield Upgrade(name=f"half the data to {node.name}", nodes=halves)
        if any(flow.nodes[k].link_power > 0 for k in state.system.inputs[i]):
            cheaper = tuple(StreamNode(name=s.name, link=StreamLink(energy=s.link.energy / 2)) for s in senders)
            yield Upgrade(name=f"half the energy of links to {node.name}", nodes=cheaper)
    for node, at, chosen in zip(nodes, flow.nodes, state.chosen, strict=True):
        if at.op_power > 0:
            change = StreamNode(name=node.name, op_energy=node.op_energy / 2)
            yield Upgrade(name=f"half the energy of operations at {node.name}", nodes=(change,))
        made_here = state.scenario.workload.filter is not None and state.plan.filter in (node.name, "sensors")
        if node.classifier is not None and node.ratio > 1 and not made_here:
            deviation = _deviation(chosen) if isinstance(chosen, Steps) else 1.0
            boosted = msgspec.structs.replace(node.classifier, boost=node.classifier.boost + deviation)
            yield Upgrade(name=f"more skill at {node.name}", nodes=(StreamNode(name=node.name, classifier=boosted),))


def _deviation(found: Steps) -> float:
    """Returns the standard deviation of dull samples' scores."""
    mass = np.diff(found.dull, prepend=0.0)
    mean = float(mass @ found.values)
    return math.sqrt(max(0.0, float(mass @ (found.values - mean) ** 2)))
