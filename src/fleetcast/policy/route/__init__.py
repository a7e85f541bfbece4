"""Which replica gets a request. The null policy is `RoundRobin`.

A route policy sees the replicas (`View`) and the request (`Arrival`) and returns a replica's index. A policy that
needs no state of the replicas says so with ``static = True``: its replicas then run independently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

__all__ = ["Arrival", "LeastLoaded", "Policy", "PrefixHash", "Random", "RoundRobin", "SplitPhases", "View"]


@dataclass(frozen=True)
class Arrival:
    """A request to place: its number, time (s), prompt (tokens), session (-1 = none), and the phase it is placed for.

    A request is placed once, for "prefill", unless a prefill replica did that: then again, for "decode".
    """

    id: int
    time: float
    prompt: int
    session: int
    phase: str = "prefill"


@dataclass(frozen=True)
class View:
    """The replicas.

    Attributes:
        load: requests each holds, waiting, running and on their way to it.
        weight: its speed relative to the fastest.
        role: "all", "prefill" or "decode"; empty = all.
        waiting: prompt tokens of its requests that have no token yet; empty = not told.
        number: which of the plan's replicas each is, where some are down and not in the view; empty = all are there.
    """

    load: Sequence[int]
    weight: Sequence[float]
    role: Sequence[str] = ()
    waiting: Sequence[int] = ()
    number: Sequence[int] = ()


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
from fleetcast.policy.route.split_phases import SplitPhases  # noqa: E402
