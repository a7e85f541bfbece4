"""Power: limits, floors, transfer between boards, and the clock."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.cost.energy import (
    ClockCurve,
    Draw,
    busy_energy,
    capped_clock,
    downclock,
    downclock_rates,
    extended,
    limited_time,
    rates_of,
    voltage_curve,
)
from fleetcast.cost.gemm import Gemm, gemm_time
from fleetcast.cost.roofline import Chip, coefficients_for
from fleetcast.scenario.fleet.catalog import device, devices

CHIP = Chip("chip", "none", 1e12, 100, {"bf16": 100e12, "fp8": 200e12})
DRAW = Draw(busy=0.4, product=1.2, narrow=1.6, weights=0.6, attention=0.8, cache=0.1)


def test_shares_become_joules():
    rates = rates_of(CHIP, 500.0, "bf16", DRAW)
    assert rates.busy == 200.0
    assert rates.product == pytest.approx(6e-12)
    assert rates.weights == pytest.approx(300e-12)
    assert rates_of(CHIP, 500.0, "fp8", DRAW).product == pytest.approx(4e-12)


def test_energy_adds_up_until_the_board_limit():
    rates = rates_of(CHIP, 500.0, "bf16", DRAW)
    got = busy_energy([1.0, 1.0], [10e12, 90e12], [0.2e12, 0.2e12], rates)
    assert got.tolist() == pytest.approx([200 + 60 + 60, 500.0])
    more = busy_energy(1.0, 10e12, 0.2e12, rates, attention_flops=10e12, cache_size=0.5e12)
    assert more == pytest.approx(320 + 40 + 25)


@given(st.floats(1e-6, 10), st.floats(0, 1e15), st.floats(0, 1e13))
def test_power_stays_between_floor_and_limit(seconds, flops, size):
    rates = rates_of(CHIP, 500.0, "bf16", DRAW)
    joules = float(busy_energy(seconds, flops, size, rates))
    assert 200 * seconds * (1 - 1e-12) <= joules <= 500 * seconds * (1 + 1e-12)


def test_every_device_draws_at_least_its_idle_power_when_busy():
    for chip in devices().values():
        draw = coefficients_for(chip).get("draw", "any", Draw)
        dtype = "bf16" if {"bf16", "fp16", "fp32"} & set(chip.peak) else "int8"
        rates = rates_of(chip, chip.power.max, dtype, draw)
        assert chip.power.idle < rates.busy < chip.power.max


# Measured: aiconfigurator perf tables with watts, vLLM 0.22 (Apache-2.0): medians over many kernels of that use.
def test_measured_watts():
    chip = device("h200-sxm")
    rates = rates_of(chip, 700.0, "bf16", coefficients_for(chip).get("draw", "any", Draw))
    stream = busy_energy(1.0, 0.02 * 989e12, 0.5 * 4.8e12, rates)
    assert stream == pytest.approx(525, rel=0.15)  # experts read at half the bandwidth
    assert busy_energy(1.0, 0.6 * 989e12, 0.05 * 4.8e12, rates) == pytest.approx(690, rel=0.05)
    reading = busy_energy(1.0, 0.0, 0.0, rates, cache_size=0.5 * 4.8e12)
    assert reading == pytest.approx(401, rel=0.2)  # decode attention at half the bandwidth


def test_a_lower_clock_slows_arithmetic_only_and_saves_power():
    curve = voltage_curve()
    slow = downclock(CHIP, 0.6, curve)
    assert slow.bandwidth == CHIP.bandwidth
    assert slow.peak["bf16"] == pytest.approx(60e12)
    c = Gemm(launch=0.0, compute=1.0, memory=1.0, sharp=8)
    assert gemm_time(1, 8192, 8192, "bf16", slow, c) == pytest.approx(
        float(gemm_time(1, 8192, 8192, "bf16", CHIP, c)), rel=1e-6
    )
    assert gemm_time(8192, 8192, 8192, "bf16", slow, c) == pytest.approx(
        float(gemm_time(8192, 8192, 8192, "bf16", CHIP, c)) / 0.6, rel=1e-6
    )
    rates = rates_of(CHIP, 500.0, "bf16", DRAW)
    low = downclock_rates(rates, 0.6, curve)
    assert low.busy < rates.busy and low.product < rates.product
    assert low.weights == rates.weights and low.limit == rates.limit
    same = downclock_rates(rates, 1.0, curve)
    assert same.product == pytest.approx(rates.product)


def test_the_textbook_curve_is_a_plus_b_f_v_squared():
    curve = voltage_curve(8, floor=0.5, static=0.3)
    assert curve.power[-1] == pytest.approx(1.0)
    assert curve.power[0] == pytest.approx(0.3 + 0.7 * 0.3 * 0.25)
    assert np.all(np.diff(curve.power) > 0)


def test_a_power_limit_picks_the_fastest_clock_within_it():
    rates = rates_of(CHIP, 500.0, "bf16", DRAW)
    curve = voltage_curve(71)
    share = capped_clock(350.0, rates, curve)
    power = float(np.interp(share, curve.clock, curve.power))
    assert power * 500 <= 350.0 + 1e-9
    assert np.interp(share + 0.02, curve.clock, curve.power) * 500 > 350.0
    assert capped_clock(1e9, rates, curve) == 1.0
    assert capped_clock(1.0, rates, curve) == pytest.approx(0.3)


def test_a_curve_goes_on_below_its_last_point_with_the_voltage_held():
    curve = ClockCurve(np.array([0.6, 0.7, 1.0]), np.array([0.5, 0.57, 1.0]), np.array([0.66, 0.75, 1.0]))
    longer = extended(curve, 0.3)
    assert np.interp(0.45, longer.clock, longer.power) == pytest.approx(0.5 - 0.15 * 0.7)
    assert np.interp(0.3, longer.clock, longer.rate) == pytest.approx(0.33)
    assert np.interp(0.8, longer.clock, longer.power) == np.interp(0.8, curve.clock, curve.power)
    assert extended(voltage_curve(), 0.3).clock.size == 21


def limited(watts, flops, size):
    """Seconds, joules and the clock of work on CHIP under a limit, as `cost.step` puts them together."""
    curve, full = voltage_curve(), rates_of(CHIP, 500.0, "bf16", DRAW)
    share = capped_clock(watts, full, curve)
    rate = float(np.interp(share, curve.clock, curve.rate))
    rates = downclock_rates(full, share, curve)
    time = max(flops / (0.9 * rate * 100e12), size / 0.95e12, 1e-6)
    if watts < 500.0:
        time = float(limited_time(time, rates.product * flops, rates.weights * size, rates, watts))
    return time, min(rates.busy * time + rates.product * flops + rates.weights * size, watts * time), rates.busy


@given(st.floats(0, 1e14), st.floats(0, 1e12), st.floats(80, 500), st.floats(80, 500))
def test_a_lower_limit_is_never_faster_and_never_exceeded(flops, size, one, other):
    low, high = sorted((one, other))
    slow, joules, busy = limited(low, flops, size)
    fast, _, _ = limited(high, flops, size)
    assert slow >= fast * (1 - 1e-9)
    assert busy * slow * (1 - 1e-12) <= joules <= low * slow * (1 + 1e-12)
    assert limited(500.0, flops, size)[0] <= fast * (1 + 1e-9)


def test_memory_bound_work_waits_where_the_lowest_clock_still_draws_more():
    curve = voltage_curve()
    rates = downclock_rates(rates_of(CHIP, 500.0, "bf16", DRAW), 0.3, curve)
    size = 0.9e12  # read in one second: 270 J and the busy floor
    assert float(limited_time(1.0, 0.0, rates.weights * size, rates, 400.0)) == 1.0
    waits = float(limited_time(1.0, 0.0, rates.weights * size, rates, 200.0))
    assert waits == pytest.approx(270.0 / (200.0 - rates.busy))
    assert rates.busy * waits + 270.0 == pytest.approx(200.0 * waits)
