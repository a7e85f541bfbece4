"""Fits the widths of the 80 % intervals on held-out residuals, and scores intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from fleetcast.cost.intervals import FEATURES

Floats = np.ndarray
MISS = 0.2
"""Share of values that may lie outside."""


def score(off: Floats, width: Floats) -> Floats:
    """Returns the interval score (Gneiting and Raftery, 2007) of log(measured / forecast) for a symmetric interval."""
    return 2.0 * width + (2.0 / MISS) * np.maximum(np.abs(off) - width, 0.0)


def fit_widths(found: Sequence[dict[str, float]], off: Floats, weight: Floats) -> dict[str, float]:
    """Returns non-negative weights of the features that minimise the mean interval score.

    Args:
        found: features of every row.
        off: log(measured / forecast) of every row, held out.
        weight: of every row.
    """
    x = np.array([[f[name] for name in FEATURES] for f in found])
    used = x.any(axis=0)

    def loss(w: Floats) -> float:
        return float(np.average(score(off, x @ np.abs(w)), weights=weight))

    best = None
    for start in (0.05, 0.2, 0.5):
        begin = np.where(used, start * np.array([1.0] + [0.5] * (len(FEATURES) - 1)), 0.0)
        answer = minimize(loss, begin, method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-4, "fatol": 1e-6})
        best = answer if best is None or answer.fun < best.fun else best
    assert best is not None
    return {name: float(abs(v)) if u else 0.0 for name, v, u in zip(FEATURES, best.x, used, strict=True)}


def widths(weights: dict[str, float], found: Sequence[dict[str, float]]) -> Floats:
    """Returns the half-width of every row."""
    return np.array([sum(weights[name] * f[name] for name in FEATURES) for f in found])
