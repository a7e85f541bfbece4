"""Services and functions beside the jobs of a scenario: their own scenarios played, and condensed to tenants."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import build
from fleetcast.policy import power as policies
from fleetcast.scenario.fleet.catalog import curves
from fleetcast.scenario.load import FunctionsScenario, ServingScenario, load
from fleetcast.sim.cluster.shared import Account, Row
from fleetcast.sim.cluster.tenants import Tenant, functions, service

if TYPE_CHECKING:
    from fleetcast.scenario.fleet.tree import Group
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.scenario.workload.job_list import Neighbour
    from fleetcast.sim.cluster.setting import Setting

JOULES_PER_KWH = 3.6e6
LONGER = 4.0
"""Times the jobs' own span for which tenants are told ahead: waiting jobs last longer."""


def shares(state: Setting) -> bool:
    """Returns whether jobs share the fleet, or a breaker, with somebody."""
    return bool(state.scenario.workload.neighbours) or (
        state.tree.budget is not None and bool(state.scenario.plan.powers)
    )  # fmt: skip


def power(choice: Any) -> policies.Policy:
    """Returns a power policy of a name, a table or an object.

    Raises:
        SpecError: unknown, or a class that sets no clocks.
    """
    found: policies.Policy = build(policies, choice, "plan.power", methods=("cap",))
    return found


def row(state: Setting, policy: policies.Policy) -> Row:
    """Returns the power of the fleet's devices and its breaker."""
    kinds = state.nodes.kinds
    groups = [next(g for g in state.tree.groups if g.device.id == kind.name) for kind in kinds]
    idle = tuple(g.device.power.idle for g in groups)
    sweeps = (curves().get(g.device.power.curve) if g.device.power.curve else None for g in groups)
    return Row(
        idle, tuple(watts + kind.power for watts, kind in zip(idle, kinds, strict=True)), tuple(sweeps),
        budget=inf if state.tree.budget is None else state.tree.budget, policy=policy, tick=state.scenario.plan.tick,
    )  # fmt: skip


def tenants(state: Setting) -> tuple[Tenant, ...]:
    """Returns who lives on the fleet beside the jobs.

    Raises:
        SpecError: no such scenario, or one of another kind or on another device than the group's.
        Infeasible: it does not fit its own fleet.
    """
    jobs = state.jobs
    span = float(jobs.arrival[-1]) + LONGER * max(float(jobs.seconds.max(initial=0.0)), float(jobs.arrival[-1]))
    return tuple(
        _tenant(state, said, f"workload.neighbours[{i}]", span)
        for i, said in enumerate(state.scenario.workload.neighbours)
    )


def _tenant(state: Setting, said: Neighbour, path: str, span: float) -> Tenant:
    group = state.tree.group(said.on, f"{path}.on")
    kind = next(i for i, kind in enumerate(state.nodes.kinds) if kind.name == group.device.id)
    file = Path(state.scenario.folder) / said.scenario
    found = load(file if file.suffix else file.with_suffix(".toml"))
    name = Path(said.scenario).stem
    if isinstance(found, ServingScenario):
        return _service(found, said, name, kind, group, path, span)
    if isinstance(found, FunctionsScenario):
        from fleetcast.sim.functions.setting import DEFAULT, setting
        from fleetcast.sim.functions.world import play

        own, plan = setting(found), found.plan
        pods = play(own.trace, own.scale(plan.scales[0] if plan.scales else DEFAULT), patience=plan.patience)
        idle = group.device.power.idle
        return functions(name, kind, pods, group.device.memory, span=span, idle=idle, busy=group.limit)
    raise SpecError(
        f"{path}.scenario", f"is {found.about}, which cannot live beside jobs", value=said.scenario,
        limit='a scenario of kind "serving" or "functions"', hint="Give jobs of their own to workload.trace",
    )  # fmt: skip


def _service(
    found: ServingScenario, said: Neighbour, name: str, kind: int, group: Group, path: str, span: float
) -> Tenant:  # fmt: skip
    from fleetcast.sim.serving.completing import complete
    from fleetcast.sim.serving.setting import setting
    from fleetcast.sim.serving.world import simulate

    state = setting(found)
    plan = complete(state, found.plan)
    if state.requests.concurrency or state.requests.duration <= 0:
        raise SpecError(
            f"{path}.scenario", "has no arrivals by the clock, which say how many replicas it needs",
            value=said.scenario, limit="arrivals of a trace, or at a rate", hint="Give it workload.arrivals",
        )  # fmt: skip
    # all at once: what a replica does when it is never without work
    burst = simulate(replace(state, requests=replace(state.requests, arrival=0.0 * state.requests.arrival)), plan)
    devices = {g.device.id for g in state.tree.groups}
    if devices != {group.device.id}:
        raise SpecError(
            f"{path}.on", "has other devices than the scenario that is to live there", value=group.device.id,
            limit=f"{said.scenario} runs on {', '.join(sorted(devices))}", hint="Name another group or scenario",
        )  # fmt: skip
    count, replicas = len(state.requests), len(burst.resources)
    return service(
        name, kind, seconds=float(burst.metrics["makespan"]) * replicas / count,
        rate=count / state.requests.duration, per_replica=int(burst.resources[0]["devices"]),
        day=said.day, span=span, idle=group.device.power.idle, busy=group.limit, target=said.target,
    )  # fmt: skip


def told(state: Setting, outcome: Outcome, account: Account) -> Outcome:
    """Returns the outcome with what all drew together, and what tenants and the breaker did to the jobs."""
    tree, hosts = state.tree, state.tree.host_power * len(state.nodes.size)
    times, watts = np.array(account.times), np.array(account.watts)
    end = float(outcome.metrics["makespan"]) + float(state.jobs.arrival[0])
    spans = np.diff(np.append(times, end)).clip(0)
    energy = tree.pue * (account.energy + hosts * float(spans.sum()))
    grams = sum(
        (w + hosts) * s * _intensity(state, float(t), float(t + s)) for t, w, s in zip(times, watts, spans, strict=True)
    ) * tree.pue / JOULES_PER_KWH  # fmt: skip
    span = float(outcome.metrics["makespan"])
    peak = account.peak(end)
    metrics = dict(outcome.metrics) | {
        "energy": energy, "power": energy / span, "carbon": float(grams), "peak": peak, "brakes": account.brakes,
        "capped": {"low": account.slow / span, "high": account.high / span}, "evicted": account.evicted,
        "short": sum(account.short.values()),
    }  # fmt: skip
    if tree.budget is not None:
        metrics["peak_share"] = peak / tree.budget
    notes = []
    for tenant in state.tenants:
        least, most = int(tenant.devices.min()), int(tenant.devices.max())
        notes.append(f"{tenant.name} takes {least} to {most} x {state.nodes.kinds[tenant.kind].name} before jobs do")
    return replace(
        outcome, metrics=metrics, notes=(*outcome.notes, *notes),
        breakdown={**outcome.breakdown, "energy": {**account.joules, "hosts": hosts * float(spans.sum())}},
    )  # fmt: skip


def _intensity(state: Setting, begin: float, end: float) -> float:
    """g/kWh over a span, the mean of all devices."""
    kinds = state.nodes.kinds
    means = (grid.mean(begin, end) * kind.total for grid, kind in zip(state.grids.true, kinds, strict=True))
    return sum(means) / max(sum(kind.total for kind in kinds), 1)
