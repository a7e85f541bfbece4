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
from fleetcast.scenario.fleet.failures import Downtime
from fleetcast.sim.serving.lanes import Request
from fleetcast.sim.serving.routing import (
    Lost,
    Run,
    checked_choice,
    passes_of,
    pauses,
    speeds,
    split_roles,
    transfers,
    with_counts,
)
from fleetcast.sim.serving.setting import Server, Setting
from fleetcast.sim.serving.stepwise import Replica


def run(
    state: Setting, servers: Sequence[Server], policy: Any, *, record: bool, by_step: bool,
    downs: Sequence[Downtime | None] = (),
) -> Run:  # fmt: skip
    """Runs replicas under any policies; the counterpart of the compiled loop, same arguments and results."""
    del record, by_step
    q = state.requests
    items = [
        Request(i, a, p, o)
        for i, (a, p, o) in enumerate(zip(q.starts().tolist(), q.prompt.tolist(), q.output.tolist(), strict=True))
    ]
    caches = [state.caches(s) for s in servers]
    replicas = [Replica(s, passes_of(s, q).tolist(), lanes) for s, lanes in zip(servers, caches, strict=True)]
    where, began = np.zeros(len(items), dtype=np.int32), np.zeros(len(items), dtype=np.int32)
    session = q.session.tolist() if q.session is not None else [-1] * len(items)
    weights, stream = speeds(servers).tolist(), rng(state.scenario.seed, "route")
    if downs:
        return with_counts(_run_failing(state, servers, policy, items, replicas, downs), caches)
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
    return with_counts(Run(arrival, first, finish, where, began, [r.report() for r in replicas]), caches)


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


def _run_failing(
    state: Setting, servers: Sequence[Server], policy: Any, items: list[Request], replicas: list[Replica],
    downs: Sequence[Downtime | None],
) -> Run:  # fmt: skip
    """Runs replicas through their outages, by one list of what happens, sorted by time and kind.

    0 = a replica is back, 1 = it fails, 2 = a request arrives, 3 = an iteration ends.
    """
    session = state.requests.session.tolist() if state.requests.session is not None else [-1] * len(items)
    weights, stream = speeds(servers).tolist(), rng(state.scenario.seed, "route")
    tokens, firsts = np.zeros(len(replicas)), np.zeros(len(replicas), dtype=np.int64)
    checked = [s.cost.work["queries"] if s.speculation is not None else 1.0 for s in servers]
    tries, where, began = [0] * len(items), [0] * len(items), [-1] * len(items)
    up, seen = [True] * len(replicas), [0] * len(replicas)
    line: list[Request] = []
    arriving = items[::-1]

    def upcoming() -> tuple[float, int, int]:
        found = [(r.end, 3, i) for i, r in enumerate(replicas)] + [(float("inf"), 4, -1)]
        for i, down in enumerate(downs):
            outage = down.after(seen[i]) if down is not None else None
            if outage is not None:
                found.append((outage[0], 1, i) if up[i] else (outage[1], 0, i))
        if arriving:
            found.append((arriving[-1].arrival, 2, -1))
        return min(found)

    def happen(kind: int, i: int) -> None:
        if kind == 0:
            up[i], seen[i] = True, seen[i] + 1
        elif kind == 2:
            line.append(arriving.pop())
        elif kind == 3:
            replicas[i].commit()
        else:
            up[i] = False
            for r, made in replicas[i].fail():
                tries[r.id] += 1
                tokens[i] += 1.0 + (made - 1) * checked[i] if made else 0.0
                firsts[i] += made > 0
                if r.first >= 0 and began[r.id] < 0:
                    began[r.id] = i
                line.append(r)

    while arriving or line or any(r.end < float("inf") for r in replicas):
        time, kind, i = upcoming()
        happen(kind, i)
        again = upcoming()
        if kind == 3 or (kind < 2 and again[0] == time and again[1] < 2):
            continue
        ready = [i for i, running in enumerate(up) if running]
        for r in sorted(line, key=lambda r: r.id) if ready else []:
            view = routes.View(
                load=[replicas[i].load for i in ready], weight=[weights[i] for i in ready],
                waiting=[replicas[i].awaiting for i in ready], number=ready,
            )  # fmt: skip
            arrival = routes.Arrival(r.id, time, r.prompt, session[r.id])
            where[r.id] = ready[checked_choice(policy.choose(arrival, view, stream), len(ready), policy)]
            r.key = servers[where[r.id]].order.key(time, r.prompt)
            replicas[where[r.id]].push(r, time)
        line = [] if ready else line
    for r in items:  # the attempt that ended made a first token, too, where the one that counts is another's
        if 0 <= began[r.id] != where[r.id]:
            tokens[where[r.id]] += 1
            firsts[where[r.id]] += 1
            tokens[began[r.id]] -= 1
            firsts[began[r.id]] -= 1
        began[r.id] = where[r.id] if began[r.id] < 0 else began[r.id]
    columns = [[r.arrival for r in items], [r.first for r in items], [r.finish for r in items]]
    times = [np.array(c) for c in columns]
    lost = Lost(tokens, firsts, np.array(tries))
    places = [np.array(c, dtype=np.int32) for c in (where, began)]
    return Run(times[0], times[1], times[2], places[0], places[1], [r.report() for r in replicas], lost)
