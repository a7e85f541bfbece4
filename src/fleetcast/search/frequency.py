"""Energy-optimal against latency-optimal plans, with the devices' clock as one more choice.

The clock follows a stated model (`cost.energy`): compute scales with the clock, memory does not; power of compute is
the device's curve of (clock, power) points, or ``a + b f V^2`` where it has none. No second clock was measured for the
serving curves here, so every result is labelled ``modelled``, and `sensitivity` repeats it under every known curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from fleetcast.scenario.fleet.catalog import curves
from fleetcast.scenario.fleet.devices import Device
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.plan import Plan
from fleetcast.scenario.plan import replace as with_choice
from fleetcast.search.parallelism import search
from fleetcast.search.ranking import Axis
from fleetcast.sim.serving.setting import Setting

CLOCKS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of the top clock that are searched."""
KEEP_UP = 1.05
"""A plan keeps up with the traffic when it ends at most this much later than the fastest: else it saves by queueing."""

ENERGY: Axis = ("energy", "energy", 1)
LATENCY: Axis = ("latency", "e2e.mean", 1)
MAKESPAN: Axis = ("makespan", "makespan", 1)


@dataclass(frozen=True)
class Trade:
    """The plan that uses least energy beside the one that answers soonest.

    Attributes:
        fast: latency-optimal outcome.
        frugal: energy-optimal outcome among plans that keep up.
        saved: share of the fast plan's energy that the frugal one does not use.
        paid: the frugal plan's mean end-to-end time over the fast one's.
        curve: the clock curve; "" = ``a + b f V^2``.
        label: always "modelled": no second clock was measured.
    """

    fast: Outcome
    frugal: Outcome
    saved: float
    paid: float
    curve: str
    label: str = "modelled"

    def table(self) -> dict[str, Any]:
        """Returns a row for JSON."""
        return {
            "saved": self.saved, "paid": self.paid, "curve": self.curve, "label": self.label,
            "fast": self.fast.plan, "frugal": self.frugal.plan,
        }  # fmt: skip


def trade(state: Setting, clocks: Sequence[float] = CLOCKS, keep_up: float = KEEP_UP) -> Trade | None:
    """Returns the trade between energy and latency over layouts, batches and clocks; None = nothing meets the SLO.

    Args:
        state: the scenario, resolved; what its ``[plan]`` fixes stays fixed, a clock too.
        clocks: shares of the top clock to search, where ``[plan]`` leaves it open.
        keep_up: makespan of a plan over the fastest one's beyond which it does not count.
    """
    open_ = replace(state, scenario=state.scenario.with_plan(_clocked(state.scenario.plan, clocks)))
    fast = search(open_, top=1, goals=(LATENCY,)).best
    if fast is None:
        return None
    # makespan is an axis so that the least energy among plans that keep up lies on the frontier
    frontier = search(open_, top=1, goals=(ENERGY,), axes=(ENERGY, LATENCY, MAKESPAN)).frontier
    limit = keep_up * fast.metrics["makespan"]
    frugal = min((o for o in (*frontier, fast) if o.metrics["makespan"] <= limit), key=lambda o: o.metrics["energy"])
    return Trade(
        fast, frugal, 1.0 - frugal.metrics["energy"] / fast.metrics["energy"],
        frugal.metrics["e2e"]["mean"] / fast.metrics["e2e"]["mean"], state.tree.groups[0].device.power.curve,
    )  # fmt: skip


def sensitivity(state: Setting, clocks: Sequence[float] = CLOCKS) -> list[Trade]:
    """Returns the same trade under every clock curve of the catalogue and under ``a + b f V^2``."""
    found = []
    for curve in ("", *curves()):
        groups = tuple(replace(g, device=_on_curve(g.device, curve)) for g in state.tree.groups)
        other = replace(state, tree=replace(state.tree, groups=groups), _servers={})
        result = trade(other, clocks)
        if result is not None:
            found.append(result)
    return found


def _on_curve(device: Device, curve: str) -> Device:
    return msgspec.structs.replace(device, power=msgspec.structs.replace(device.power, curve=curve))


def _clocked(plan: Plan, clocks: Sequence[float]) -> Plan:
    pools = tuple(p if p.clock is not None else with_choice(p, clock=tuple(clocks)) for p in plan.pools)
    return Plan(pools=pools, route=plan.route)
