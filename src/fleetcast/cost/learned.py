"""Seconds of a structure on a device nobody measured, from a few probes there and what known devices teach.

Seconds add up over what a structure consists of (calls, operators, bytes), and devices differ in what each piece
costs. So a device is a vector of costs, known devices say how such vectors vary, and a handful of probes places the new
one among them: a Gaussian process over structures whose mean and kernel are learned from the known devices,

    y(x) = s (w . x + e),   w ~ N(mean, covariance + tau^2 D),   e ~ N(0, (noise w0 . x)^2)

with an unknown overall speed s. What cannot be known beforehand is averaged by its evidence on the probes themselves:
how far the device departs from the known ones (``TAUS``), how noisy it is (``NOISES``), which view of the structure it
follows, and which one or two probes were disturbed (``DISTURBED``: their error is ``WILD`` times as wide). Intervals
follow from the same average.

The task and its protocol: Lee, Lee, Chong, Hwang, "Hardware-adaptive efficient latency prediction for NAS via
meta-learning" (HELP), NeurIPS 2021. HELP adapts a neural network (`learning.meta`); here is a Gaussian process
(Rasmussen, Williams, 2006), in seconds and not their logarithm, because seconds are what adds up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

TAUS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""How far a device's costs may lie off the known devices' span, as shares of a typical structure's seconds."""
NOISES = (0.003, 0.01, 0.02, 0.04, 0.08, 0.16)
"""Relative error of one measurement."""
DISTURBED, WILD = 0.05, 8.0
"""Share of probes taken as disturbed, and how many times as wide their error is."""
MOST_PROBES, PAIRS = 64, 24
"""Largest number of probes; the largest at which two disturbed ones are considered."""
_FLOOR = 0.2  # noise is relative to the expected seconds, but never to less than this share of a typical structure's
_Z80 = 1.2815515655446004


@dataclass(frozen=True, slots=True)
class View:
    """What known devices teach about one way of describing structures with ``p`` numbers.

    Attributes:
        mean: (p,) costs, in units of a typical structure's seconds.
        covariance: (p, p) of the known devices' costs.
        size: (p,) root mean square of each number over the structures seen.
    """

    mean: Array
    covariance: Array
    size: Array

    def prior(self, tau: float) -> Array:
        """Returns the (p, p) covariance of costs for devices that depart by ``tau``."""
        return np.asarray(self.covariance + np.diag((tau / self.size) ** 2))


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds per structure, arrays of one shape: mean and the ends of the 80 % interval of a measurement."""

    mean: Array
    low: Array
    high: Array


@dataclass(frozen=True, slots=True)
class Device:
    """A device placed by its probes.

    Attributes:
        costs: per view: (p,) mean costs (s per unit), times the view's weight.
        moments: per view: (p, p) second moments of the costs, times the view's weight.
        noise: relative error of one measurement.
        doubt: per probe, the probability that it was disturbed.
    """

    costs: tuple[Array, ...]
    moments: tuple[Array, ...]
    noise: float
    doubt: Array

    def predict(self, views: Sequence[ArrayLike]) -> Prediction:
        """Returns the seconds of structures.

        Args:
            views: per view: (n, p), as the family was learned with.
        """
        rows = _views(views, [len(c) for c in self.costs])
        mean = sum((x @ c for x, c in zip(rows, self.costs, strict=True)), np.zeros(len(rows[0])))
        square = sum(
            (np.einsum("ij,jk,ik->i", x, m, x) for x, m in zip(rows, self.moments, strict=True)), np.zeros(len(rows[0]))
        )
        mean = np.maximum(mean, 0.01 * np.sqrt(square))  # costs that came out below zero forecast no negative time
        relative = np.maximum(square / mean**2 - 1.0, 0.0) + self.noise**2
        width = np.exp(_Z80 * np.sqrt(np.log1p(relative)))
        return Prediction(mean, mean / width, mean * width)


@dataclass(frozen=True, slots=True)
class Family:
    """The known devices, condensed: where a new one is looked for."""

    views: tuple[View, ...]

    def adapt(self, views: Sequence[ArrayLike], seconds: ArrayLike) -> Device:
        """Returns the device on which the probes took ``seconds``.

        Args:
            views: per view: (n, p) of the probes.
            seconds: (n,), each > 0.

        Raises:
            ValueError: no probes, more than ``MOST_PROBES``, or times that are not positive.
        """
        rows = _views(views, [len(v.mean) for v in self.views])
        y = np.asarray(seconds, dtype=np.float64)
        if y.shape != (len(rows[0]),) or not 1 <= len(y) <= MOST_PROBES:
            raise ValueError(f"{y.size} probe times for {len(rows[0])} probes; 1 to {MOST_PROBES} of each are needed")
        if not np.all(np.isfinite(y) & (y > 0)):
            raise ValueError(f"probe times must be positive, got {y.min()}")
        wild, belief = _disturbances(len(y))
        parts = [
            _weigh(x, y, view, tau, wild, belief)
            for x, view in zip(rows, self.views, strict=True)
            for tau in TAUS
        ]  # fmt: skip
        top = max(float(part.evidence.max()) for part in parts)
        total = sum(float(np.exp(part.evidence - top).sum()) for part in parts)
        costs = [np.zeros(len(v.mean)) for v in self.views]
        moments = [np.zeros((len(v.mean), len(v.mean))) for v in self.views]
        noise, doubt = 0.0, np.zeros(len(y))
        for i, part in enumerate(parts):
            share = np.exp(part.evidence - top) / total  # (noises, hypotheses)
            k = i // len(TAUS)
            costs[k] += np.einsum("ab,abp->p", share, part.costs)
            moments[k] += np.einsum("ab,abp,abq->pq", share, part.costs, part.costs)
            moments[k] += np.einsum("ab,abpq->pq", share * part.speed**2, part.left)
            noise += float(share.sum(1) @ np.square(NOISES))
            doubt += share.sum(0) @ (wild > 1.0)
        return Device(tuple(costs), tuple(moments), float(np.sqrt(noise)), doubt)

    def choose(self, views: Sequence[ArrayLike], count: int, *, tau: float = 0.1, noise: float = 0.16) -> list[int]:
        """Returns which of a pool of structures to probe, most telling first.

        Greedy: each probe is the one that leaves the smallest mean relative variance over the pool, summed over the
        views. It reads no measurement of the new device, so the probes can be made in one go.

        Args:
            views: per view: (n, p) of the pool.
            count: how many, at most n.
            tau: departure from the known devices to be ready for.
            noise: relative error of a measurement to be ready for.
        """
        rows = _views(views, [len(v.mean) for v in self.views])
        if not 1 <= count <= len(rows[0]):
            raise ValueError(f"cannot choose {count} probes from a pool of {len(rows[0])}")
        scaled = []
        for x, view in zip(rows, self.views, strict=True):
            expected = np.maximum(x @ view.mean, _FLOOR)
            scaled.append((x / expected[:, None], view.prior(tau)))
        chosen: list[int] = []
        for _ in range(count):
            gain = np.zeros(len(rows[0]))
            for x, prior in scaled:
                spread = x @ prior @ x.T
                gain += (spread**2).mean(0) / (np.diagonal(spread) + noise**2)
            gain[chosen] = -1.0
            best = int(gain.argmax())
            chosen.append(best)
            scaled = [(x, _after(prior, x[best], noise)) for x, prior in scaled]
        return chosen


def learn(views: Sequence[ArrayLike], seconds: ArrayLike) -> Family:
    """Returns what known devices teach.

    Args:
        views: per view: (n, p) of the structures; several views of the same structures are weighed by evidence.
        seconds: (devices, n), NaN where a structure was not measured on a device; at least two devices.

    Raises:
        ValueError: fewer than two devices, or fewer measurements of one than it has costs.
    """
    y = np.asarray(seconds, dtype=np.float64)
    made = []
    for x in _views(views):
        if y.ndim != 2 or y.shape[1] != len(x):
            raise ValueError(f"seconds must be (devices, {len(x)}), got {y.shape}")
        costs = []
        for row in y:
            known = np.isfinite(row)
            if known.sum() < x.shape[1]:
                raise ValueError(f"{known.sum()} measurements of a device cannot give {x.shape[1]} costs")
            cost = _costs(x[known], row[known])
            costs.append(cost / (x @ cost).mean())
        made.append(_view(np.array(costs), np.sqrt((x**2).mean(0))))
    return Family(tuple(made))


def from_costs(costs: ArrayLike, size: ArrayLike) -> Family:
    """Returns the family of devices whose costs are known already.

    Args:
        costs: (devices, p), s per unit; at least two devices.
        size: (p,) units in a typical structure.
    """
    per, typical = np.asarray(costs, dtype=np.float64), np.asarray(size, dtype=np.float64)
    return Family((_view(per / (per @ typical / len(typical))[:, None], typical),))


def op_counts(
    edges: Iterable[tuple[object, object, str]], kinds: Sequence[str], source: object, sink: object
) -> tuple[list[int], list[int]]:
    """Returns how many operators of each kind a graph has, and how many lie on a way from ``source`` to ``sink``.

    The second is what a compiler leaves that removes dead code.

    Args:
        edges: (from, to, kind of the operator on it).
        kinds: which kinds count as operators; an edge of any other kind carries nothing.
        source: node of the input.
        sink: node of the output.
    """
    real = [(a, b, kind) for a, b, kind in edges if kind in kinds]
    ahead, behind = {source}, {sink}
    for _ in real:
        ahead |= {b for a, b, _ in real if a in ahead}
        behind |= {a for a, b, _ in real if b in behind}
    live = [kind for a, b, kind in real if a in ahead and b in behind]
    return [sum(k == kind for _, _, k in real) for kind in kinds], [live.count(kind) for kind in kinds]


@dataclass(frozen=True, slots=True)
class _Part:
    """One view at one tau, over (noises, hypotheses)."""

    evidence: Array
    costs: Array
    left: Array
    speed: Array


def _weigh(x: Array, y: Array, view: View, tau: float, wild: Array, belief: Array) -> _Part:
    """Weighs every noise level and every hypothesis about disturbed probes."""
    n, prior, expected = len(y), view.prior(tau), x @ view.mean
    loads = x @ prior
    error = np.multiply.outer(np.square(NOISES), np.square(np.maximum(expected, _FLOOR)))[:, None, :] * wild**2
    kernel = loads @ x.T + error[..., None] * np.eye(n)  # (noises, hypotheses, n, n)
    inverse = np.linalg.inv(kernel)
    iy, im = inverse @ y, inverse @ expected
    # y / s - expected is Gaussian; the speed that makes it likeliest solves a quadratic.
    a, b = iy @ y, iy @ expected
    per = (b + np.sqrt(b * b + 4.0 * a * n)) / (2.0 * a)  # 1 / s
    off = per[..., None] * y - expected
    alpha = per[..., None] * iy - im
    half = np.linalg.slogdet(kernel)[1] / 2.0
    evidence = n * np.log(per) - (off * alpha).sum(-1) / 2.0 - half + belief
    costs = (view.mean + alpha @ loads) / per[..., None]
    left = prior - np.einsum("np,abnm,mq->abpq", loads, inverse, loads)
    return _Part(evidence, costs, left, 1.0 / per)


def _disturbances(n: int) -> tuple[Array, Array]:
    """Returns per hypothesis the factor on each probe's error, (h, n), and the log of its prior probability, (h,)."""
    most = 2 if n <= PAIRS else 1
    sets: list[tuple[int, ...]] = [c for k in range(min(most, n - 1) + 1) for c in combinations(range(n), k)]
    wild, size = np.ones((len(sets), n)), np.array([len(s) for s in sets])
    for i, who in enumerate(sets):
        wild[i, list(who)] = WILD
    return wild, np.asarray(size * np.log(DISTURBED) + (n - size) * np.log(1.0 - DISTURBED))


def _costs(x: Array, y: Array) -> Array:
    """Least squares with relative errors: weights follow the fit, a few rounds suffice."""
    weight = np.full(len(y), 1.0 / y.mean())
    cost = np.zeros(x.shape[1])
    for _ in range(4):
        scaled = x * weight[:, None]
        cost = np.linalg.solve(scaled.T @ scaled + 1e-3 * np.eye(x.shape[1]), scaled.T @ (y * weight))
        weight = 1.0 / np.maximum(x @ cost, _FLOOR * y.mean())
    return cost


def _view(costs: Array, size: Array) -> View:
    if len(costs) < 2:
        raise ValueError("one known device says nothing about how devices vary: at least two are needed")
    return View(costs.mean(0), np.cov(costs.T), np.maximum(size, 1e-12))


def _after(prior: Array, x: Array, noise: float) -> Array:
    """The covariance of costs once a probe ``x`` with relative error ``noise`` is known."""
    load = prior @ x
    return np.asarray(prior - np.outer(load, load) / (x @ load + noise**2))


def _views(views: Sequence[ArrayLike], widths: Sequence[int] | None = None) -> list[Array]:
    rows = [np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in views]
    found = [x.shape[1] for x in rows]
    if not rows or len({len(x) for x in rows}) > 1 or (widths is not None and found != list(widths)):
        raise ValueError(f"views must be {widths or 'arrays'} wide and equally long, got {[x.shape for x in rows]}")
    return rows
