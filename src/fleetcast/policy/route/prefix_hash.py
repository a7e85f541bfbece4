"""Prefix hash: requests of one session go to one replica, so that their common prefix is cached there.

Rendezvous hashing: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM ToN 1998;
session-sticky routing as vLLM's production router does. Needs the trace's ``session`` column. When replicas come or
go only the sessions of those replicas move.
"""

from __future__ import annotations

import numpy as np

from fleetcast.policy.route import Arrival, View

_MASK = (1 << 64) - 1


def _mix(x: int) -> int:
    """Steele, Lea and Flood's splitmix64 finaliser (OOPSLA 2014): a bijection that looks random."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


class PrefixHash:
    """The replica whose hash with the session is highest."""

    kind = "prefix_hash"
    static = True

    def choose(self, arrival: Arrival, view: View, rng: np.random.Generator) -> int:
        """Returns the session's replica; a request without session is spread by its number."""
        name = arrival.session if arrival.session >= 0 else ~arrival.id & _MASK
        number = view.number or range(len(view.load))
        return max(range(len(view.load)), key=lambda i: _mix(_mix(name) ^ number[i]))
