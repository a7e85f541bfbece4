"""Which one ranking several rankings become. The null policy is `Borda`, the sum of places.

A ballot is a voter's whole ranking of m alternatives: a row of their numbers, best first, each once. Who votes (teams,
controllers, processes) and on what (plans) is for the caller to know. The two medians minimise a total distance to all
ballots: `Kemeny` by pairs, `Footrule` by places (`metrics`). All three keep what the ballots agree on: an alternative
that every ballot ranks above another stays above it.
"""

from __future__ import annotations

from typing import Protocol

from fleetcast.policy.vote.metrics import Orders

__all__ = ["Borda", "Footrule", "Kemeny", "Policy"]


class Policy(Protocol):
    """Turns ballots into one ranking."""

    kind: str

    def decide(self, ballots: Orders) -> Orders:
        """Returns the ranking int[m] of ballots int[n, m]; equal ballots, equal ranking, whatever their order."""
        ...


from fleetcast.policy.vote.borda import Borda  # noqa: E402  (the methods need the protocol above)
from fleetcast.policy.vote.footrule import Footrule  # noqa: E402
from fleetcast.policy.vote.kemeny import Kemeny  # noqa: E402
