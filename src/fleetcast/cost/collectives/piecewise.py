"""Times of an all-reduce by size and ranks, fitted by least squares: latency and bandwidth for each interval of sizes.

Libraries change protocol and algorithm with the size (NCCL: LL, LL128, Simple; ring, tree, NVLS), and each has its own
latency and bandwidth, so the time over sizes is a broken line. Where there are many measurements, leaving out one after
the other says how many corners help; where there are few, each is one. Two parameters for all sizes (Hockney, Parallel
Computing 20, 1994) and one bandwidth are the simpler models. Between ranks the time per byte sent is interpolated.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleetcast.base.errors import SpecError, closest
from fleetcast.cost.collectives.fabric import volume

Array = NDArray[np.float64]
FEW = 24
_FILE = Path(__file__).parent.parent / "coefficients" / "all_reduce.toml"


@dataclass(frozen=True, slots=True, eq=False)
class Piecewise:
    """A broken line through corners; level below the first, the last interval's bandwidth beyond the last.

    Attributes:
        size: (n,) B, growing.
        time: (n,) s.
    """

    size: Array
    time: Array

    def __call__(self, size: ArrayLike) -> Array:
        """Returns s at sizes, B."""
        asked = np.asarray(size, dtype=np.float64)
        inside = np.interp(asked, self.size, self.time)
        if len(self.size) == 1:
            return inside
        slope = (self.time[-1] - self.time[-2]) / (self.size[-1] - self.size[-2])
        return np.asarray(inside + np.maximum(asked - self.size[-1], 0.0) * max(slope, 0.0))


def checked(size: ArrayLike, time: ArrayLike, least: int = 2) -> tuple[Array, Array]:
    """Returns measurements as arrays, by growing size.

    Raises:
        SpecError: too few, of unlike number, not above 0, or two of one size.
    """
    x, y = np.asarray(size, dtype=np.float64), np.asarray(time, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) < least:
        raise SpecError("measurements", "are too few", value=int(x.size), limit=f"{least} sizes with a time each")
    if not (np.all(x > 0) and np.all(y > 0) and np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
        raise SpecError("measurements", "hold a size or time that cannot be", limit="finite, above 0")
    order = np.argsort(x)
    if np.any(np.diff(x[order]) == 0):
        raise SpecError("measurements", "hold a size twice", limit="one time for each size")
    return x[order], y[order]


def bandwidth_only(size: ArrayLike, time: ArrayLike) -> Piecewise:
    """Returns the fit of one bandwidth: least squares on relative errors."""
    x, y = checked(size, time, 1)
    per_byte = float(np.sum(x / y) / np.sum((x / y) ** 2))
    return Piecewise(np.array([1e-9, 1.0]), per_byte * np.array([1e-9, 1.0]))


def hockney(size: ArrayLike, time: ArrayLike) -> Piecewise:
    """Returns the fit of latency and bandwidth, both at least 0: least squares on relative errors."""
    from scipy.optimize import nnls

    x, y = checked(size, time)
    scale = np.array([y.min(), y.max() / x.max()])
    found = nnls(np.stack([1.0 / y, x / y], axis=1) * scale, np.ones(len(x)))[0] * scale
    return Piecewise(np.array([0.0, 1.0]), np.array([found[0], found[0] + found[1]]))


def broken(size: ArrayLike, time: ArrayLike, corners: int) -> Piecewise:
    """Returns the broken line with so many corners, spread evenly over the measured sizes, nearest on relative errors.

    Args:
        size: (n,) B.
        time: (n,) s.
        corners: 2 to n; n goes through every measurement.
    """
    x, y = checked(size, time)
    at = x[np.unique(np.linspace(0, len(x) - 1, corners).round().astype(int))]
    hats = np.stack([np.interp(x, at, row) for row in np.eye(len(at))], axis=1)
    found = np.linalg.lstsq(hats / y[:, None], np.ones(len(x)), rcond=None)[0]
    # noise may bend a corner below anything that was measured
    return Piecewise(at, np.maximum(found, y.min() / 2.0))


def fit(size: ArrayLike, time: ArrayLike) -> Piecewise:
    """Returns the broken line whose number of corners leaves the least error when a measurement is left out.

    Fewer than `FEW` measurements are all corners: too few are left to say which could go.
    """
    x, y = checked(size, time)
    if len(x) < FEW:
        return broken(x, y, len(x))
    tried = sorted({len(x), *(c for c in (len(x) * 2 // 3, len(x) // 2, len(x) // 3) if c >= 3)}, reverse=True)
    best = min(tried, key=lambda corners: left_out(x, y, corners))
    return broken(x, y, best)


def left_out(x: Array, y: Array, corners: int) -> float:
    """Returns the mean relative error at measurements left out one at a time, the outermost excepted."""
    errors = []
    for i in range(1, len(x) - 1):
        rest = np.arange(len(x)) != i
        line = broken(x[rest], y[rest], min(corners, len(x) - 1))
        errors.append(abs(float(line(x[i])) / y[i] - 1.0))
    return float(np.mean(errors))


@dataclass(frozen=True, slots=True)
class AllReduce:
    """What an all-reduce takes on one kind of machine.

    Attributes:
        name: e.g. "a100-nvlink-3".
        lines: by ranks.
        source: of the measurements.
        switched: whether ranks are joined by a switch; else what a number of ranks reaches depends on the wiring, and
            numbers that were not measured cannot be told from their neighbours.
        per_node: ranks of a node; more are on several.
    """

    name: str
    lines: Mapping[int, Piecewise]
    source: str = ""
    switched: bool = True
    per_node: int = 8

    def time(self, size: ArrayLike, ranks: int) -> Array:
        """Returns s.

        Args:
            size: B of the buffer on each rank; 0 takes none.
            ranks: as measured, or between two numbers that were; 1 takes none.

        Raises:
            SpecError: fewer than one rank, a negative size, or a number of ranks that the measurements do not tell.
        """
        asked = np.asarray(size, dtype=np.float64)
        if not np.all(asked >= 0) or not np.all(np.isfinite(asked)):
            raise SpecError("size", "cannot be", value=float(np.min(asked)), limit="bytes, at least 0")
        if ranks < 1:
            raise SpecError("ranks", "cannot be", value=ranks, limit="at least 1")
        if ranks == 1:
            return np.zeros_like(asked)
        if ranks in self.lines:
            return np.where(asked > 0, self.lines[ranks](asked), 0.0)
        known = sorted(self.lines)
        if not self.switched or not known[0] < ranks < known[-1]:
            limit = f"measured on {self.name}: {', '.join(map(str, known))}"
            hint = "Measure it" if self.switched else "Measure it: without a switch the wiring decides"
            raise SpecError("ranks", "were not measured", value=ranks, limit=limit, hint=hint)
        low = max(n for n in known if n < ranks)
        high = min(n for n in known if n > ranks)
        return np.where(asked > 0, between(asked, ranks, (low, self.lines[low]), (high, self.lines[high])), 0.0)


def between(size: Array, ranks: int, low: tuple[int, Piecewise], high: tuple[int, Piecewise]) -> Array:
    """Returns s of a number of ranks from those of one below and one above: time per byte sent, log-linear in ranks."""
    share = np.log(ranks / low[0]) / np.log(high[0] / low[0])
    a, b = (np.log(line(size) / float(volume("all_reduce", n))) for n, line in (low, high))
    return np.asarray(np.exp((1.0 - share) * a + share * b) * float(volume("all_reduce", ranks)))


def all_reduce_time(size: ArrayLike, ranks: int, on: str) -> Array:
    """Returns the seconds of an all-reduce on a machine that was measured.

    Args:
        size: B of the buffer on each rank, array.
        ranks: devices that take part.
        on: one of `machines()`, e.g. "a100-nvlink-3".

    Raises:
        SpecError: a machine or a number of ranks that nobody measured, or an impossible size.
    """
    known = _machines()
    if on not in known:
        raise SpecError("on", "was not measured", value=on, limit=", ".join(known), hint=closest(on, known))
    return known[on].time(size, ranks)


def machines() -> tuple[str, ...]:
    """Returns the machines with a measured all-reduce."""
    return tuple(_machines())


@lru_cache(maxsize=1)
def _machines() -> dict[str, AllReduce]:
    with _FILE.open("rb") as file:
        table = tomllib.load(file)
    return {
        name: AllReduce(
            name,
            {int(n): Piecewise(np.array(line["size"], dtype=np.float64), np.array(line["us"]) * 1e-6)
             for n, line in row["ranks"].items()},
            row["source"], row["switched"], row["per_node"],
        )
        for name, row in table.items()
    }  # fmt: skip
