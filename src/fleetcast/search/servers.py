"""How many servers fit under a scenario's breaker, with each power policy.

The scenario's traffic is taken as the busiest hour of the servers there are; every further server brings as much of its
own. Weeks are built from it (`scenario.workload.weeks`, synthetic): thresholds are chosen on the first, all figures are
of the second. What a server draws and takes is condensed from the serving world (`sim.power.forecast`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.base.show import show
from fleetcast.cost.clocks import clock_curve
from fleetcast.policy import power
from fleetcast.scenario.fleet.tree import Group
from fleetcast.scenario.plan import Plan, Pool, as_tuple
from fleetcast.scenario.plan import replace as with_choice
from fleetcast.scenario.workload.weeks import Shape, weeks
from fleetcast.search.power import GRID, Held, Row, candidates, choose, hold
from fleetcast.sim.power.forecast import forecast
from fleetcast.sim.power.phases import Phases
from fleetcast.sim.power.row import Breaker
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import Setting, policy_of

LONGEST = 1.75
"""Rows are tried up to this multiple of today's."""
DAYS = 7


@dataclass(frozen=True)
class Room:
    """How many servers fit under the breaker.

    Attributes:
        budget: W.
        servers: today.
        devices: of a server.
        peak: the highest tick of today's row without caps, as a share of the budget.
        chosen: whether thresholds were chosen on the first week; else they are those of the plan.
        held: by policy, the null first.
        notes: what was taken as given.
    """

    budget: float
    servers: int
    devices: int
    peak: float
    chosen: bool
    held: tuple[Held, ...]
    notes: tuple[str, ...]

    def table(self) -> dict[str, Any]:
        """Returns a row for JSON."""
        return {
            "budget": self.budget, "servers": self.servers, "devices": self.devices, "peak": self.peak,
            "chosen": self.chosen, "held": [held.table() for held in self.held], "notes": list(self.notes),
        }  # fmt: skip


def servers_under(state: Setting, progress: Callable[[int, int], None] | None = None) -> Room:
    """Returns how many servers the scenario's breaker carries, by power policy.

    Args:
        state: the scenario, resolved: a budget, one group of full servers, a layout whose replicas fit a server.
            ``plan.power`` names the policies, taken as they stand; left out = all, with thresholds chosen.
        progress: called with (policies settled, policies).

    Raises:
        SpecError: no budget, servers that differ, a replica over several servers, too little or too much traffic.
        Infeasible: the plan does not fit a server.
    """
    group, budget = _row_of(state)
    pool = _pool_of(state, group)
    per = group.node // pool.devices()
    units = group.nodes * per
    rate = state.requests.rate / units
    phases = forecast(state, pool, state.tree.host_power)
    _keeps_up(phases, rate)
    breaker = Breaker(budget=budget)
    most = min(math.ceil(LONGEST * group.nodes), int(budget // (phases.lowest * per)))
    if most < 1:
        need = phases.lowest * per
        raise Infeasible("idle power of one server", need=need, have=budget, unit="W", hint="Raise fleet.budget")
    row = Row(phases, breaker, state.scenario.workload.low_priority, group.nodes, most, per)
    first, second = (
        weeks(state.requests, servers=most * per, rate=rate, days=DAYS, seed=state.scenario.seed, week=w)
        for w in (0, 1)
    )  # fmt: skip
    asked = [policy_of(power, table, "plan.power") for table in as_tuple(state.scenario.plan.power)]
    names = [] if asked else list(GRID)
    asked = [power.Uncapped(), *(p for p in asked if not isinstance(p, power.Uncapped))] if asked else []
    steps = sum(len(candidates(kind)) for kind in names) + len(asked or names)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, steps)

    before = row.free(first) if names else None
    starts: list[tuple[Any, int]] = [(policy, group.nodes) for policy in asked]
    for kind in names:
        assert before is not None
        policy, found = choose(row, kind, [first], before, progress=step)
        starts.append((policy, found or group.nodes))
    after, held = row.free(second), []
    for policy, start in starts:
        held.append(hold(row, policy, second, after, start))
        step()
    today = Row(phases, breaker, row.low, group.nodes, min(group.nodes, most), per).free(second)
    return Room(
        budget, group.nodes, group.node, float(today.power.max()) / budget, bool(names), tuple(held),
        tuple(_notes(state, group, breaker)),
    )  # fmt: skip


def _row_of(state: Setting) -> tuple[Group, float]:
    tree = state.tree
    if tree.budget is None:
        raise SpecError(
            "fleet.budget", "is missing", limit="what the breaker above all servers allows",
            hint='Add e.g. fleet.budget = "200 kW"',
        )  # fmt: skip
    if state.scenario.plan.power is not None and not as_tuple(state.scenario.plan.power):
        raise SpecError("plan.power", "is an empty list", hint="Name policies, or leave it out to compare all")
    if len(tree.groups) > 1 or len(state.scenario.plan.pools) > 1:
        raise SpecError(
            "fleet", "is not one row of equal servers", value=", ".join(g.name for g in tree.groups),
            limit="one group and one pool", hint="Ask for each row by itself",
        )  # fmt: skip
    group = tree.groups[0]
    if group.outages is not None:
        raise SpecError(
            "fleet.failures", "is not read here", value=group.name, limit="servers that stay up",
            hint="Leave it out: a breaker must hold when all servers run",
        )  # fmt: skip
    if group.count % group.node:
        raise SpecError(
            "fleet.devices", "leaves the last server part empty", value=group.count,
            limit=f"a multiple of {group.node}, the devices of a server",
        )  # fmt: skip
    idle = group.count * group.device.power.idle + group.nodes * tree.host_power
    if tree.budget < idle:
        raise SpecError(
            "fleet.budget", "is below the idle power of the servers under it", value=show(tree.budget, "W"),
            limit=f"from {show(idle, 'W')}, what they draw when nothing runs",
            hint="Raise the budget, or put fewer servers under this breaker",
        )  # fmt: skip
    return group, tree.budget


def _pool_of(state: Setting, group: Group) -> Pool:
    """The plan's pool, complete; as many replicas as fill the servers."""
    asked = state.scenario.plan.pools[0]
    pool = complete(state, Plan(pools=(with_choice(asked, replicas=1),))).pools[0]
    each = pool.devices()
    if group.node % each:
        raise SpecError(
            "plan.tensor_parallel", "leaves replicas that do not fill a server evenly", value=f"{each} devices each",
            limit=f"a divisor of {group.node}, the devices of a server",
        )  # fmt: skip
    filled = group.count // each
    if asked.replicas not in (None, filled):
        raise SpecError(
            "plan.replicas", "does not fill the row", value=asked.replicas, limit=f"{filled} on {group.nodes} servers",
            hint="Leave it out: servers are added with their replicas",
        )  # fmt: skip
    return pool


def _keeps_up(phases: Phases, rate: float) -> None:
    """Refuses a load under which queues would grow through every busy hour."""
    slots = phases.slots
    each = float(phases.prompt_time.mean() + (phases.tokens - 1).mean() * phases.step_time[slots] / slots)
    if rate * each > 1.0:
        raise SpecError(
            "workload", "is more than the servers hold in their busiest hour", value=show(rate, "requests/s"),
            limit=f"{show(1 / each, 'requests/s')} a replica", hint="Lower workload.speed_up, or add devices",
        )  # fmt: skip


def _notes(state: Setting, group: Group, b: Breaker) -> list[str]:
    shape, low = Shape(), state.scenario.workload.low_priority
    _, kind, known = clock_curve(group.device)
    found = [
        f"synthetic: two weeks whose busiest hours are this traffic; nights at {shape.trough:.0%} of it, weekends at "
        f"{shape.weekend:.0%}; each further server brings as much",
        f"power and speed of a server are forecast; its clocks follow a {kind} curve down to "
        f"{known:.0%} of the top, below that with the voltage held (modelled)",
        f"delays: readings {show(b.telemetry, 's')}, caps {show(b.actuation, 's')}, brake {show(b.brake, 's')} "
        f"(recalled from POLCA, ASPLOS 2024, not verified)",
        f"{low:.0%} of the servers serve low-priority load" + ("" if low else ": set workload.low_priority"),
    ]
    if not state.tree.host_power:
        found.append("host_power 0 W: the budget counts devices alone")
    return found
