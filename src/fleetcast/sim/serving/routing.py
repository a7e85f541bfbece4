"""What a route sees of the replicas, and its choices checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import PolicyError
from fleetcast.base.rng import rng
from fleetcast.cost.step import GRID
from fleetcast.policy import route as routes
from fleetcast.scenario.workload.precision import BITS
from fleetcast.scenario.workload.requests import Requests
from fleetcast.sim.serving.prefixes import PrefixCache, counted
from fleetcast.sim.serving.setting import Server, Setting


class Lost(NamedTuple):
    """What replicas that failed had done in vain.

    Attributes:
        tokens: f8 per replica, tokens that it made beyond those of the requests that began and ended as `Run` says.
        firsts: i8 per replica, prefills beyond those.
        tries: i8[n], how often each request was started again.
    """

    tokens: NDArray[np.float64]
    firsts: NDArray[np.int64]
    tries: NDArray[np.int64]


class Run(NamedTuple):
    """What a loop returns.

    Attributes:
        arrival, first, finish: s, f8[n]: arrival at the engine, first token, last token.
        where: i4[n], the replica that each request ended in.
        began: i4[n], the replica that made its first token.
        reports: of the replicas, see `kernel.Replica.report`.
        lost: what failures cost, None where none can be.
    """

    arrival: NDArray[np.float64]
    first: NDArray[np.float64]
    finish: NDArray[np.float64]
    where: NDArray[np.int32]
    began: NDArray[np.int32]
    reports: list[dict[str, Any]]
    lost: Lost | None = None


def with_counts(run: Run, caches: Sequence[Sequence[PrefixCache]]) -> Run:
    """Returns a run with what the prefix caches of each replica's lanes counted among its reports."""
    reports = [r | {"prefixes": counted(lanes)} for r, lanes in zip(run.reports, caches, strict=True)]
    return run._replace(reports=reports)


def split_roles(servers: Sequence[Server]) -> bool:
    """Whether some replicas only prefill or only decode."""
    return any(s.pool.role != "all" for s in servers)


def transfers(state: Setting, servers: Sequence[Server], layerwise: bool) -> list[list[tuple[float, float, float]]]:
    """Returns, from each replica to each, what moving a request's cache takes: (s per prompt token, s, share left).

    Every device of the smaller replica moves its share over a link of its own. ``share left`` is the last layer's where
    layers leave as they are ready while the prompt is still computed, 1 where all of it leaves afterwards.
    """
    table = []
    for a in servers:
        row = []
        for b in servers:
            link = state.tree.link_between(a.group, b.group)
            lanes = min(a.cost.devices, b.cost.devices)
            size = a.model.kv_bytes_per_token(BITS[a.kv_dtype] / 8, 1)
            left = 1.0 / a.model.layers if layerwise else 1.0
            row.append((size / (link.bandwidth * lanes), link.latency, left))
        table.append(row)
    return table


def passes_of(server: Server, requests: Requests) -> NDArray[np.int64]:
    """Returns the passes that make each request's tokens on a replica; empty where each pass makes one token."""
    if server.speculation is None:
        return np.zeros(0, dtype=np.int64)
    return server.speculation.calls(requests)


def speeds(servers: Sequence[Server]) -> NDArray[np.float64]:
    """Returns each replica's decode speed at its largest batch, relative to the fastest: weights for routes."""
    rate = []
    for s in servers:
        batch = min(64, len(s.cost.tables["floor"]) - 1)
        t, c = s.cost.tables, s.cost.scalars
        tokens = batch * c["width"] / c["unit"]
        work = np.interp(tokens, GRID, t["dense"] + t["experts"] + t["head"])
        rate.append(batch * (c["growth"] / c["unit"]) / float(work + t["base"][batch]))
    found = np.array(rate)
    return np.asarray(found / found.max())


def pauses(state: Setting, servers: Sequence[Server]) -> NDArray[np.float64]:
    """Returns how long (s) after an answer each request of a closed loop reaches the engine.

    The user thinks (exponential), then the request passes the front end. Each entry depends on its own request alone,
    so a part of the requests behaves as it does in the whole.
    """
    q = state.requests
    api = np.mean([s.cost.api + s.cost.api_token * q.prompt for s in servers], axis=0)
    return np.asarray(api + q.thought(state.scenario.seed))


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
