"""Which replica gets a request. The null policy is `RoundRobin`.

A route policy sees the replicas (`View`) and the request (`Arrival`) and returns a replica's index. A policy that
needs no state of the replicas says so with ``static = True``: its replicas then run independently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

__all__ = ["Arrival", "LeastLoaded", "Policy", "PrefixHash", "Random", "RoundRobin", "View"]


@dataclass(frozen=True)
class Arrival:
    """A request at the door: its number, time (s), prompt (tokens) and session (-1 = none)."""

    id: int
    time: float
    prompt: int
    session: int


@dataclass(frozen=True)
class View:
    """The replicas: requests each holds (waiting and running), and each one's share of the fleet's speed."""

    load: Sequence[int]
    weight: Sequence[float]


class Policy(Protocol):
    """Chooses a replica."""

    kind: str
    static: bool

    def choose(self, arrival: Arrival, view: View, rng: np.random.Generator) -> int:
        """Returns the index of the replica that gets the request."""
        ...


from fleetcast.policy.route.least_loaded import LeastLoaded  # noqa: E402  (the methods need the protocol above)
from fleetcast.policy.route.prefix_hash import PrefixHash  # noqa: E402
from fleetcast.policy.route.random import Random  # noqa: E402
from fleetcast.policy.route.round_robin import RoundRobin  # noqa: E402
