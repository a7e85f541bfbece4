"""The predictor: Gaussian processes over what knobs look like, a few of them with different ideas of smoothness.

Each has a length for every knob, found by its likelihood: a knob that changes nothing gets a long one. The members
differ in where that search starts; their mean is the prediction, and what they disagree on is added to their own doubt.
A hundred points are few for trees or networks, and numpy and scipy are all that this needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

Floats = NDArray[np.float64]
ROOT5 = float(np.sqrt(5.0))
JITTER = 1e-8


@dataclass(frozen=True)
class Member:
    """One Gaussian process, fitted.

    Attributes:
        x, y: what it has seen, f8[n, columns] and f8[n].
        theta: log of: length of each knob, then of the amplitude and of the noise.
        groups: of each column of x the knob that it is of.
        factor: Cholesky factor of the covariance.
        weights: of each point.
        mean: of y.
    """

    x: Floats
    y: Floats
    theta: Floats
    groups: NDArray[np.int64]
    factor: Floats
    weights: Floats
    mean: float

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Returns (mean, standard deviation) of each row."""
        k, _ = _kernel(x, self.x, self.theta, self.groups)
        mean = self.mean + k @ self.weights
        part = cho_solve((self.factor, True), k.T)
        variance = np.exp(2.0 * self.theta[-2]) - np.einsum("ij,ji->i", k, part)
        return mean, np.sqrt(np.maximum(variance, 1e-12))


def _kernel(a: Floats, b: Floats, theta: Floats, groups: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Returns (Matern 5/2 covariance, scaled distance) of all pairs."""
    scale = np.exp(-theta[groups])
    u, v = a * scale, b * scale
    square = np.maximum((u * u).sum(1)[:, None] + (v * v).sum(1)[None, :] - 2.0 * u @ v.T, 0.0)
    r = ROOT5 * np.sqrt(square)
    return np.exp(2.0 * theta[-2] - r) * (1.0 + r + r * r / 3.0), r


def _loss(theta: Floats, x: Floats, y: Floats, groups: NDArray[np.int64], squares: Floats) -> tuple[float, Floats]:
    """Returns (negative log posterior, its gradient); ``squares``: each knob's squared distances, f8[knobs, n, n]."""
    knobs, n = len(squares), len(y)
    wide = np.exp(-2.0 * theta[:knobs])
    r = ROOT5 * np.sqrt(np.maximum(np.tensordot(wide, squares, axes=1), 0.0))
    amplitude, noise = np.exp(2.0 * theta[-2]), np.exp(2.0 * theta[-1])
    fall = amplitude * np.exp(-r)
    k = fall * (1.0 + r + r * r / 3.0)
    try:
        factor, _ = cho_factor(k + (noise + JITTER) * np.eye(n), lower=True)
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(theta)
    weights = cho_solve((factor, True), y)
    value = 0.5 * float(y @ weights) + float(np.log(np.diag(factor)).sum())
    slope = np.outer(weights, weights) - cho_solve((factor, True), np.eye(n))
    # d Matern52 / d log length of a knob = 5/3 (1 + r) exp(-r) x its part of the squared distance
    common = slope * (fall * (1.0 + r) * (5.0 / 3.0))
    gradient = np.empty_like(theta)
    gradient[:knobs] = -0.5 * np.tensordot(squares, common, axes=([1, 2], [0, 1])) * wide
    gradient[-2] = -0.5 * float((slope * k).sum()) * 2.0
    gradient[-1] = -0.5 * float(np.trace(slope)) * 2.0 * noise
    for at, (centre, width) in _priors(knobs):
        value += 0.5 * float((((theta[at] - centre) / width) ** 2).sum())
        gradient[at] += (theta[at] - centre) / width**2
    return value, gradient


def _priors(knobs: int) -> list[tuple[slice, tuple[float, float]]]:
    """Returns (which, (centre, width)) of the log-normal beliefs: lengths near the knobs' number, little noise."""
    return [
        (slice(0, knobs), (0.5 * np.log(knobs), 1.2)), (slice(-2, -1), (0.0, 1.0)),
        (slice(-1, None), (np.log(0.03), 1.0)),
    ]  # fmt: skip


def fit(x: Floats, y: Floats, groups: NDArray[np.int64], start: Floats | None, steps: int = 60) -> Member:
    """Returns a member fitted on points, its search of lengths started at ``start``.

    Args:
        x: f8[n, columns].
        y: f8[n], scaled to about 1.
        groups: of each column the knob that it is of.
        start: as `Member.theta`; None = what is believed before any point.
        steps: of the search; 0 = keep ``start``.
    """
    knobs = int(groups.max()) + 1
    theta = _believed(knobs) if start is None else start
    mean = float(np.median(y)) if len(y) else 0.0
    if steps and len(y) > 2:
        squares = np.zeros((knobs, len(y), len(y)))
        for column, knob in enumerate(groups):
            squares[knob] += (x[:, None, column] - x[None, :, column]) ** 2
        found = minimize(
            _loss, theta, args=(x, y - mean, groups, squares), jac=True, method="L-BFGS-B",
            bounds=[(-3.0, 6.0)] * knobs + [(-3.0, 3.0), (-6.0, 0.0)], options={"maxiter": steps},
        )  # fmt: skip
        theta = np.asarray(found.x)
    k, _ = _kernel(x, x, theta, groups)
    factor, _ = cho_factor(k + (np.exp(2.0 * theta[-1]) + JITTER) * np.eye(len(y)), lower=True)
    return Member(x, y, theta, groups, factor, cho_solve((factor, True), y - mean), mean)


def _believed(knobs: int) -> Floats:
    return np.concatenate([np.full(knobs, 0.5 * np.log(knobs)), [0.0, np.log(0.03)]])


@dataclass(frozen=True)
class Ensemble:
    """Members that answer together."""

    members: tuple[Member, ...]

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Returns (mean, standard deviation) of each row: the members' doubt and their disagreement."""
        told = [m.predict(x) for m in self.members]
        means = np.stack([mean for mean, _ in told])
        doubt = np.stack([sd for _, sd in told])
        return means.mean(0), np.sqrt((doubt**2).mean(0) + means.var(0))


def ensemble(
    x: Floats, y: Floats, groups: NDArray[np.int64], rng: np.random.Generator, members: int = 3
) -> Ensemble:  # fmt: skip
    """Returns members fitted on the same points, their lengths searched from what is believed and from near it.

    Args:
        x: f8[n, columns].
        y: f8[n], scaled to about 1.
        groups: of each column the knob that it is of.
        rng: for the starts.
        members: how many.
    """
    knobs = int(groups.max()) + 1
    starts = [_believed(knobs)]
    starts += [starts[0] + np.append(rng.normal(0.0, 0.7, knobs), [0.0, 0.0]) for _ in range(members - 1)]
    return Ensemble(tuple(fit(x, y, groups, start) for start in starts))
