"""Batteries: energy is conserved, nothing starts in the dark, and the sun brings nodes back."""

import numpy as np
import pytest

from fleetcast.policy import scale
from fleetcast.policy.route import invocations as route
from fleetcast.scenario.fleet.signals import Signal
from fleetcast.scenario.workload.invocations.generators import Synthetic
from fleetcast.sim.functions.places import Node, Places
from fleetcast.sim.functions.supply import Sun, Supply

HOUR = 3600.0


def shining(hours: float = 12.0, watts: float = 800.0) -> Signal:
    """Half a day of sun, half a day of night."""
    day = watts * hours * HOUR
    return Signal("sun", (0.0, hours * HOUR), (watts, 0.0), 24 * HOUR, (0.0, day, day), "test")


def sun(battery: float = 1e7, **more: float) -> Sun:
    return Sun(shining(), panel=500.0, battery=battery, reserve=0.2, idle=100.0, busy=300.0, **more)


def test_energy_is_conserved() -> None:
    supply = Supply([sun(), None], np.array([10.0, 10.0]))
    supply.level[0] = 5e6
    supply.runs(0, 5.0)
    supply.advance(HOUR)
    assert supply.level[0] == pytest.approx(5e6 + (0.8 * 500 - 100 - 100) * HOUR)
    assert supply.energy[1] == np.inf
    supply.runs(0, -5.0)
    supply.advance(13 * HOUR)
    assert supply.energy[0] == pytest.approx(min(1e7, 5e6 + 200 * HOUR + (0.8 * 500 * 11 / 12 - 100) * 12 * HOUR) - 2e6)


def test_a_battery_is_neither_below_empty_nor_above_full() -> None:
    supply = Supply([sun(battery=1e5)], np.array([10.0]))
    supply.advance(10 * HOUR)
    assert supply.level[0] == 1e5
    supply.advance(23 * HOUR)
    assert supply.level[0] == 0.0
    assert supply.energy[0] == 0.0


def test_requests_of_the_night_wait_for_the_sun() -> None:
    trace = Synthetic(functions=10, regions=1, hours=24, rate=0.01, steady=0.05).invocations(1)
    nodes = [Node("n", 0, 64e9, 300.0)]
    supply = Supply([sun(battery=2e6)], np.array([64e9]))
    found = Places(trace, scale.Fixed(), nodes, route.Hash(across=True), supply=supply).run()
    dark = (trace.time > 17 * HOUR) & (trace.time < 23.5 * HOUR)
    begun = trace.time + found.pods.wait
    assert dark.sum() > 100
    assert (begun[dark] >= 24 * HOUR).mean() > 0.95, "no sun, an empty battery from 16.4 h on: until the next morning"
    assert begun.max() < 25 * HOUR, "and no longer"
    assert (found.pods.wait[trace.time < 12 * HOUR] < 1000).all()
    assert found.queued > 0


def test_a_full_battery_changes_nothing() -> None:
    trace = Synthetic(functions=10, regions=1, hours=2, rate=0.05, steady=0.2).invocations(1)
    nodes = [Node("n", 0, 64e9, 300.0)]
    plain = Places(trace, scale.Fixed(), nodes, route.Hash(across=True)).run()
    supply = Supply([sun(battery=1e12)], np.array([64e9]))
    found = Places(trace, scale.Fixed(), nodes, route.Hash(across=True), supply=supply).run()
    assert (plain.pods.wait == found.pods.wait).all()
