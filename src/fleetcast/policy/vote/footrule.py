"""The footrule median: the ranking with the least total of places moved, over all ballots.

An alternative at a place costs what it is moved by, whatever the others do, so this is an assignment (Dwork, Kumar,
Naor and Sivakumar 2001, recalled). Since K <= F <= 2 K, its total by pairs is at most twice that of Kemeny's ranking.
"""

from __future__ import annotations

import numpy as np

from fleetcast.policy.vote.metrics import Orders, places, preferred


class Footrule:
    """Takes a ranking with the least total footrule distance to the ballots.

    Several can be equally near, and some of these part two alternatives that all ballots rank alike. Changing the
    places of such two never adds to the total and lessens the pairs in another order, so it is done until none is left.
    """

    kind = "footrule"

    def decide(self, ballots: Orders) -> Orders:
        """Returns the ranking int[m] of ballots int[n, m]."""
        from scipy.optimize import linear_sum_assignment

        ballots = np.asarray(ballots, dtype=np.int64)
        m = ballots.shape[-1]
        moved = np.abs(places(ballots)[:, :, None] - np.arange(m)).sum(axis=0)
        _, place = linear_sum_assignment(moved)
        place = np.asarray(place, dtype=np.int64)
        agreed = preferred(ballots) == len(ballots)
        np.fill_diagonal(agreed, False)
        while True:
            above, below = np.nonzero(agreed & (place[:, None] > place[None, :]))
            if not len(above):
                return np.argsort(place)
            a, b = above[0], below[0]
            place[a], place[b] = place[b], place[a]
