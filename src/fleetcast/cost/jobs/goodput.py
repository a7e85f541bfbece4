"""Step times and the worth of samples: the formulas of Pollux (Qiao et al., OSDI 2021), which Sia (SOSP 2023) shares.

    compute  Tc = a_c + b_c m              m samples on a device at a time
    network  Tn = a + b max(n - 2, 0)      n devices; a, b of links between nodes if there are several; 0 for one device
    step     T = s Tc + (Tc^g + Tn^g)^(1/g)    s passes that only accumulate; g in [1, 10]: how much overlaps
    worth    E = (v + q) / (v + q x)       of a sample in a batch x times the reference batch; q = squared norm of the
                                           gradient, v = its variance in the reference batch
    goodput    = n m (s + 1) / T * E

All functions take and return arrays that broadcast.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike, NDArray


class Step(NamedTuple):
    """Coefficients of a step (s, and s per sample or device).

    Attributes:
        compute: a_c.
        sample: b_c.
        far: a between nodes.
        far_device: b between nodes.
        near: a within a node.
        near_device: b within a node.
        overlap: g, 1 = none, 10 = nearly all.
    """

    compute: float
    sample: float
    far: float
    far_device: float
    near: float
    near_device: float
    overlap: float


def network(step: Step, devices: ArrayLike, nodes: ArrayLike) -> NDArray[np.float64]:
    """Returns seconds of the all-reduce of gradients."""
    n, k = np.asarray(devices), np.asarray(nodes)
    more = np.maximum(n - 2, 0)
    within = np.where(n > 1, step.near + step.near_device * more, 0.0)
    return np.where(k > 1, step.far + step.far_device * more, within)


def times(
    step: Step, devices: ArrayLike, nodes: ArrayLike, batch: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns seconds of a pass that only accumulates and of one that also exchanges; ``batch`` is each device's."""
    compute = step.compute + step.sample * np.asarray(batch, float)
    exchange = network(step, devices, nodes)
    longest = np.maximum(compute, exchange)  # the norm of small numbers to a large power would vanish
    norm = (compute / longest) ** step.overlap + (exchange / longest) ** step.overlap
    return compute, longest * norm ** (1.0 / step.overlap)


def worth(square: ArrayLike, variance: ArrayLike, scale: ArrayLike) -> NDArray[np.float64]:
    """Returns what a sample in a batch ``scale`` times the reference is worth against one in the reference."""
    q, v, x = (np.asarray(a, float) for a in (square, variance, scale))
    return np.asarray((v + q) / (v + q * x))


def fit(
    devices: NDArray[np.int64], nodes: NDArray[np.int64], batch: NDArray[np.float64], compute: NDArray[np.float64],
    step: NDArray[np.float64],
) -> Step:  # fmt: skip
    """Returns the coefficients that make the squared errors of log times least, of passes and of whole steps (s).

    What was not measured (links between nodes, say) is taken as bad as what was: far links at least as slow as near
    ones.
    """
    slope, offset = (
        np.polyfit(batch, compute, 1)
        if len(set(batch)) > 1
        else (compute.mean() / 2 / batch.mean(), compute.mean() / 2)
    )
    exposed = np.maximum(step - compute, 1e-5)
    start = np.log([max(offset, 1e-4), max(slope, 1e-7), exposed.mean(), 1e-4, exposed.mean(), 1e-4])

    def unpack(x: NDArray[np.float64]) -> Step:
        c = np.exp(x[:6])
        a, b, far, far_device, near, near_device = (float(v) for v in c)
        return Step(a, b, far, far_device, near, near_device, 1.0 + 9.0 / (1.0 + float(np.exp(-x[6]))))

    def error(x: NDArray[np.float64]) -> NDArray[np.float64]:
        accumulate, whole = times(unpack(x), devices, nodes, batch)
        prior = 1e-2 * (x[6] + 2.0), 1e-2 * (x[3] - x[2] + 3.0), 1e-2 * (x[5] - x[4] + 3.0)
        return np.concatenate([np.log(accumulate / compute), np.log(whole / step), prior])

    bounds = [-20.0] * 6 + [-8.0], [5.0] * 6 + [8.0]
    found = scipy.optimize.least_squares(error, np.append(np.clip(start, -19, 4), -2.0), bounds=bounds, max_nfev=200)
    best = unpack(found.x)
    if not (nodes > 1).any():
        best = best._replace(far=1.1 * best.near, far_device=1.1 * best.near_device)
    return best
