"""What many jobs under one policy come to, as an Outcome: completion, utilisation, waits, energy, carbon, money."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fleetcast.base.spec import describe
from fleetcast.scenario.outcome import Outcome
from fleetcast.sim.cluster import neighbours, shared
from fleetcast.sim.cluster.fast import play
from fleetcast.sim.cluster.grids import JOULES_PER_KWH, integral

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.sim.cluster.run import Run
    from fleetcast.sim.cluster.setting import Setting

LATE = 1e-3
"""s after its deadline from which a job is late."""


def simulate(
    state: Setting, share: Any = None, place: Any = None, power: Any = None, *, record: bool = False
) -> Outcome:  # fmt: skip
    """Returns what happens when policies share the fleet out and place gangs.

    Args:
        state: the scenario, resolved.
        share: name, table or object; None = the plan's first, or "fifo".
        place: the same; None = the plan's first, or "best_fit".
        power: the same, where the fleet has a budget; None = the plan's first, or "uncapped".
        record: keep the event record.

    Raises:
        SpecError: an unknown policy.
        PolicyError: one that decides what cannot be.
        Infeasible: a job that failures never let end.
    """
    plan = state.scenario.plan
    dealer = state.share(share if share is not None else plan.shares[0] if plan.shares else "fifo")
    placer = state.place(place if place is not None else plan.places[0] if plan.places else "best_fit")
    table: dict[str, Any] = {"share": describe(dealer), "place": describe(placer)}
    if plan.round:
        table["round"] = plan.round
    if not neighbours.shares(state):
        run = play(state.jobs, state.nodes, state.pace, dealer, placer, state.rules)
        return outcome(state, run, table, record=record)
    capper = neighbours.power(power if power is not None else plan.powers[0] if plan.powers else "uncapped")
    table |= {"power": describe(capper), "tick": plan.tick}
    tenants = state.tenants
    run, account = shared.play(
        state.jobs, state.nodes, state.pace, dealer, placer, neighbours.row(state, capper), tenants, state.rules
    )
    return neighbours.told(state, outcome(state, run, table, record=record), account)


def outcome(state: Setting, run: Run, plan: dict[str, Any], *, record: bool = False) -> Outcome:
    """Returns the outcome of a run.

    Args:
        state: the scenario, resolved.
        run: what happened.
        plan: the table of the plan that made it.
        record: keep the event record.
    """
    jobs, tree = state.jobs, state.tree
    done = np.isfinite(run.finish)
    jct = run.finish[done] - jobs.arrival[done]
    begin, end = float(jobs.arrival[0]), float(run.finish[done].max(initial=0.0))
    span = max(end - begin, 1e-9)
    power = _power(state, run, begin, begin + span)
    energy = tree.pue * (power["idle"] + power["busy"] + power["hosts"])
    carbon = _carbon(state, run, begin, begin + span)
    rates_ = [g.count * g.prices.mean(begin, begin + span) for g in tree.groups if g.prices is not None]
    dollars = None if tree.price is None else sum(rates_) * span / 3600.0
    rush = max(float(jobs.arrival[-1]) - begin, 1e-9)
    total = state.nodes.total
    least = _alone(state)
    metrics: dict[str, Any] = {
        "jct": _summary(jct), "makespan": span, "waits": _summary(run.waited[done]),
        "slowdown": {"mean": float((jct / least[done]).mean()), "p99": float(np.percentile(jct / least[done], 99))},
        "utilisation": float(run.held.sum()) / (total * span),
        # what arrives, over what the fleet could do meanwhile: above 1 the queue grows
        "load": float((least * jobs.demand).sum()) / (total * rush),
        "jobs": len(jobs), "placed": int(np.isfinite(run.start).sum()), "finished": int(done.sum()),
        "moves": int(run.moved.sum()), "preempted": int(run.preempted.sum()), "failed": int(run.failed.sum()),
        "failures": run.outages, "held": float(run.held.sum()), "lost": float(run.lost.sum()), "devices": total,
        "decisions": run.decisions, "energy": energy, "power": energy / span, "carbon": sum(carbon.values()),
        "work_carbon": carbon["busy"],
        "cost": float("nan") if dollars is None else dollars,
    }  # fmt: skip
    if jobs.deadline is not None:
        metrics["late"] = int((run.finish[done] > jobs.deadline[done] + LATE).sum())
    notes = [*state.notes]
    if dollars is None:
        unpriced = [g.device.id for g in tree.groups if g.price is None]
        notes.append(f"{', '.join(dict.fromkeys(unpriced))} has no rental price: cost is unknown; set fleet.price")
    rows = []
    for k, kind in enumerate(state.nodes.kinds):
        mine = run.kind == k
        held = float(((run.end - run.begin) * run.devices)[mine].sum())
        rows.append({
            "name": kind.name, "devices": kind.total, "nodes": state.nodes.first[k + 1] - state.nodes.first[k],
            "busy": held / (kind.total * span), "spans": int(mine.sum()),
        })  # fmt: skip
    return Outcome(
        source="simulated", metrics=metrics, intervals={}, slo={"met": True, "checks": []}, plan=plan,
        breakdown={
            "time": {
                "waiting": float(run.waited.sum()), "working": float((run.held - run.lost).sum()),
                "lost": float(run.lost.sum()),
            },
            "energy": power | {"facility": energy - sum(power.values())},
            "carbon": carbon,
        },
        resources=tuple(rows), notes=tuple(notes), provenance={"seed": state.scenario.seed},
        record=run.record(jobs, state.nodes) if record else None,
    )  # fmt: skip


def _summary(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {"mean": 0.0, "p50": 0.0, "p99": 0.0}
    return {
        "mean": float(values.mean()), "p50": float(np.percentile(values, 50)), "p99": float(np.percentile(values, 99)),
    }  # fmt: skip


def _alone(state: Setting) -> NDArray[np.float64]:
    """Seconds of each job alone on the devices that it asks for, where they are quickest."""
    from fleetcast.sim.cluster.fast import rates

    found: NDArray[np.float64] = 1.0 / rates(state.jobs, state.nodes, state.pace).max(axis=1)
    return found


def _power(state: Setting, run: Run, begin: float, end: float) -> dict[str, float]:
    """Joules of devices that idle, what work adds, and servers besides; an idle device draws its idle power."""
    groups, nodes = state.tree.groups, state.nodes
    idle = sum(g.count * g.device.power.idle for g in groups) * (end - begin)
    hosts = state.tree.host_power * len(nodes.size) * (end - begin)
    held = np.bincount(run.kind, (run.end - run.begin) * run.devices, len(nodes.kinds))
    return {"idle": idle, "busy": float(held @ np.array([kind.power for kind in nodes.kinds])), "hosts": hosts}


def _carbon(state: Setting, run: Run, begin: float, end: float) -> dict[str, float]:
    """Grams of devices that idle, of what work adds, and of servers besides, each on its kind's grid."""
    nodes, tree = state.nodes, state.tree
    idle = hosts = 0.0
    for first, last, grid in zip(nodes.first, nodes.first[1:], state.grids.true, strict=False):
        area = float(integral(grid, end) - integral(grid, begin)) / JOULES_PER_KWH
        mine = [tree.groups[i] for i in sorted(set(nodes.near[first:last]))]
        idle += area * sum(g.count * g.device.power.idle for g in mine)
        hosts += area * tree.host_power * (last - first)
    busy = float(state.grids.grams(run, [kind.power for kind in nodes.kinds]).sum())
    return {name: tree.pue * grams for name, grams in (("idle", idle), ("busy", busy), ("hosts", hosts))}
