"""What functions under one plan come to, as an Outcome: cold starts and their parts, pod-seconds, latency, power."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.record import Record
from fleetcast.base.spec import describe
from fleetcast.scenario.fleet.signals import Signal
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.workload.invocations import COMPONENTS
from fleetcast.sim.functions import kernel
from fleetcast.sim.functions.places import Placed, Places
from fleetcast.sim.functions.setting import DEFAULT, Setting
from fleetcast.sim.functions.supply import Supply
from fleetcast.sim.functions.world import Pods, play

Array = NDArray[np.float64]
JOULES_PER_KWH = 3.6e6
MOST_SPANS = 200_000
"""Most pods that an event record has; of more every k-th is kept."""


def simulate(state: Setting, scale: Any = None, route: Any = None, *, record: bool = False) -> Outcome:
    """Returns what happens under a scale and a route policy.

    Args:
        state: the scenario, resolved.
        scale: name, table or object; None = the plan's first, or a fixed keep-alive of 60 s.
        route: likewise; None = the plan's first, or memory without end in every region.
        record: keep the event record.

    Raises:
        SpecError: an unknown policy.
        PolicyError: one that decides what cannot be.
        Infeasible: a function that no node takes.
    """
    plan = state.scenario.plan
    policy = state.scale(scale if scale is not None else plan.scales[0] if plan.scales else DEFAULT)
    chosen = route if route is not None else plan.routes[0] if plan.routes else None
    table: dict[str, Any] = {"scale": describe(policy)}
    if plan.patience:
        table["patience"] = plan.patience
    if chosen is None:
        pods = play(state.trace, policy, patience=plan.patience)
        return outcome(state, pods, table, record=record)
    router = state.route(chosen)
    placed = Places(
        state.trace, policy, state.nodes, router, patience=plan.patience, distance=state.distance,
        carbon=lambda region, now: state.sites[region].grid.at(now), supply=supply(state),
    ).run()  # fmt: skip
    return outcome(state, placed.pods, table | {"route": describe(router)}, placed, record=record)


def supply(state: Setting) -> Supply | None:
    """Returns what nodes without a grid live on, or None: all have one."""
    if not any(site.sun for site in state.sites):
        return None
    return Supply([state.sites[node.region].sun for node in state.nodes], np.array([n.memory for n in state.nodes]))


def outcome(
    state: Setting, pods: Pods, plan: dict[str, Any], placed: Placed | None = None, *, record: bool = False
) -> Outcome:  # fmt: skip
    """Returns the outcome of a run.

    Args:
        state: the scenario, resolved.
        pods: what became of requests and pods.
        plan: the table of the plan.
        placed: the same with nodes, where the plan has a route.
        record: keep the event record.
    """
    trace, n = state.trace, len(state.trace)
    where = trace.region[pods.function] if placed is None else state.nodes_region[placed.node]
    joules, dollars, grams = charge(state, pods, where)
    latency, utility = pods.latency, pods.utility
    starting, running, idle = float(pods.starting.sum()), float(pods.running.sum()), float(pods.idle.sum())
    served = np.isfinite(utility)
    metrics: dict[str, Any] = {
        "requests": n, "functions": int((np.diff(trace.first) > 0).sum()), "devices": state.tree.devices,
        "cold_starts": {"count": pods.cold, "share": pods.cold / n if n else 0.0},
        "pods": len(pods.start), "peak_pods": pods.peak(), "pod_seconds": float(pods.seconds.sum()),
        "latency": _spread(latency), "wait": _spread(pods.wait),
        "delayed": int((pods.state == kernel.DELAYED).sum()),
        "utility": {
            "p50": float(np.median(utility[served])) if served.any() else 0.0,
            "below_1": float((utility < 1.0).mean()) if len(utility) else 0.0,
        },
        "energy": float(joules.sum()), "power": float(joules.sum()) / trace.span,
        "cost": dollars, "carbon": float(grams.sum()),
    }  # fmt: skip
    if placed is not None:
        metrics |= {"queued": placed.queued, "ended": placed.ended}
    notes = list(state.notes)
    if dollars != dollars:
        lacking = [site.group.device.id for site in state.sites if site.group.price is None]
        notes.append(f"{', '.join(dict.fromkeys(lacking))} has no rental price: cost is unknown; set fleet.price")
    return Outcome(
        source="simulated", metrics=metrics, intervals={}, slo={"met": True, "checks": []}, plan=plan,
        breakdown={
            "cold": pods.components(), "pods": {"starting": starting, "running": running, "idle": idle},
        },
        resources=tuple(_region(state, pods, where, r, joules, grams) for r in range(len(state.sites))),
        notes=tuple(notes), provenance={"seed": state.scenario.seed},
        record=_record(state, pods, where) if record else None,
    )  # fmt: skip


def _spread(values: Array) -> dict[str, float]:
    if not len(values):
        return {"mean": 0.0, "p50": 0.0, "p99": 0.0}
    half, most = np.percentile(values, (50, 99))
    return {"mean": float(values.mean()), "p50": float(half), "p99": float(most)}


def charge(state: Setting, pods: Pods, where: NDArray[Any]) -> tuple[Array, float, Array]:
    """Returns J and g of each pod, and $ of all (nan where a price is unknown).

    A pod holds a share of its node's memory. It is charged that share of the node's idle power and price as long as it
    lives, and of the power between idle and full while it runs; energy is spread evenly over its life.

    Args:
        state: the scenario, resolved.
        pods: of a run.
        where: i[p], the region that each pod is in.
    """
    trace, groups = state.trace, [site.group for site in state.sites]

    def of(values: list[float]) -> Array:
        column: Array = np.array(values, np.float64)[where]
        return column

    share = trace.memory[pods.function] / of([group.device.memory for group in groups])
    life = pods.death - pods.start
    idle = of([group.device.power.idle for group in groups])
    host = state.tree.host_power
    ran = np.divide(pods.running, pods.seconds, out=np.zeros(len(trace.names)), where=pods.seconds > 0)
    busy = life * ran[pods.function]
    joules: Array = state.tree.pue * share * ((idle + host) * life + (of([g.limit for g in groups]) - idle) * busy)
    prices = [float("nan") if group.price is None else group.price for group in groups]
    dollars = float((of(prices) * share * life).sum()) / 3600.0
    grams = np.zeros(len(joules))
    for r, site in enumerate(state.sites):
        mine = where == r
        grams[mine] = joules[mine] / JOULES_PER_KWH * _means(site.grid, pods.start[mine], pods.death[mine])
    return joules, dollars, grams


def _means(signal: Signal, start: Array, end: Array) -> Array:
    """f8, mean of a signal over spans, all at once; see `Signal.mean`."""
    if len(signal.values) == 1:
        return np.full(len(start), signal.values[0])
    times, sums = np.array([*signal.times, signal.span]), np.array(signal.sums)
    values = np.array(signal.values)

    def integral(at: Array) -> Array:
        turns = np.floor(at / signal.span)
        found: Array = turns * sums[-1] + np.interp(at - turns * signal.span, times, sums)
        return found

    lasts = end - start
    now = values[np.searchsorted(times, start % signal.span, side="right").clip(1, len(values)) - 1]
    return np.where(lasts > 0, (integral(end) - integral(start)) / np.where(lasts > 0, lasts, 1.0), now)


def _region(
    state: Setting, pods: Pods, where: NDArray[Any], r: int, joules: Array, grams: Array
) -> dict[str, Any]:  # fmt: skip
    mine, site = where == r, state.sites[r]
    home = np.repeat(state.trace.region == r, np.diff(state.trace.first))
    cold = (pods.state == kernel.COLD) | (pods.state == kernel.STARTING)
    sums = np.bincount(pods.row[mine], minlength=len(state.trace.starts)) @ state.trace.starts if mine.any() else None
    parts = dict.fromkeys(COMPONENTS, 0.0) if sums is None else dict(zip(COMPONENTS, sums.tolist(), strict=True))
    return {
        "name": site.name, "device": site.group.device.id, "nodes": site.group.count,
        "requests": int(home.sum()), "cold_starts": int(cold[home].sum()), "pods": int(mine.sum()),
        "pod_seconds": float((pods.death - pods.start)[mine].sum()), "energy": float(joules[mine].sum()),
        "carbon": float(grams[mine].sum()), "parts": parts,
        "dominant": max(parts, key=lambda name: parts[name]) if mine.any() else "",
    }  # fmt: skip


def _record(state: Setting, pods: Pods, where: NDArray[Any]) -> Record:
    """A row for each pod: its life, on its region."""
    kept = np.arange(0, len(pods.start), max(1, -(-len(pods.start) // MOST_SPANS)))
    order = kept[np.argsort(pods.start[kept], kind="stable")]
    ones = np.ones(len(order), np.int64)
    return Record(
        time=pods.start[order], duration=(pods.death - pods.start)[order], resource=where[order].astype(np.int32),
        what=state.trace.trigger[pods.function[order]].astype(np.int32), count=ones, items=ones,
        level=np.zeros(len(order)), resources=tuple(site.name for site in state.sites), whats=state.trace.triggers,
    )  # fmt: skip
