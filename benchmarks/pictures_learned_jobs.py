"""The picture of DL2 learning: slots to completion over CPU time, beside its teacher and Optimus."""

from __future__ import annotations

import numpy as np

from benchmarks.learned_world import WEIGHTS, training
from fleetcast.view import svg

TEACHER, OPTIMUS = 38.4, 27.3
"""Mean slots of DRF and of Optimus on DL2's own lists; training is on others of the same kind."""
Shown = dict[str, list[tuple[float, float]]]


def learning() -> tuple[list[str], svg.Scale, svg.Scale, Shown]:
    """Returns slots to completion of lists that ended in each tenth of the rounds, mean of five seeds."""
    seeds = [seed for seed in range(5) if (WEIGHTS / f"drf-{seed}.npz").exists()]
    curves, seconds = zip(*(training("drf", seed) for seed in seeds), strict=True)
    rounds, spent = len(curves[0]), float(np.mean(seconds))
    every, points = 20, []
    for at in range(0, rounds - every + 1, every):
        part = np.concatenate([curve[at : at + every] for curve in curves])
        if np.isfinite(part).sum() >= 5:
            points.append((spent * (at + every / 2) / rounds, float(np.nanmean(part))))
    ends = [0.0, spent]
    shown = {
        "DRF, the teacher": [(t, TEACHER) for t in ends], "Optimus": [(t, OPTIMUS) for t in ends],
        "DL2 while it learns": points,
    }  # fmt: skip
    x, y = svg.Scale(0.0, spent, 60, 560), svg.Scale(20.0, 42.0, 262, 30)
    return svg.axes(x, y, "", "", "CPU-seconds of learning", "slots to completion"), x, y, shown
