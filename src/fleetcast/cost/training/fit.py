"""Fit the factors of `Practice` on measured iterations: bounded least squares over the analytic terms.

The time of a step is linear in almost every factor (the host's side is a smooth maximum), so a handful of measured runs
says much. Each factor is non-negative and starts from what is known already: the prior counts as some measured rows
that allow it to be off by a third. A row that no factor explains pulls less the farther it lies off (soft L1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares

from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.step import Parts, settle
from fleetcast.cost.training.system import Practice

Array = NDArray[np.float64]
FACTORS = (
    "gemm", "attention", "fused", "flash", "narrow", "vector", "eager", "head", "tensor", "pipeline", "data",
    "optimizer", "kernel", "pace", "gap", "iteration",
)  # fmt: skip
SCALE = 0.05
"""Relative error up to which a row pulls in full."""
DOUBT = 0.33
"""Relative standard deviation of the prior on each factor."""


@dataclass(frozen=True)
class Calibration:
    """What a fit found.

    Attributes:
        practice: the factors, with the spread of the rows they were fitted on.
        interval: of each fitted factor, low and high at 90 %.
        residual: predicted over measured, less one, of every row.
    """

    practice: Practice
    interval: dict[str, tuple[float, float]]
    residual: Array


def fit(
    parts: Parts, plans: Plans, measured: ArrayLike, prior: Practice, names: Sequence[str] = FACTORS, *,
    weight: float = 5.0, alike: bool = False,
) -> Calibration:  # fmt: skip
    """Returns the factors ``names`` fitted on measured iterations.

    Args:
        parts: of the measured plans, see `cost.training.step.parts`; rows of several networks may be joined (`join`).
        plans: the same rows.
        measured: s of their iterations.
        prior: what is known already; what is not in ``names`` keeps its value.
        names: factors to fit, of ``FACTORS``.
        weight: measured rows that the prior counts as.
        alike: where the median row is slower than the prior says, so is everything until rows tell kernels and messages
            apart: for machines of which nothing else is known.

    Raises:
        ValueError: no rows, or a time that is not positive.
    """
    seconds = np.asarray(measured, dtype=np.float64)
    if seconds.size == 0 or not np.all(seconds > 0):
        raise ValueError("a fit wants at least one measured iteration, each of them above 0 s")
    pace = float(np.median(seconds / settle(parts, plans, prior)["total"])) if alike else 1.0
    start = pace * np.array([float(getattr(prior, name)) for name in names])
    scale = np.where(start > 0, start, 1e-3)

    def practice(x: Array) -> Practice:
        found: dict[str, Any] = {n: float(v) for n, v in zip(names, x * scale, strict=True)}
        return replace(prior, **found)

    def residual(x: Array) -> Array:
        return np.asarray(settle(parts, plans, practice(x))["total"] / seconds - 1.0)

    def objective(x: Array) -> Array:
        r = residual(x) / SCALE
        soft = np.sign(r) * np.sqrt(2.0 * (np.sqrt(1.0 + r * r) - 1.0))
        return np.concatenate([soft, np.sqrt(weight / len(names)) * (x - start / scale) / DOUBT])

    found = least_squares(objective, np.maximum(start / scale, 1e-6), bounds=(0.0, np.inf))
    left = residual(found.x)
    log = np.log1p(left)
    spread = float(np.sqrt(np.mean((log - np.median(log)) ** 2)))
    best = replace(practice(found.x), spread=max(spread, 0.01))
    covariance = np.linalg.pinv(found.jac.T @ found.jac)
    half = 1.645 * np.sqrt(np.maximum(np.diag(covariance), 0.0)) * max(spread / SCALE, 0.2) * scale
    value = found.x * scale
    interval = {
        n: (max(float(v - w), 0.0), float(v + w)) for n, v, w in zip(names, value, half, strict=True)
    }  # fmt: skip
    return Calibration(best, interval, left)


def join(rows: Sequence[tuple[Parts, Plans]]) -> tuple[Parts, Plans]:
    """Returns the parts and plans of several networks or systems as one table, in order."""
    if not rows:
        raise ValueError("nothing to join")

    def stack(values: Sequence[Any]) -> Any:
        if isinstance(values[0], dict):
            return {k: np.concatenate([v[k] for v in values]) for k in values[0]}
        return np.concatenate(values)

    parts = Parts(**{f.name: stack([getattr(p, f.name) for p, _ in rows]) for f in fields(Parts)})
    return parts, Plans(**{f.name: stack([getattr(q, f.name) for _, q in rows]) for f in fields(Plans)})


def take(parts: Parts, plans: Plans, index: ArrayLike) -> tuple[Parts, Plans]:
    """Returns some rows of joined parts and plans."""
    at = np.asarray(index)

    def some(value: Any) -> Any:
        return {k: v[at] for k, v in value.items()} if isinstance(value, dict) else value[at]

    return Parts(**{f.name: some(getattr(parts, f.name)) for f in fields(Parts)}), plans.take(at)
