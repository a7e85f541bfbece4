"""The reference world: `stepwise` replicas brought together by any route, one event after another.

What the compiled drivers of `kernel` do in closed form and typed, written plainly: arrivals, answers that release the
next request of a closed loop, and caches on their way from prefill to decode replicas.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fleetcast.base.rng import rng
from fleetcast.policy import route as routes
from fleetcast.sim.serving.prefixes import counted
from fleetcast.sim.serving.routing import Run, checked_choice, passes_of, pauses, speeds, split_roles, starts, transfers
from fleetcast.sim.serving.setting import Server, Setting
from fleetcast.sim.serving.stepwise import Replica, Request


def run(state: Setting, servers: Sequence[Server], policy: Any, *, record: bool, by_step: bool) -> Run:
    """Runs replicas under any policies; the counterpart of the compiled loop, same arguments and results."""
    del record, by_step
    q = state.requests
    items = [
        Request(i, a, p, o)
        for i, (a, p, o) in enumerate(zip(starts(state).tolist(), q.prompt.tolist(), q.output.tolist(), strict=True))
    ]
    caches = [state.caches(s) for s in servers]
    replicas = [Replica(s, passes_of(s, q).tolist(), lanes) for s, lanes in zip(servers, caches, strict=True)]
    where, began = np.zeros(len(items), dtype=np.int32), np.zeros(len(items), dtype=np.int32)
    session = q.session.tolist() if q.session is not None else [-1] * len(items)
    weights, stream = speeds(servers).tolist(), rng(state.scenario.seed, "route")
    roles = [s.pool.role for s in servers]
    links = transfers(state, servers, getattr(policy, "layerwise", True)) if split_roles(servers) else []
    flying, free = [0] * len(replicas), [0.0] * len(replicas)

    def choose(r: Request, time: float, phase: str) -> int:
        view = routes.View(
            load=[x.load + n for x, n in zip(replicas, flying, strict=True)], weight=weights, role=roles,
            waiting=[x.awaiting for x in replicas],
        )  # fmt: skip
        arrival = routes.Arrival(r.id, time, r.prompt, session[r.id], phase)
        return checked_choice(policy.choose(arrival, view, stream), len(replicas), policy)

    def send(r: Request) -> None:
        target = choose(r, r.arrival, "prefill")
        where[r.id] = began[r.id] = target
        r.leaves = roles[target] == "prefill" and r.output > 1
        r.key = servers[target].order.key(r.arrival, r.prompt)
        replicas[target].push(r, r.arrival)

    def hand_on(r: Request, source: int, begun: float) -> tuple[float, int]:
        now, target = replicas[source].now, choose(r, replicas[source].now, "decode")
        slope, fixed, left = links[source][target]
        whole = slope * r.prompt
        size = max(whole * left, whole - (now - begun)) if left < 1.0 else whole
        free[source] = max(free[source], now) + size
        flying[target] += 1
        return free[source] + fixed, target

    def take(r: Request, target: int, time: float) -> None:
        flying[target] -= 1
        where[r.id] = target
        r.carried = True
        replicas[target].push(r, time)

    _drive(items, replicas, send, hand_on, take, q.concurrency, pauses(state, servers).tolist())
    columns = ([r.arrival for r in items], [r.first for r in items], [r.finish for r in items])
    arrival, first, finish = (np.array(c) for c in columns)
    reports = [r.report() | {"prefixes": counted(lanes)} for r, lanes in zip(replicas, caches, strict=True)]
    return Run(arrival, first, finish, where, began, reports)


def _drive(
    items: list[Request], replicas: list[Replica], send: Callable[[Request], None],
    hand_on: Callable[[Request, int, float], tuple[float, int]], take: Callable[[Request, int, float], None],
    users: int, pause: list[float],
) -> None:  # fmt: skip
    """Runs everything in order of time; at equal times what comes goes before an iteration's end."""
    starting = items[:users] if users else items
    waiting = items[users:][::-1] if users else []
    coming = [(r.arrival, 1, r.id, r, -1) for r in starting]
    heapq.heapify(coming)
    while True:
        source = min(range(len(replicas)), key=lambda i: replicas[i].end)
        first = replicas[source]
        if coming and coming[0][0] <= first.end:
            time, _, _, r, target = heapq.heappop(coming)
            take(r, target, time) if target >= 0 else send(r)
            continue
        if first.end == float("inf"):
            return
        begun = first.now
        for _ in first.commit():
            if waiting:
                r = waiting.pop()
                r.arrival = first.now + pause[r.id]
                heapq.heappush(coming, (r.arrival, 1, r.id, r, -1))
        for r in first.handed:
            time, target = hand_on(r, source, begun)
            heapq.heappush(coming, (time, 0, r.id, r, target))
        first.handed = []
