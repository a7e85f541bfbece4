"""What a graph under one policy comes to, as an Outcome: makespan, what none can beat, bytes, energy, money, carbon."""

from __future__ import annotations

from typing import Any

import numpy as np

from fleetcast.base.spec import describe
from fleetcast.cost.graphs.schedule import Schedule
from fleetcast.scenario.fleet.signals import intensity
from fleetcast.scenario.outcome import Outcome
from fleetcast.sim.graph.setting import DEFAULT, Setting
from fleetcast.sim.graph.world import play

JOULES_PER_KWH = 3.6e6


def simulate(state: Setting, order: Any = None, *, record: bool = False) -> Outcome:
    """Returns what happens when a policy orders the graph.

    Args:
        state: the scenario, resolved.
        order: name, table or object; None = the plan's first, or HEFT.
        record: keep the event record.

    Raises:
        SpecError: an unknown policy.
        PolicyError: one that decides what cannot be.
    """
    named = state.scenario.plan.orders
    policy = state.policy(order if order is not None else named[0] if named else DEFAULT)
    return outcome(state, play(state.graph, state.platform, policy), describe(policy), record=record)


def outcome(state: Setting, schedule: Schedule, order: dict[str, Any], *, record: bool = False) -> Outcome:
    """Returns the outcome of a schedule.

    Args:
        state: the scenario, resolved.
        schedule: what ran where and when.
        order: the table of the policy that made it.
        record: keep the event record.
    """
    graph, platform, tree = state.graph, state.platform, state.tree
    makespan, lasts = schedule.makespan, schedule.finish - schedule.start
    busy = np.bincount(schedule.worker, lasts, len(platform))
    idle = float((platform.idle * (makespan - busy)).sum())
    worked = float((platform.busy * busy).sum())
    energy = tree.pue * (idle + worked)
    longest = max(makespan, 1e-9)
    dollars = tree.price
    sent = schedule.messages
    metrics: dict[str, Any] = {
        "makespan": makespan, "lower_bound": state.lower_bound, "critical_path": state.critical_path,
        # sums in another order may end below the bound by their rounding
        "gap": max(makespan / state.lower_bound - 1.0, 0.0) if state.lower_bound > 0 else 0.0,
        "energy": energy, "power": energy / longest, "moved_bytes": schedule.moved_bytes(graph),
        "messages": len(sent), "tasks": len(graph), "edges": graph.edges, "devices": tree.devices,
        "workers": len(platform), "busy": float(busy.sum()) / (longest * len(platform)),
        "cost": float("nan") if dollars is None else dollars * makespan / 3600.0,
        "carbon": energy / JOULES_PER_KWH * intensity(state.grid, 0.0, longest),
    }  # fmt: skip
    kernels = np.bincount(graph.kernel, lasts, len(graph.kernels))
    into = np.bincount(sent.target, sent.bytes(graph), len(platform))
    count = np.bincount(schedule.worker, minlength=len(platform))
    rows = [
        {
            "name": name,
            "device": platform.kinds[kind],
            "tasks": int(n),
            "busy": float(b) / longest,
            "received": float(i),
        }
        for name, kind, n, b, i in zip(platform.workers, platform.kind.tolist(), count, busy, into, strict=True)
    ]
    plan: dict[str, Any] = {"order": order}
    if state.scenario.plan.workers:
        plan["workers"] = dict(state.scenario.plan.workers)
    notes = [*state.notes]
    if dollars is None:
        unpriced = [g.device.id for g in tree.groups if g.price is None]
        notes.append(f"{', '.join(dict.fromkeys(unpriced))} has no rental price: cost is unknown; set fleet.price")
    return Outcome(
        source="simulated", metrics=metrics, intervals={}, slo={"met": True, "checks": []}, plan=plan,
        breakdown={
            "time": dict(zip(graph.kernels, kernels.tolist(), strict=True)),
            "energy": {"busy": worked, "idle": idle, "facility": energy - idle - worked},
        },
        resources=tuple(rows), notes=tuple(notes), provenance={"seed": state.scenario.seed},
        record=schedule.record(graph, platform) if record else None,
    )  # fmt: skip
