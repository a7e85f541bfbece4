"""GenModel's parameters from timings of known algorithms, by least squares on relative errors.

All but the threshold enter linearly and none may be negative, so for each threshold the rest is a non-negative linear
fit; the threshold itself is found on a grid, then by golden section between the neighbours of the best. Incast is kept
only where it explains more than its two parameters must by chance (Schwarz, Annals of Statistics 6, 1978). Bytes sent
and bytes added rise together in a reduce-scatter: gathers, which add nothing, tell beta from gamma.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.cost.collectives import genmodel
from fleetcast.cost.collectives.genmodel import Counts, Parameters

Array = NDArray[np.float64]
MODELS = {
    "alpha-beta": ("launch", "alpha", "beta"),
    "alpha-beta-gamma": ("launch", "alpha", "beta", "gamma"),
    "genmodel": ("launch", "alpha", "beta", "gamma", "delta", "epsilon"),
}
"""What each model has; genmodel has the threshold too."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One measured operation.

    Attributes:
        algorithm: as `genmodel.stages` takes it.
        ranks: how many took part.
        size: B of the full buffer.
        time: s.
        operation: one of `genmodel.OPERATIONS`.
    """

    algorithm: str
    ranks: int
    size: float
    time: float
    operation: str = "all_reduce"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model's parameters and how far they are from the timings.

    Attributes:
        parameters: found.
        error: mean relative error on the timings they were fitted to.
    """

    parameters: Parameters
    error: float


def columns(stages: Sequence[Counts], names: Sequence[str], threshold: float) -> list[float]:
    """Returns what one s, or s/B, of each named parameter adds to the time of the stages."""
    sums = {
        "launch": 1.0,
        "alpha": sum(c.rounds for c in stages),
        "beta": sum(c.sent for c in stages),
        "gamma": sum(c.added for c in stages),
        "delta": sum(c.moved for c in stages),
        "epsilon": sum(max(c.width - threshold, 0.0) * c.sent for c in stages),
    }
    return [sums[name] for name in names]


def fit(timings: Sequence[Timing], model: str = "genmodel") -> Fitted:
    """Returns the parameters of a model.

    Args:
        timings: at least as many as parameters; several algorithms, or they cannot be told apart.
        model: one of `MODELS`.

    Raises:
        SpecError: an unknown model, too few timings, or one that is not above 0.
    """
    from scipy.optimize import nnls

    if model not in MODELS:
        raise SpecError("model", "is not known", value=model, limit=", ".join(MODELS))
    names = MODELS[model]
    if len(timings) < len(names) + (model == "genmodel"):
        limit = f"{len(names) + (model == 'genmodel')} for the parameters of {model}"
        raise SpecError("timings", "are too few", value=len(timings), limit=limit)
    time = np.array([t.time for t in timings])
    if not np.all(time > 0) or not np.all(np.isfinite(time)):
        raise SpecError("timings", "hold one that cannot be", value=float(time.min()), limit="seconds above 0")
    stages = [genmodel.stages(t.algorithm, t.ranks, t.size, t.operation) for t in timings]

    def solve(threshold: float) -> tuple[float, Array]:
        a = np.array([columns(s, names, threshold) for s in stages]) / time[:, None]
        scale = np.linalg.norm(a, axis=0)
        scale[scale == 0] = 1.0
        found, left = nnls(a / scale, np.ones(len(time)))
        return left, found / scale

    threshold = _threshold(solve, stages) if model == "genmodel" else 2.0
    left, found = solve(threshold)
    if model == "genmodel":
        # no port is wider than this: the same model without incast
        widest = max(c.width for s in stages for c in s)
        plain, without = solve(widest)
        if len(time) * 2.0 * np.log(max(plain, 1e-12) / max(left, 1e-12)) < 2.0 * np.log(len(time)):
            threshold, found = widest, without
    p = replace(Parameters(0.0, 0.0, threshold=threshold), **dict(zip(names, map(float, found), strict=True)))
    return Fitted(p, float(np.mean(errors(timings, p))))


def _threshold(solve: object, stages: Sequence[Sequence[Counts]]) -> float:
    """Returns the threshold of the least error, between the narrowest and the widest port."""
    assert callable(solve)
    widths = sorted({c.width for s in stages for c in s})
    grid = np.unique(np.concatenate([widths, [(a + b) / 2 for a, b in pairwise(widths)]]))
    best = int(np.argmin([solve(x)[0] for x in grid]))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    golden = (5**0.5 - 1) / 2
    for _ in range(40):
        a, b = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, b) if solve(a)[0] <= solve(b)[0] else (a, high)
    found = (low + high) / 2
    return min((found, float(grid[best])), key=lambda x: solve(x)[0])


def predicted(timing: Timing, p: Parameters) -> float:
    """Returns the seconds that a model says for what was timed."""
    names = MODELS["genmodel"]
    stages = genmodel.stages(timing.algorithm, timing.ranks, timing.size, timing.operation)
    row = columns(stages, names, p.threshold)
    return float(np.dot(row, [getattr(p, name) for name in names]))


def errors(timings: Sequence[Timing], p: Parameters) -> Array:
    """Returns the relative error at each timing."""
    return np.array([abs(predicted(t, p) / t.time - 1.0) for t in timings])


def held_out(timings: Sequence[Timing], model: str, by: str = "size") -> Array:
    """Returns the relative error at each timing by the fit to those of other groups.

    Args:
        timings: measured.
        model: one of `MODELS`.
        by: what is left out at a time: all timings of one "size", "ranks" or "algorithm".
    """
    found = np.zeros(len(timings))
    for value in {getattr(t, by) for t in timings}:
        out = [i for i, t in enumerate(timings) if getattr(t, by) == value]
        rest = [t for t in timings if getattr(t, by) != value]
        found[out] = errors([timings[i] for i in out], fit(rest, model).parameters)
    return found
