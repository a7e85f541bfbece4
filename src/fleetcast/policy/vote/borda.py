"""Borda's count (1781): the alternative with the least sum of places comes first."""

from __future__ import annotations

import numpy as np

from fleetcast.policy.vote.metrics import Orders, places


class Borda:
    """Orders by the sum of places; equal sums stay in the order in which the alternatives are listed.

    It needs no search, and keeps what all agree on. An alternative that beats every other one to one may come second.
    """

    kind = "borda"

    def decide(self, ballots: Orders) -> Orders:
        """Returns the ranking int[m] of ballots int[n, m]."""
        return np.argsort(places(ballots).sum(axis=0), kind="stable")
