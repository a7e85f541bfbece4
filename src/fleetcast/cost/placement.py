"""Which rank holds which experts, and what the busiest of them has to do when a router prefers some experts.

T tokens choose independently. The tokens on expert e are binomial(T, chosen_e), so the experts that are touched,
``sum 1 - (1 - chosen_e)^T``, and the mean rows of a rank are exact. The busiest rank is the largest of several random
counts. The choices of one token exclude each other; conditional Poisson sampling (Hajek 1964) has that as independent
choices of every expert, given that they are ``top_k``. For the largest of ranks the condition cancels where ranks are
alike, so each rank's count is a sum of independent binomials: its mean, variance and skewness are sums, its
distribution that gamma's (Wilson and Hilferty 1931), and the largest is ``int 1 - prod F_r``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fleetcast.scenario.workload.loads import ExpertLoad

Array = NDArray[np.float64]

POINTS: Array = np.unique(np.round(2.0 ** (np.arange(0, 14 * 4 + 1) / 4)))
"""Token counts that are computed; between them rows per token and experts are read off over log tokens."""
_LOGS: Array = np.log(POINTS)
NODES = 24
"""Of the integral over the largest count: 1 % off at worst, where one expert takes nearly all."""
DECODE = (16, 64, 256)
"""Tokens of an iteration for which a note states the imbalance."""


@dataclass(frozen=True, eq=False)
class Busiest:
    """What the busiest expert-parallel rank does, at each of ``POINTS`` tokens.

    Attributes:
        rows: float64[layers, points], rows of the busiest rank per token; all ranks together have ``top_k``.
        touched: float64[layers, points], experts touched on the rank that touches most.
        read: float64[points], experts touched on a rank, mean over ranks and layers.
        mean: rows of a rank per token, ``top_k / ranks``.
    """

    rows: Array
    touched: Array
    read: Array
    mean: float

    def at(self, tokens: Array) -> tuple[Array, Array, Array]:
        """Returns (rows of the busiest rank, experts it touches, experts a rank touches in the mean).

        Args:
            tokens: float64[n], from 0.

        Returns:
            float64[layers, n] twice and float64[n].
        """
        some = np.log(np.maximum(tokens, 1.0))
        rows, touched = (np.array([np.interp(some, _LOGS, row) for row in x]) for x in (self.rows, self.touched))
        return rows * tokens, np.where(tokens > 0, touched, 0.0), np.interp(some, _LOGS, self.read) * (tokens > 0)

    def imbalance(self, tokens: float) -> float:
        """Returns rows of the busiest rank over the mean rank's, layers added up."""
        return float(np.mean([np.interp(np.log(tokens), _LOGS, row) for row in self.rows])) / self.mean


def placed(chosen: Array, ranks: int, placement: str) -> NDArray[np.int64]:
    """Returns the rank of each expert; every rank holds as many.

    Args:
        chosen: float64[experts], chance of each to be chosen by a token.
        ranks: divides the experts.
        placement: "contiguous" = in the order of the checkpoint, as engines do; "balanced" = the most popular first,
            each to the least loaded rank that has room (longest processing time first), as load balancers do.
    """
    room = len(chosen) // ranks
    if placement == "contiguous":
        return np.arange(len(chosen)) // room
    where, load, held = np.empty(len(chosen), dtype=np.int64), np.zeros(ranks), np.zeros(ranks, dtype=np.int64)
    for e in np.argsort(-chosen, kind="stable"):
        rank = int(np.argmin(np.where(held < room, load, np.inf)))
        where[e] = rank
        load[rank] += chosen[e]
        held[rank] += 1
    return where


@lru_cache(maxsize=128)
def busiest_rank(load: ExpertLoad, ranks: int, placement: str = "contiguous") -> Busiest:
    """Returns what the busiest of ``ranks`` ranks does under a load."""
    found = [busiest_of(row, ranks, placed(row, ranks, placement), POINTS) for row in load.chosen]
    rows, touched, read = (np.array(x) for x in zip(*found, strict=True))
    return Busiest(rows / POINTS, touched, read.mean(axis=0), load.top_k / ranks)


def busiest_of(chosen: Array, ranks: int, where: NDArray[np.int64], tokens: Array) -> tuple[Array, Array, Array]:
    """Returns, for one layer, expectations of what a rank has to do.

    Args:
        chosen: float64[experts], chance of each to be chosen by a token.
        ranks: expert-parallel ranks.
        where: int64[experts], rank of each.
        tokens: float64[n], from 1.

    Returns:
        (rows of the busiest rank, experts touched on the rank that touches most, experts touched on a rank in the
        mean), float64[n] each.
    """
    t = tokens[:, None]
    top_k = float(chosen.sum())
    hit = -np.expm1(t * np.log1p(-np.minimum(chosen, 1.0 - 1e-12)))  # [n, experts]: touched at all
    if ranks == 1:
        return tokens * top_k, hit.sum(axis=1), hit.sum(axis=1)
    member = (where[:, None] == np.arange(ranks)).astype(np.float64)
    local = float(member.sum(axis=0).max())
    second, third = (t * (m @ member) for m in _moments(chosen))
    rows = _largest(t * (chosen @ member), second, third, tokens * min(top_k, local))
    second, third = (m @ member for m in _moments(hit))
    touched = _largest(hit @ member, second, third, np.minimum(local, tokens * top_k))
    return rows, touched, hit.sum(axis=1) / ranks


def _moments(chance: Array) -> tuple[Array, Array]:
    """Returns second and third central moments of yes-or-no variables."""
    second = chance * (1.0 - chance)
    return second, second * (1.0 - 2.0 * chance)


def _largest(mean: Array, second: Array, third: Array, most: Array) -> Array:
    """Returns the expected largest of independent variables with given central moments.

    Args:
        mean: float64[n, variables].
        second: float64[n, variables], variances.
        third: float64[n, variables].
        most: float64[n], what none exceeds.

    Returns:
        float64[n].
    """
    from scipy.special import ndtr

    sd = np.sqrt(np.maximum(second, 1e-12))
    skew = third / sd**3
    skew = np.where(np.abs(skew) < 1e-3, 1e-3, skew)
    x, weight = np.polynomial.legendre.leggauss(NODES)
    low = np.maximum((mean - 5.0 * sd).max(axis=1), 0.0)
    high = (mean + (6.0 + 3.0 * np.maximum(skew, 0.0)) * sd).max(axis=1)
    below = np.ones((len(mean), NODES))
    for r in range(mean.shape[1]):  # a variable at a time keeps this small
        m, s, g = mean[:, r, None], sd[:, r, None], skew[:, r, None]
        z = (low[:, None] + (high - low)[:, None] * (x + 1.0) / 2.0 - m) / s
        below *= ndtr(6.0 / g * (np.cbrt(np.maximum(g * z / 2.0 + 1.0, 0.0)) - 1.0) + g / 6.0)
    found = low + ((1.0 - below) * weight).sum(axis=1) * (high - low) / 2.0
    return np.asarray(np.clip(found, mean.max(axis=1), most))


def balance_notes(load: ExpertLoad, ranks: int, placement: str) -> tuple[str, ...]:
    """Returns in a sentence how uneven the ranks of a layout are, layers added up."""
    found = busiest_rank(load, ranks, placement)
    experts = load.chosen.shape[1]
    if ranks == 1:
        seen = ", ".join(f"{found.at(np.array([float(n)]))[2][0]:.0f} at {n}" for n in DECODE)
        return (f"expert load ({load.source}): of {experts} experts a layer reads {seen} tokens of an iteration",)
    uneven = ", ".join(f"{found.imbalance(n):.2f}x at {n}" for n in DECODE)
    said = f"expert load ({load.source}): the busiest of {ranks} ranks does {uneven} tokens of an iteration"
    said += f" (1x: the mean rank), experts placed {placement}"
    if placement == "balanced":
        said += " by these loads, as the engine's load balancer must be told to"
    return (said,)
