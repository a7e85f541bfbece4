"""What a route sees of the replicas, and its choices checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import PolicyError
from fleetcast.base.rng import rng
from fleetcast.policy import route as routes
from fleetcast.sim.serving.setting import Server, Setting


def speeds(servers: Sequence[Server]) -> NDArray[np.float64]:
    """Returns each replica's decode speed at its largest batch, relative to the fastest: weights for routes."""
    rate = []
    for s in servers:
        batch = min(64, len(s.cost.tables["floor"]) - 1)
        t = s.cost.tables
        rate.append(batch / float(t["dense"][batch] + t["experts"][batch] + t["head"][batch] + t["base"][batch]))
    found = np.array(rate)
    return np.asarray(found / found.max())


def starts(state: Setting) -> NDArray[np.float64]:
    """Returns the arrivals (s) to run with: those of the trace, or a closed loop's users starting over its ramp."""
    q = state.requests
    arrival = q.arrival.copy()
    users = min(q.concurrency, len(q))
    if users:
        arrival[:users] = q.ramp / users * np.arange(users)
    return arrival


def pauses(state: Setting, servers: Sequence[Server]) -> NDArray[np.float64]:
    """Returns how long (s) after an answer each request of a closed loop reaches the engine.

    The user thinks (exponential), then the request passes the front end. Each entry depends on its own request alone,
    so a part of the requests behaves as it does in the whole.
    """
    q = state.requests
    api = np.mean([s.cost.api + s.cost.api_token * q.prompt for s in servers], axis=0)
    if q.think:
        api = api + rng(state.scenario.seed, "think").exponential(q.think, len(q))
    return np.asarray(api)


def assign(policy: Any, state: Setting, weights: NDArray[np.float64]) -> NDArray[np.int32]:
    """Returns the replica of each request under a static route."""
    view = routes.View(load=[0] * len(weights), weight=weights.tolist())
    stream = rng(state.scenario.seed, "route")
    q = state.requests
    session = q.session if q.session is not None else np.full(len(q), -1)
    if type(policy) is routes.RoundRobin:
        return (np.arange(len(q)) % len(weights)).astype(np.int32)
    if type(policy) is routes.Random:
        edges = np.cumsum(weights)
        drawn = np.searchsorted(edges, stream.random(len(q)) * edges[-1], side="right")
        return np.asarray(drawn, dtype=np.int32)
    rows = zip(q.arrival.tolist(), q.prompt.tolist(), session.tolist(), strict=True)
    return np.array(
        [policy.choose(routes.Arrival(i, t, p, s), view, stream) for i, (t, p, s) in enumerate(rows)],
        dtype=np.int32,
    )


def checked_choice(choice: Any, count: int, policy: Any) -> int:
    """Returns a route's choice, or refuses one that names no replica.

    Raises:
        PolicyError: not an index of a replica.
    """
    if not isinstance(choice, int | np.integer) or not 0 <= choice < count:
        raise PolicyError(f"{type(policy).__name__}.choose returned {choice!r}; it must be 0 to {count - 1}")
    return int(choice)
