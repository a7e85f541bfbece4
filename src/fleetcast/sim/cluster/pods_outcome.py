"""What pods on nodes come to under one policy, as an Outcome: placed by tier, moves, evictions, use, fragmentation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import build, describe
from fleetcast.policy.place import pods as place
from fleetcast.policy.place.pods import GPU, View
from fleetcast.policy.place.pods.fgd import count, fragmentation
from fleetcast.policy.place.pods.ledger import Ledger
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.kinds.pods import PodsScenario
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.workload.pods import Nodes, Pods
from fleetcast.sim.cluster.pods import Played, as_nodes, as_pods, play

DEFAULT = "kube_default"
"""The policy where a plan names none."""


@dataclass(frozen=True)
class Setting:
    """A scenario of pods, resolved.

    Attributes:
        scenario: as read.
        nodes: of the cluster.
        pods: in order of arrival.
        notes: what was taken as given, in sentences.
    """

    scenario: PodsScenario
    nodes: Nodes
    pods: Pods
    notes: tuple[str, ...]

    def policy(self, choice: Any) -> place.Policy:
        """Returns a place policy by name, table or object.

        Raises:
            SpecError: unknown policy or parameter.
        """
        made: place.Policy = build(place, choice, "plan.place", methods=("place",))
        if isinstance(made, place.Fgd) and not made.typical:
            made.typical = as_pods(self.pods)
        return made


def setting(scenario: PodsScenario) -> Setting:
    """Returns a scenario with its files read.

    Raises:
        SpecError: a file or the fleet says what cannot be.
    """
    nodes, pods = scenario.draw()
    notes = []
    if nodes is None:
        tree = resolve(scenario.fleet, Path(scenario.folder))
        rows = [(g, i) for g in tree.groups for i in range(g.nodes)]
        if not rows:
            raise SpecError("fleet", "has no devices", limit="nodes for pods", hint='Add workload.nodes = "nodes.csv"')
        nodes = Nodes(
            tuple(f"{g.name}-{i}" for g, i in rows), np.full(len(rows), 1e6), np.full(len(rows), 1e15),
            np.array([min(g.node, g.count - i * g.node) for g, i in rows], dtype=np.int32),
            tuple(g.device.id for g, _ in rows), source="the fleet",
        )  # fmt: skip
        notes.append("nodes are the fleet's; nobody says what cpu and memory they have, so these do not bind")
    for what, source in (("pods", pods.source), ("nodes", nodes.source)):
        if source == "synthetic":
            notes.append(f"{what} are synthetic, drawn with seed {getattr(scenario.workload.pods, 'seed', 0)}")
    if scenario.workload.together:
        notes.append("all pods are there from the start")
    if scenario.workload.stay:
        notes.append("no pod ever leaves")
    return Setting(scenario, nodes, pods, tuple(notes))


def simulate(state: Setting, choice: Any = None, *, record: bool = False) -> Outcome:
    """Returns what happens under a place policy.

    Args:
        state: the scenario, resolved.
        choice: name, table or object; None = the plan's first, or "kube_default".
        record: keep the event record.

    Raises:
        SpecError: an unknown policy.
        PolicyError: one that decides what cannot be.
    """
    named = state.scenario.plan.places
    policy = state.policy(choice if choice is not None else named[0] if named else DEFAULT)
    said = state.scenario.workload
    played = play(state.nodes, state.pods, policy, stay=said.stay, together=said.together)
    table = describe(policy)
    table.pop("typical", None)
    return outcome(state, played, {"place": table}, record=record)


def outcome(state: Setting, played: Played, plan: dict[str, Any], *, record: bool = False) -> Outcome:
    """Returns the outcome of a run.

    Args:
        state: the scenario, resolved.
        played: what happened.
        plan: its table.
        record: keep the event record.
    """
    pods = played.pods
    ran = np.isfinite(played.start)
    waits = (played.start - np.array([0.0 if state.scenario.workload.together else p.arrival for p in pods]))[ran]
    out = set(played.waiting)
    tiers = sorted({p.priority for p in pods}, reverse=True)
    by_tier = {
        str(t): {
            "pods": sum(p.priority == t for p in pods),
            "placed": sum(p.priority == t and i not in out and bool(ran[i]) for i, p in enumerate(pods)),
        }
        for t in tiers
    }
    names = {"cpu": "cpu", "memory": "memory", GPU: "devices"}
    held = sum(tier["placed"] for tier in by_tier.values())
    asked = float(state.pods.devices.sum() + state.pods.share.sum())
    metrics: dict[str, Any] = {
        "pods": len(pods), "placed": held, "unplaced": len(pods) - held, "moves": played.moves,
        "evicted": played.evicted,
        "lost": played.lost, "workers": len(played.nodes), "decisions": played.decisions,
        "by_priority": by_tier,
        "utilisation": {names.get(k, k): v for k, v in played.used.items()},
        "at_end": {names.get(k, k): v for k, v in played.ended.items()},
        "fragmentation": fragments(played.ledger, pods),
        "waits": {
            "mean": float(waits.mean()) if len(waits) else 0.0,
            "p50": float(np.percentile(waits, 50)) if len(waits) else 0.0,
            "p99": float(np.percentile(waits, 99)) if len(waits) else 0.0,
        },
        "allocated": 0.0, "makespan": played.end,
    }  # fmt: skip
    metrics["allocated"] = played.ended.get(GPU, played.ended.get("cpu", 0.0))
    reasons = {pods[i].name: played.reasons[pods[i].name] for i in sorted(out)}
    metrics["reasons"] = dict(list(reasons.items())[:100])
    notes = [*state.notes]
    if played.proof:
        notes.append(f"proven: {played.proof}")
    if asked and GPU not in played.ended:
        notes.append("pods ask for devices and no node has any")
    rows = tuple(
        {"name": node.name, "pods": len(on), "free": {
            names.get(r, r): float(played.ledger.free[i, c]) / (1000 if r == "cpu" else 1)
            for c, r in enumerate(played.ledger.resources)}}
        for i, (node, on) in enumerate(zip(played.nodes, played.ledger.by_node(), strict=True))
    )  # fmt: skip
    return Outcome(
        source="simulated", metrics=metrics, intervals={}, slo={"met": True, "checks": []}, plan=plan, resources=rows,
        notes=tuple(notes), provenance={"seed": state.scenario.seed}, record=played.record() if record else None,
    )  # fmt: skip


def fragments(ledger: Ledger, pods: tuple[place.Pod, ...]) -> float:
    """Returns how many devices lie in fragments at the end, by the measure of `policy.place.pods.fgd`."""
    if ledger.gpu < 0 or not pods:
        return 0.0
    kinds = count(ledger, pods, 1.0)
    cpu = ledger.free[:, ledger.column["cpu"]]
    return float(fragmentation(cpu, ledger.devices, kinds.allowed, kinds).sum())


def empty(state: Setting) -> tuple[Ledger, tuple[place.Pod, ...]]:
    """Returns the cluster with nothing on it, and the pods: what `check` looks at."""
    nodes = tuple(replace(node) for node in as_nodes(state.nodes))
    return Ledger.of(View(nodes, (), ())), as_pods(state.pods)
