"""What a kWh emits where the devices of each kind stand, and what policies are told of it beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.base.rng import rng

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fleetcast.scenario.fleet.signals import Signal
    from fleetcast.sim.cluster.run import Run

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Grids:
    """The grid of each kind of device.

    Attributes:
        true: of each kind, g/kWh over time.
        told: the same as forecasts have it.
    """

    true: tuple[Signal, ...]
    told: tuple[Signal, ...]

    def forecast(self, kind: int, begin: ArrayLike, end: ArrayLike) -> NDArray[np.float64]:
        """Returns the mean over spans as forecasts have it, g/kWh."""
        return mean(self.told[kind], begin, end)

    def grams(self, run: Run, power: Sequence[float]) -> NDArray[np.float64]:
        """Returns g of the work on each kind, exactly.

        Args:
            run: what happened.
            power: W that work adds to a device of each kind.
        """
        found = np.zeros(len(self.true))
        for k, grid in enumerate(self.true):
            mine = run.kind == k
            spans = integral(grid, run.end[mine]) - integral(grid, run.begin[mine])
            found[k] = power[k] * float(spans @ run.devices[mine]) / JOULES_PER_KWH
        return found


def grids(signals: Sequence[Signal], error: float = 0.0, seed: int = 0) -> Grids:
    """Returns the grids of kinds, with forecasts that are off.

    Args:
        signals: of each kind; kinds on one signal share its forecast.
        error: standard deviation of the factor by which each value is off, independent of how far ahead it lies.
        seed: of the errors.
    """
    wrong = {id(grid): _wrong(grid, error, seed, number) for number, grid in enumerate(signals)} if error else {}
    return Grids(tuple(signals), tuple(wrong.get(id(grid), grid) for grid in signals))


def _wrong(grid: Signal, error: float, seed: int, number: int) -> Signal:
    if len(grid.values) == 1:
        return grid
    draw = rng(seed, "jobs", "carbon", str(number)).standard_normal(len(grid.values))
    values = np.array(grid.values) * np.maximum(0.0, 1.0 + error * draw)
    areas = values * np.diff([*grid.times, grid.span])
    return replace(grid, values=tuple(values.tolist()), sums=tuple(accumulate(areas.tolist(), initial=0.0)))


def integral(grid: Signal, times: ArrayLike) -> NDArray[np.float64]:
    """Returns the integral of a signal from 0 to each time (s x its unit)."""
    when = np.asarray(times, float)
    if len(grid.values) == 1:
        return np.asarray(when * grid.values[0])
    periods = np.floor(when / grid.span)
    rest = np.interp(when - periods * grid.span, [*grid.times, grid.span], grid.sums)
    return np.asarray(periods * grid.sums[-1] + rest)


def mean(grid: Signal, begin: ArrayLike, end: ArrayLike) -> NDArray[np.float64]:
    """Returns the mean of a signal over spans of some length."""
    low, high = np.asarray(begin, float), np.asarray(end, float)
    return np.asarray((integral(grid, high) - integral(grid, low)) / (high - low))
