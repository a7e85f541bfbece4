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
    return np.asarray(2.0 * width + (2.0 / MISS) * np.maximum(np.abs(off) - width, 0.0))


CHOSEN = {"tpot": ("base", "foreign", "old"), "ttft": ("base", "old", "quick")}
"""Features that widen each metric: those that lower the score of models they were not fitted on."""


def fit_widths(
    found: Sequence[dict[str, float]], off: Floats, weight: Floats, chosen: Sequence[str]
) -> dict[str, float]:
    """Returns non-negative weights of the features that minimise the mean interval score.

    Args:
        found: features of every row.
        off: log(measured / forecast) of every row, held out.
        weight: of every row.
        chosen: features that count.
    """
    x = np.array([[f[name] for name in chosen] for f in found])

    def loss(w: Floats) -> float:
        return float(np.average(score(off, x @ np.abs(w)), weights=weight))

    begins = [np.array([start] + [start / 2] * (len(chosen) - 1)) for start in (0.1, 0.3)]
    tries = [minimize(loss, begin, method="Nelder-Mead", options={"maxiter": 3000}) for begin in begins]
    best = np.abs(min(tries, key=lambda t: t.fun).x)
    return dict.fromkeys(FEATURES, 0.0) | dict(zip(chosen, best.tolist(), strict=True))


def widths(weights: dict[str, float], found: Sequence[dict[str, float]]) -> Floats:
    """Returns the half-width of every row."""
    return np.array([sum(weights[name] * f[name] for name in FEATURES) for f in found])
