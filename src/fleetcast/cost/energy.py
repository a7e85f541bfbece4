"""Power and energy of a device at work: a floor, joules per FLOP and byte, a limit, the clock.

    energy = min(limit * time, busy * time + J/FLOP * FLOPs + J/B * bytes)

Coefficients are shares of the board's power limit (``busy``) or of that limit over a roof (1.2 on
``product`` means that products at the full peak would draw 1.2 limits, so they are throttled), so
that they carry over to boards of other sizes. Attention has its own: its tensor units wait for
softmax and its reads are streams. Idle power is the device's own (``scenario``); nothing runs below
it.

Clock: compute scales with it, memory does not. Power above idle follows ``a + b f V^2`` (Burd and
Brodersen 1995), here given by sourced points of (clock, power, rate).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fleetcast.cost.roofline import Array, Chip, Silicon, format_of, peak


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Fitted power coefficients, as shares of the board limit.

    Attributes:
        busy: while any kernel runs.
        product: products in 16-bit arithmetic at the full peak.
        narrow: products in narrower arithmetic at its full peak.
        weights: reading weights at the full memory bandwidth.
        attention: attention arithmetic at the full 16-bit peak.
        cache: reading keys and values at the full memory bandwidth.
    """

    busy: float
    product: float
    narrow: float
    weights: float
    attention: float
    cache: float


@dataclass(frozen=True, slots=True)
class Rates:
    """Power coefficients of one device in SI units.

    Attributes:
        limit: W, the board limit.
        most: W that work bound by arithmetic draws at this clock; the board limit at the top clock.
        busy: W while kernels run.
        product: J per FLOP of products.
        weights: J per byte of weights and activations.
        attention: J per FLOP of attention.
        cache: J per byte of keys and values.
    """

    limit: float
    most: float
    busy: float
    product: float
    weights: float
    attention: float
    cache: float


def rates_of(chip: Silicon, limit: float, dtype: str, c: Draw) -> Rates:
    """Returns joules per FLOP and byte of a device whose products run in ``dtype``.

    Args:
        chip: the device.
        limit: W, its board power.
        dtype: number format of the products.
        c: fitted shares.
    """
    share = c.narrow if format_of(dtype).activation < 2 else c.product
    half = peak(chip, "bf16")
    return Rates(
        limit=limit,
        most=limit,
        busy=c.busy * limit,
        product=share * limit / peak(chip, dtype),
        weights=c.weights * limit / chip.bandwidth,
        attention=c.attention * limit / half,
        cache=c.cache * limit / chip.bandwidth,
    )


def busy_energy(
    time: ArrayLike,
    flops: ArrayLike,
    size: ArrayLike,
    rates: Rates,
    *,
    attention_flops: ArrayLike = 0.0,
    cache_size: ArrayLike = 0.0,
) -> Array:
    """Returns joules that one device draws while it works; at most its limit times the time.

    Args:
        time: s during which kernels run (array).
        flops: FLOPs of products in that time.
        size: bytes of weights and activations moved.
        rates: the device's coefficients.
        attention_flops: FLOPs of attention.
        cache_size: bytes of keys and values read.
    """
    seconds = np.asarray(time, dtype=np.float64)
    work = rates.busy * seconds + rates.product * np.asarray(flops, dtype=np.float64)
    work = work + rates.weights * np.asarray(size, dtype=np.float64)
    work = work + rates.attention * np.asarray(attention_flops, dtype=np.float64)
    work = work + rates.cache * np.asarray(cache_size, dtype=np.float64)
    return np.asarray(np.minimum(work, rates.limit * seconds))


@dataclass(frozen=True, slots=True)
class ClockCurve:
    """How power and rate fall with the clock, all as shares of the top clock's, growing.

    Attributes:
        clock: shares of the top clock.
        power: busy power there.
        rate: speed of compute-bound work there.
    """

    clock: Array
    power: Array
    rate: Array


def voltage_curve(points: int = 21, *, floor: float = 0.5, static: float = 0.3) -> ClockCurve:
    """Returns the textbook curve ``static + (1 - static) f V^2``, V linear in f.

    Args:
        points: knots.
        floor: share of the top voltage below which the board does not go.
        static: share of the busy power that does not depend on the clock.
    """
    clock = np.linspace(0.3, 1.0, points)
    volts = np.maximum(clock, floor)
    return ClockCurve(clock, static + (1.0 - static) * clock * volts**2, clock.copy())


def downclock(chip: Silicon, share: float, curve: ClockCurve) -> Chip:
    """Returns the device at ``share`` of its top clock: peaks fall, bandwidth stays."""
    rate = float(np.interp(share, curve.clock, curve.rate))
    return Chip(
        chip.id, chip.architecture, chip.bandwidth, chip.units,
        {name: value * rate for name, value in chip.peak.items()},
    )  # fmt: skip


def downclock_rates(rates: Rates, share: float, curve: ClockCurve) -> Rates:
    """Returns power coefficients at ``share`` of the top clock.

    Power of compute-bound work falls to the curve's, so joules per FLOP fall to power/rate and the
    busy floor to power; joules per byte stay, memory has a clock of its own. The board limit stays.
    """
    power = float(np.interp(share, curve.clock, curve.power))
    rate = float(np.interp(share, curve.clock, curve.rate))
    return Rates(
        limit=rates.limit,
        most=rates.most * power,
        busy=rates.busy * power,
        product=rates.product * power / rate,
        weights=rates.weights,
        attention=rates.attention * power / rate,
        cache=rates.cache,
    )


def peak_draw(rates: Rates, bandwidth: float) -> float:
    """Returns W that a device draws at most at its clock; the board limit at the top clock.

    Work that reads at full bandwidth draws M, for memory has a clock of its own, and beside it the busy floor B, or as
    much arithmetic as `limited_time` lets through: ``max(B + M, p L + (1 - p) M)``, where arithmetic alone draws the
    share p of the board limit L.

    Args:
        rates: the device at its clock.
        bandwidth: B/s of its memory.
    """
    memory = min(rates.limit - rates.busy, max(rates.weights, rates.cache) * bandwidth)
    return max(rates.busy + memory, rates.most + memory * (1.0 - rates.most / rates.limit))


def capped_clock(limit: float, rates: Rates, curve: ClockCurve) -> float:
    """Returns the largest clock share at which arithmetic stays within ``limit`` watts, or the lowest."""
    return float(np.interp(limit / rates.limit, curve.power, curve.clock))


def limited_time(
    time: ArrayLike, arithmetic: ArrayLike, memory: ArrayLike, rates: Rates, limit: float, beside: ArrayLike = 0.0
) -> Array:
    """Returns seconds that work takes on a device that may draw ``limit`` W and would draw more.

    Clocks stay up while the device waits, so the busy floor is drawn throughout and the joules above it take at least
    ``joules / (limit - busy)``. The joules are those that the board itself lets through: arithmetic never draws more
    than ``rates.most``, and all work no more than the board limit, because the measured times contain that.

    Args:
        time: s at this clock without the limit (array).
        arithmetic: J of products and attention (array).
        memory: J of weights and cache read (array).
        rates: the device at its clock.
        limit: W, above ``rates.busy``.
        beside: s of kernels in the same iteration that draw the floor alone: a board averages over more than that.
    """
    t, hot, cold, floor = (np.asarray(x, dtype=np.float64) for x in (time, arithmetic, memory, beside))
    cold = np.minimum(cold, (rates.limit - rates.busy) * t)
    room = (rates.most - rates.busy) * t - cold * (rates.most / rates.limit)
    hot = np.minimum(hot, np.maximum(room, 0.0))
    return np.asarray(np.maximum(t, (hot + cold) / (limit - rates.busy) - floor))


def extended(curve: ClockCurve, lowest: float) -> ClockCurve:
    """Returns ``curve`` continued below its first point to ``lowest``, the voltage held.

    There power is ``a + b f``, on the line through the two lowest points, and the rate proportional to the clock.
    """
    first = float(curve.clock[0])
    if first <= lowest:
        return curve
    slope = float((curve.power[1] - curve.power[0]) / (curve.clock[1] - curve.clock[0]))
    return ClockCurve(
        np.concatenate([[lowest], curve.clock]),
        np.concatenate([[curve.power[0] - slope * (first - lowest)], curve.power]),
        np.concatenate([[curve.rate[0] * lowest / first], curve.rate]),
    )
