"""The ten probes, and what they say about a core: seconds per unit of everything an operator consists of.

A core is ten numbers away from being known: `cost.learned` starts from a core of no particular make, whose costs are
round estimates that are each uncertain by a factor of about two and rise and fall together within a kind (memory,
overheads, arithmetic), and moves it to where the probes say. The probes were picked so that every cost has one that
depends on it, but for the overhead of a BLAS call, which follows the other overheads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleetcast.cost import learned
from fleetcast.runtime.measure import operators as op
from fleetcast.runtime.measure.operators import UNITS, Caches, Operator

Array = NDArray[np.float64]

PROBES: tuple[Operator, ...] = (
    op.elementwise("add", 16),  # a call that does nothing
    op.elementwise("add", 32_768),  # a stream within the core's own cache
    op.elementwise("add", 500_000),  # a stream within the shared cache
    op.elementwise("copy", 16_000_000),  # a stream from and to memory
    op.softmax(256, 1024),  # exponentials, sums, row by row
    op.gather(1_000_000, 16, 10_000),  # rows from anywhere in memory
    op.product(384, 384, 384),
    op.product(256, 256, 256, "float64"),
    op.product(1, 1024, 1024),  # a matrix read once
    op.product(8, 1024, 1024),  # a matrix packed for few rows
)
SPREAD, TOGETHER = 0.7, 0.6
"""Standard deviation of a cost relative to its estimate, and its correlation with the others of its kind."""
FORM = 0.2
"""Relative error of adding up units as such, from other operators than those that forecasts are judged on."""
KINDS = (
    ("packed", "vector", "near", "middle", "far", "along", "line"),
    ("call", "product", "row"),
    ("flop32", "flop64", "exp", "sum"),
)
Z80 = 1.2815515655446004
_TYPICAL = np.array(list(UNITS.values()))


@dataclass(frozen=True, slots=True)
class Core:
    """One core, placed by its probes.

    Attributes:
        caches: sizes.
        device: costs as multiples of ``UNITS``.
    """

    caches: Caches
    device: learned.Device

    @property
    def costs(self) -> dict[str, float]:
        """Seconds per unit."""
        return dict(zip(UNITS, (np.maximum(self.device.costs[0], 0.01) * _TYPICAL).tolist(), strict=True))

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """80 % interval of the seconds per unit."""
        mean = self.device.costs[0]
        spread = np.sqrt(np.maximum(np.diag(self.device.moments[0]) - mean**2, 0.0))
        ends = [np.maximum(mean + sign * Z80 * spread, 0.01) * _TYPICAL for sign in (-1.0, 1.0)]
        return {name: (float(a), float(b)) for name, a, b in zip(UNITS, *ends, strict=True)}

    def forecast(self, operators: Sequence[Operator]) -> learned.Prediction:
        """Returns the seconds of operators on this core, with 80 % intervals, without running them."""
        rows, expected = shares(operators, self.caches)
        found = self.device.predict([rows])
        width = np.exp(np.hypot(np.log(found.high / found.mean), Z80 * FORM))
        mean = found.mean * expected
        return learned.Prediction(mean, mean / width, mean * width)


def place(seconds: ArrayLike, caches: Caches, probes: Sequence[Operator] = PROBES) -> Core:
    """Returns the core on which ``probes`` took ``seconds``."""
    rows, expected = shares(probes, caches)
    return Core(caches, prior().adapt([rows], np.asarray(seconds, dtype=np.float64) / expected))


def prior() -> learned.Family:
    """Returns the cores among which a new one is looked for, costs as multiples of ``UNITS``."""
    names = list(UNITS)
    kind = {name: i for i, group in enumerate(KINDS) for name in group}
    alike = np.array([[kind[a] == kind[b] for b in names] for a in names])
    covariance = SPREAD**2 * np.where(np.eye(len(names), dtype=bool), 1.0, np.where(alike, TOGETHER, 0.0))
    return learned.Family((learned.View(np.ones(len(names)), covariance, np.ones(len(names))),))


def shares(operators: Sequence[Operator], caches: Caches) -> tuple[Array, Array]:
    """Returns what operators consist of as shares of the seconds expected beforehand, (n, units), and these, (n,)."""
    seconds = op.units(operators, caches) * _TYPICAL
    expected = seconds.sum(1)
    return seconds / expected[:, None], expected
