"""Which clock a device runs at: what the plan asks for, what a power limit leaves, and the curve both follow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fleetcast.base.errors import Infeasible
from fleetcast.cost.energy import (
    ClockCurve,
    Draw,
    Rates,
    capped_clock,
    downclock,
    downclock_rates,
    extended,
    rates_of,
    voltage_curve,
)
from fleetcast.cost.roofline import Coefficients, Silicon
from fleetcast.scenario.fleet.devices import Device
from fleetcast.scenario.fleet.tree import Group
from fleetcast.scenario.plan import LOWEST_CLOCK


def clocked(
    group: Group, dtype: str, fitted: Coefficients, clock: float
) -> tuple[list[tuple[Silicon, Rates]], tuple[str, ...]]:
    """Returns a group's device as it runs, silicon and power coefficients, and a note where it is slowed.

    Under a power limit the device runs arithmetic at the highest clock within it, which comes first; the lower ones
    follow, for work that would draw more than the limit there.

    Args:
        group: device and power limit.
        dtype: number format of the products.
        fitted: the device's coefficients.
        clock: share of the top clock that the plan asks for; a power limit below the board's may lower it.

    Raises:
        Infeasible: the limit is below what the device draws at its lowest clock before it does any work.
    """
    device = group.device
    rates = rates_of(device, device.power.max, dtype, fitted.get("draw", "any", Draw))
    limited = group.limit < device.power.max
    if clock >= 1.0 and not limited:
        return [(device, rates)], ()
    curve, kind, measured = clock_curve(device)
    share = min(clock, capped_clock(group.limit, rates, curve)) if limited else clock
    shares = [share, *(float(c) for c in curve.clock[::-1] if limited and c < share)]
    idle = device.power.idle
    slow = [downclock_rates(rates, s, curve) for s in shares]
    slow = [replace(r, busy=max(r.busy, idle)) for r in slow]
    if group.limit <= slow[0].busy:
        raise Infeasible(
            f"power of {device.id} with its clock at {share:.0%} of the top", need=slow[0].busy, have=group.limit,
            unit="W", hint="Raise fleet.power_limit above that, or leave it out",
        )  # fmt: skip
    note = f"clock of {device.id} at {share:.0%} of the top: times and energy by a {kind} curve"
    if share < measured:
        note += f", continued below {measured:.0%} with the voltage held (modelled)"
    if limited:
        note += f"; work that would draw more than {group.limit:.0f} W there runs at a lower clock or waits"
    return [(downclock(device, s, curve), r) for s, r in zip(shares, slow, strict=True)], (note,)


def clock_curve(device: Device) -> tuple[ClockCurve, str, float]:
    """Returns how a device's power and rate follow its clock down to `LOWEST_CLOCK`.

    Returns:
        The curve; "measured" or "modelled"; the share of the top clock from which up that holds, below which the
        curve is continued.
    """
    if not device.power.curve:
        return voltage_curve(), "modelled", LOWEST_CLOCK
    from fleetcast.scenario.fleet.catalog import curves

    known = curves()[device.power.curve]
    top = known.points[-1].clock
    columns = [[p.clock / top, p.power, p.rate] for p in known.points]
    clock, power, rate = (np.array(c) for c in zip(*columns, strict=True))
    return extended(ClockCurve(clock, power, rate), LOWEST_CLOCK), known.kind, float(clock[0])
