"""A sensor pipeline under a plan: the long run in closed form, and sample by sample where something takes time.

Rates, choices and power come from `cost.streams.flow`. Where a node or a link keeps busy, the event form says how long
samples wait and what share finds no room; those shares go back into the closed form, so that power and F1 are exact
expectations instead of counts of few rare samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.base.show import show
from fleetcast.base.spec import to_builtins
from fleetcast.cost.streams.flow import Flow, choosers, flow, goal_ratio, productivity
from fleetcast.cost.streams.scores import Scores
from fleetcast.scenario.kinds.stream import StreamScenario
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.stream_plan import NOWHERE, StreamPlan
from fleetcast.scenario.workload.pipeline import System, resolve
from fleetcast.scenario.workload.streams import SENSORS, StreamNode
from fleetcast.sim.stream.events import Events, groups, run, timed, waits


@dataclass(frozen=True)
class Setting:
    """A scenario with its plan made: the pipeline as it would be built.

    Attributes:
        scenario: as it was read.
        system: its nodes with every upgrade made.
        plan: with every choice made.
        chosen: by which nodes choose.
    """

    scenario: StreamScenario
    system: System
    plan: StreamPlan
    chosen: tuple[Scores, ...]

    @property
    def interesting(self) -> list[float]:
        """Share of a sensor's samples that is interesting, of each node (others' are not used)."""
        said = self.scenario.workload.interesting
        return [1.0 / ratio if said is None else said for ratio in goal_ratio(self.system)]

    def flow(self, lost: dict[int, float] | None = None) -> Flow:
        """Returns the long run, with shares lost at nodes."""
        return flow(self.system, interesting=self.scenario.workload.interesting, lost=lost, chosen=self.chosen)

    def power(self, found: Flow) -> float:
        """Returns W of a flow with the facility's share, by the technology of the scenario's year."""
        return (found.op_power + found.link_power) * self.scenario.fleet.pue / self.scenario.workload.saved


def places(scenario: StreamScenario) -> list[str]:
    """Returns where the workload's filter can be made, sensors first; the storage cannot.

    Pieces of a sample cannot be chosen before they are assembled. Several sensors are one place, "sensors".
    """
    system = resolve(scenario.workload, Path(scenario.folder))
    names = {node.name: i for i, node in enumerate(system.nodes)}
    found = []
    for i, node in enumerate(system.nodes):
        k, whole = i, True
        while system.nodes[k].to:
            k = names[system.nodes[k].to]
            whole &= len(system.inputs[k]) == 1 or system.nodes[k].merge == "interleave"
        if whole and node.ratio == 1 and node.to:
            found.append(node.name)
    sensors = [node.name for node in system.nodes if node.rate is not None]
    if len(sensors) > 1:
        rest = [name for name in found if name not in sensors]
        found = [SENSORS, *rest] if len(rest) + len(sensors) == len(found) else rest
    return found


def setting(scenario: StreamScenario) -> Setting:
    """Returns the scenario with its plan made; what the plan leaves open has its default.

    Raises:
        SpecError: a choice that is a list, or anything that cannot be.
    """
    said = scenario.plan
    if isinstance(said.filter, tuple) and len(said.filter) > 1:
        raise SpecError("plan.filter", "is a list, and one pipeline is simulated", value=list(said.filter),
                        limit="one node", hint="Choose one, or search them with plan")  # fmt: skip
    at = said.filter if not isinstance(said.filter, tuple) else said.filter[0]
    if at is None and scenario.workload.filter is not None:
        at = next(iter(places(scenario)), NOWHERE)
    made = StreamPlan(upgrades=said.upgrades, use=said.use or (), filter=at)
    changes: list[tuple[str, StreamNode]] = []
    for i, upgrade in enumerate(said.upgrades):
        if upgrade.name in (said.use or ()):
            changes += [(f"plan.upgrades[{i}].nodes[{k}]", node) for k, node in enumerate(upgrade.nodes)]
    if at is not None and scenario.workload.filter is None:
        raise SpecError("plan.filter", "places a filter that there is not", value=at, hint="Add [workload.filter]")
    system = resolve(scenario.workload, Path(scenario.folder), changes=changes, at=None if at == NOWHERE else at)
    return Setting(scenario, system, made, choosers(system))


def simulate(scenario: StreamScenario, *, record: bool = False, state: Setting | None = None) -> Outcome:
    """Returns what a stream draws, keeps and takes.

    Args:
        scenario: the pipeline with its plan; what is left open has its default.
        record: keep the spans of the first samples.
        state: the scenario with its plan made, where that was done.

    Raises:
        SpecError: anything in the scenario that cannot be.
    """
    state = state or setting(scenario)
    workload, system = scenario.workload, state.system
    found = state.flow()
    seen: Events | None = None
    notes = list(system.notes)
    if timed(system, found):
        seen = run(
            system, found, samples=workload.samples, seed=scenario.seed, poisson=workload.arrivals == "poisson",
            interesting=state.interesting, record=record,
        )  # fmt: skip
        found, told = _with_losses(state, found, seen)
        notes += told
    else:
        notes.append("nothing keeps a node or link busy (speed, time, bandwidth): latency is what is stated, no queues")
    power = state.power(found)
    if workload.year is not None:
        since = f"{workload.growth:g} a year since {workload.since:g}"
        notes.append(f"built in {workload.year:g}: energies are divided by {workload.saved:.4g}, {since}")
    if workload.interesting is None:
        notes.append("interesting samples: one in the product of the ratios on their way")
    notes += _budget(scenario, power)
    return Outcome(
        source="simulated", metrics=_metrics(found, seen, power), intervals={},
        slo={"met": True, "checks": []}, plan=_plan(state), breakdown=_breakdown(scenario, system, found),
        resources=tuple(_rows(system, found, seen)), notes=tuple(notes), provenance={"seed": scenario.seed},
        record=seen.record if seen is not None else None,
    )  # fmt: skip


def _plan(state: Setting) -> dict[str, Any]:
    use = state.plan.use or ()
    table = {"use": list(use)} | ({"filter": state.plan.filter} if state.plan.filter is not None else {})
    upgrades = [to_builtins(upgrade) for upgrade in state.plan.upgrades if upgrade.name in use]
    return table | ({"upgrades": upgrades} if upgrades else {})


def _with_losses(state: Setting, found: Flow, seen: Events) -> tuple[Flow, list[str]]:
    """Returns the long run with the losses that the event form saw, or slowed down where senders wait."""
    notes = []
    if waits(state.system):
        rate = state.system.nodes[0].rate
        assert rate is not None
        slowed = seen.made[0] / rate if math.isfinite(seen.made[0]) else 1.0
        if slowed < 0.999:
            notes.append(f"the sensor waits: it makes {seen.made[0]:,.6g} of {rate:,.6g} samples a second")
            return _scaled(found, slowed), notes
        return found, notes
    lost = {i: share for i, share in enumerate(seen.lost) if share > 0}
    for i, share in lost.items():
        notes.append(f"{state.system.nodes[i].name} has no room for {share:.3%} of what comes")
    for node, at in zip(state.system.nodes, found.nodes, strict=True):
        sent_busy = at.out * at.sending
        if (at.busy > 1 and node.buffer is None) or sent_busy > 1:
            what, busy = (node.name, at.busy) if at.busy > 1 else (f"the link of {node.name}", sent_busy)
            notes.append(
                f"{what} cannot follow ({busy:.2f} times what it can do): its queue grows without end, and the latency "
                "is that of the samples simulated"
            )
    return (state.flow(_rejoined(state.system, lost)) if lost else found), notes


def _rejoined(system: System, lost: dict[int, float]) -> dict[int, float]:
    """Returns shares lost, those of pieces moved to where their sample would have been whole."""
    group, found = groups(system), dict[int, float]()
    joins = {i for i, senders in enumerate(system.inputs) if len(senders) > 1 and system.nodes[i].merge == "assemble"}
    names = {node.name: i for i, node in enumerate(system.nodes)}
    for i, share in lost.items():
        k = i
        ahead = []
        while system.nodes[k].to:
            k = names[system.nodes[k].to]
            ahead.append(k)
        target = next((k for k in reversed(ahead) if k in joins and group[k] == group[i]), i)
        found[target] = 1.0 - (1.0 - found.get(target, 0.0)) * (1.0 - share)
    return found


def _scaled(found: Flow, by: float) -> Flow:
    def slow(pair: tuple[float, float]) -> tuple[float, float]:
        return pair[0] * by, pair[1] * by

    nodes = tuple(
        replace(
            at, dull=at.dull * by, interesting=at.interesting * by, rejected=slow(at.rejected), passed=slow(at.passed),
            op_power=at.op_power * by, link_power=at.link_power * by, busy=at.busy * by,
        )
        for at in found.nodes
    )  # fmt: skip
    return replace(found, nodes=nodes, tn=found.tn * by, fn=found.fn * by, fp=found.fp * by, tp=found.tp * by)


def _budget(scenario: StreamScenario, power: float) -> list[str]:
    budget = scenario.fleet.budget
    if budget is None:
        return []
    if power <= budget:
        return [f"within the budget of {show(budget, 'W')}"]
    over = f"{power / budget:.3g} times the budget of {show(budget, 'W')}"
    growth = scenario.workload.growth
    if growth == 0 or budget == 0:
        return [over]
    year = (scenario.workload.year or scenario.workload.since) + math.log(power / budget) / growth
    return [f"{over}; at {growth:g} a year it is met in {year:.0f}"]


def _metrics(found: Flow, seen: Events | None, power: float) -> dict[str, Any]:
    late = seen.latency if seen is not None else np.empty(0)
    sent = found.tn + found.fn + found.fp + found.tp
    return {
        "power": power, "op_power": found.op_power, "link_power": found.link_power,
        "f1": found.f1, "precision": found.precision, "recall": found.recall, "accuracy": found.accuracy,
        "productivity": productivity(found, power),
        "latency": float(late.mean()) if len(late) else found.latency,
        "latency_p50": float(np.median(late)) if len(late) else found.latency,
        "latency_p99": float(np.quantile(late, 0.99)) if len(late) else found.latency,
        "input_rate": sent, "output_rate": found.stored, "output_bytes": found.stored * found.nodes[-1].size,
        "lane_time": math.fsum(at.rate * at.service for at in found.nodes) / sent if sent > 0 else 0.0,
        "dropped": _dropped(found, sent), "busy": max(at.busy for at in found.nodes),
        "tp": found.tp, "fp": found.fp, "fn": found.fn, "tn": found.tn,
    }  # fmt: skip


def _dropped(found: Flow, sent: float) -> float:
    gone = math.fsum(at.lost * at.rate for at in found.nodes)
    return gone / sent if sent > 0 else 0.0


def _breakdown(scenario: StreamScenario, system: System, found: Flow) -> dict[str, dict[str, float]]:
    by = scenario.fleet.pue / scenario.workload.saved
    power: dict[str, float] = {}
    for node, at in zip(system.nodes, found.nodes, strict=True):
        if at.op_power > 0:
            power[node.name] = at.op_power * by
    for node, at in zip(system.nodes, found.nodes, strict=True):
        if at.link_power > 0:
            power[f"{node.name} > {node.to}"] = at.link_power * by
    way = {system.nodes[i].name: found.nodes[i].wait for i in found.way if found.nodes[i].wait > 0}
    return {"power": power, "time": way}


def _rows(system: System, found: Flow, seen: Events | None) -> list[dict[str, Any]]:
    return [
        {
            "name": node.name, "input_rate": at.rate, "output_rate": at.out, "bytes": at.size, "ops": at.ops,
            "service": at.service,
            "op_power": at.op_power, "link_power": at.link_power, "busy": at.busy, "lost": at.lost,
            "rejected": {"dull": at.rejected[0], "interesting": at.rejected[1]},
            "passed": {"dull": at.passed[0], "interesting": at.passed[1]},
            "samples": seen.came[i] if seen is not None else None,
        }
        for i, (node, at) in enumerate(zip(system.nodes, found.nodes, strict=True))
    ]  # fmt: skip
