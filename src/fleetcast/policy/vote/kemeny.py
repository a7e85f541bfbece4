"""Kemeny's median (1959): the ranking with the fewest pairs ordered against a ballot, over all ballots.

Where each alternative of one set beats each of another one to one, the first set comes first in every such ranking
(Truchon's extended Condorcet criterion, recalled). So alternatives fall into components, each ordered on its own:
exactly, over all subsets, `g(S) = min over x not in S of cost(x above the rest) + g(S + x)`, which takes 2^m m steps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.policy.vote.metrics import Orders, preferred

LARGEST = 16
"""Alternatives of a component up to which all subsets are gone through."""


class Kemeny:
    """Takes a ranking with the least total Kendall distance to the ballots.

    An alternative that beats every other one to one comes first. Of rankings that are equally near the first by the
    list of alternatives is taken.
    """

    kind = "kemeny"

    def decide(self, ballots: Orders) -> Orders:
        """Returns the ranking int[m] of ballots int[n, m].

        Raises:
            SpecError: more than `LARGEST` alternatives beat each other in circles.
        """
        wins = preferred(ballots)
        parts = components(wins)
        large = max(len(part) for part in parts)
        if large > LARGEST:
            raise SpecError(
                "rule", f"kemeny has {large} plans to order that beat each other in circles",
                limit=f"up to {LARGEST} without a solver", hint="Choose borda or footrule, or vote on fewer plans",
            )  # fmt: skip
        return np.concatenate([part[best(wins[np.ix_(part, part)])[0]] for part in parts])


def components(wins: Orders) -> list[Orders]:
    """Returns sets of alternatives, best set first: each alternative of a set beats all of the sets after it.

    Args:
        wins: int[m, m] from `metrics.preferred`.
    """
    reach: NDArray[np.bool_] = wins >= wins.T
    for k in range(len(wins)):
        reach |= reach[:, k : k + 1] & reach[k : k + 1, :]
    # A tournament's components lie in a line: those that reach more come first.
    counts = reach.sum(axis=1)
    return [np.flatnonzero(counts == c) for c in sorted(set(counts.tolist()), reverse=True)]


def best(wins: Orders) -> tuple[Orders, int, int]:
    """Returns the first ranking of the least cost, that cost, and how many rankings have it.

    Args:
        wins: int[m, m] from `metrics.preferred`; m at most `LARGEST`.
    """
    m = len(wins)
    full = (1 << m) - 1
    sets = np.arange(1 << m)
    # below[x, S]: ballots that rank a member of S above x, summed over S.
    below = np.zeros((m, 1 << m), dtype=np.int64)
    for y in range(m):
        half = 1 << y
        below[:, half : 2 * half] = below[:, :half] + wins[y][:, None]
    cost = np.full(1 << m, np.iinfo(np.int64).max // 2)
    ways = np.zeros(1 << m, dtype=np.int64)
    cost[full], ways[full] = 0, 1
    size = np.bitwise_count(sets) if hasattr(np, "bitwise_count") else np.array([int(s).bit_count() for s in sets])
    for level in range(m - 1, -1, -1):
        at = sets[size == level]
        options = np.full((m, len(at)), np.iinfo(np.int64).max // 2)
        counts = np.zeros((m, len(at)), dtype=np.int64)
        for x in range(m):
            free = (at >> x) & 1 == 0
            after = at[free] | (1 << x)
            options[x, free] = below[x, full ^ after] + cost[after]
            counts[x, free] = ways[after]
        cost[at] = options.min(axis=0)
        ways[at] = np.where(options == cost[at], counts, 0).sum(axis=0)
    order, done = [], 0
    while done != full:
        x = next(
            x for x in range(m)
            if not done >> x & 1 and below[x, full ^ (done | 1 << x)] + cost[done | 1 << x] == cost[done]
        )  # fmt: skip
        order.append(x)
        done |= 1 << x
    return np.array(order, dtype=np.int64), int(cost[0]), int(ways[0])
