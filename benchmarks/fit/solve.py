"""Bounded least squares on log(time), and how an error is reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import least_squares

Range = tuple[float, float, float]


def fit(
    model: Callable[[dict[str, float]], np.ndarray],
    ranges: Mapping[str, Range],
    time: np.ndarray,
    weight: np.ndarray | float = 1.0,
) -> dict[str, float]:
    """Returns the coefficients that minimise the soft-L1 loss of log(model / time).

    Args:
        model: coefficients -> seconds, aligned with ``time``.
        ranges: name -> (low, start, high); the physical range is never left.
        time: measured seconds.
        weight: weight per row.
    """
    names = list(ranges)
    low, start, high = (np.array([ranges[n][i] for n in names]) for i in range(3))
    goal = np.log(time)

    def unpack(y: np.ndarray) -> dict[str, float]:
        return dict(zip(names, (low + (high - low) / (1.0 + np.exp(-y))).tolist(), strict=True))

    def residual(y: np.ndarray) -> np.ndarray:
        return np.asarray((np.log(model(unpack(y))) - goal) * weight)

    share = np.clip((start - low) / (high - low), 1e-6, 1 - 1e-6)
    found = least_squares(residual, np.log(share / (1 - share)), loss="soft_l1", f_scale=0.1, max_nfev=60)
    return unpack(found.x)


def error(predicted: np.ndarray, time: np.ndarray) -> dict[str, Any]:
    """Returns median and 90th percentile of |relative error|, bias, log spread, count."""
    ratio = np.asarray(predicted) / np.asarray(time)
    off = np.abs(ratio - 1.0)
    log = np.log(ratio)
    return {
        "median": round(float(np.median(off)), 4),
        "p90": round(float(np.percentile(off, 90)), 4),
        "bias": round(float(np.median(ratio) - 1.0), 4),
        "spread": round(float(np.percentile(np.abs(log), 68)), 4),
        "n": len(ratio),
    }


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns coefficients with 4 significant digits, integers kept."""
    return {k: v if isinstance(v, int) else float(f"{v:.4g}") for k, v in row.items()}


def mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns mean coefficients: geometric where all are positive, else arithmetic."""
    out: dict[str, Any] = {}
    for key in rows[0]:
        values = np.array([row[key] for row in rows if key in row], dtype=float)
        if all(isinstance(row[key], int) for row in rows):
            out[key] = int(np.median(values))
        else:
            small = bool((values <= 1e-12).any())
            out[key] = float(values.mean() if small else np.exp(np.log(values).mean()))
    return out
