"""Orders of computes: depth first, by list scheduling, and greedily by what a processor's memory holds."""

from __future__ import annotations

import heapq

from fleetcast.base.errors import Infeasible
from fleetcast.cost.pebbling.game import Game
from fleetcast.search.memory.moves import Order


def depth_first(of: Game) -> Order:
    """Returns one processor's order: each sink's inputs just before it, so that values are read soon."""
    dag, found = of.dag, []
    done = bytearray(len(dag))
    for v in of.given:
        done[v] = 1
    for sink in dag.sinks:
        stack = [sink]
        while stack:
            v = stack[-1]
            waiting = [u for u in dag.parents[v] if not done[u]]
            if waiting and not done[v]:
                stack += reversed(waiting)
                continue
            stack.pop()
            if not done[v]:
                done[v] = 1
                found.append((0, v))
    return found


def listed(of: Game) -> Order:
    """Returns the order of a list scheduler that knows no memory: longest way to a sink first, where it ends soonest.

    Topcuoglu, Hariri, Wu, HEFT (IEEE TPDS 2002): a value read on another processor takes a save and a load on the way.
    """
    dag, k = of.dag, of.processors
    works = [of.work(p) for p in range(k)]
    mean = [sum(row[v] for row in works) / k for v in range(len(dag))]
    over = [2.0 * sum(of.g) / k * size for size in dag.size]
    way = [0.0] * len(dag)
    for v in reversed(dag.order):
        way[v] = mean[v] + max((over[v] + way[c] for c in dag.children[v]), default=0.0)
    free, end, where = [0.0] * k, [0.0] * len(dag), [-1] * len(dag)
    begun: list[tuple[float, int, int, int]] = []
    waiting = [sum(u not in of.given for u in some) for some in dag.parents]
    ready = [(-way[v], v) for v in range(len(dag)) if v not in of.given and not waiting[v]]
    heapq.heapify(ready)
    while ready:
        _, v = heapq.heappop(ready)
        best = (float("inf"), 0, 0.0)
        for p in range(k):
            if of.needs[v] > of.red[p]:
                continue
            start = free[p]
            for u in dag.parents[v]:
                if u not in of.given:
                    start = max(start, end[u] + (over[u] if where[u] != p else 0.0))
            best = min(best, (start + works[p][v], p, start))
        end[v], where[v], start = best[0], best[1], best[2]
        free[best[1]] = best[0]
        begun.append((start, len(begun), best[1], v))
        for c in dag.children[v]:
            waiting[c] -= 1
            if not waiting[c]:
                heapq.heappush(ready, (-way[c], c))
    return [(p, v) for _, _, p, v in sorted(begun)]


def apart(of: Game) -> Order:
    """Returns an order in which nobody waits for anybody: who makes a sink makes all before it, again where need be.

    Sinks go, as depth first meets them, to the processor that is then done soonest.
    """
    dag, k = of.dag, of.processors
    done = [set(of.given) for _ in range(k)]
    clock = [0.0] * k
    queues: list[list[int]] = [[] for _ in range(k)]

    def behind(p: int, sink: int) -> list[int]:
        found, seen, stack = [], set(done[p]), [sink]
        while stack:
            v = stack[-1]
            waiting = [u for u in dag.parents[v] if u not in seen]
            if waiting and v not in seen:
                stack += reversed(waiting)
                continue
            stack.pop()
            if v not in seen:
                seen.add(v)
                found.append(v)
        return found

    for sink in dag.sinks:
        if sink in of.given:
            continue
        more = [behind(p, sink) for p in range(k)]
        ends = [clock[p] + sum(of.work(p)[v] for v in more[p]) for p in range(k)]
        p = min(range(k), key=lambda p: (max(of.needs[v] for v in more[p]) > of.red[p], ends[p], p))
        queues[p] += more[p]
        done[p].update(more[p])
        clock[p] = ends[p]
    rounds = max(map(len, queues), default=0)
    return [(p, queue[i]) for i in range(rounds) for p, queue in enumerate(queues) if i < len(queue)]


def greedy(of: Game) -> Order:
    """Returns the order in which a processor, whenever it is free, computes the value with most inputs in its memory.

    The rule that Böhnlein, Papp and Yzelman analyse (SIROCCO 2025). Of equals the last made ready goes first,
    deep before wide. Here memory gives up what has the fewest readers left; `moves` then decides with the
    whole order known.
    """
    dag, k = of.dag, of.processors
    size = dag.size
    left = [len(some) for some in dag.children]
    red: list[dict[int, None]] = [{} for _ in range(k)]
    clock = [0.0] * k
    done: dict[int, int] = {}
    waiting = [sum(u not in of.given for u in some) for some in dag.parents]
    ready = dict.fromkeys(v for v in dag.order if v not in of.given and not waiting[v])
    turn = {v: -i for i, v in enumerate(ready)}
    found: Order = []
    while ready:
        p = min(range(k), key=lambda p: (clock[p], p))
        fitting = [v for v in ready if of.needs[v] <= of.red[p]]
        if not fitting:
            clock[p] = max(c for c in clock) + 1.0 if min(clock) < max(clock) else float("inf")
            if clock[p] == float("inf") and min(clock) == float("inf"):
                raise Infeasible("fast memory", need=of.needs[next(iter(ready))], have=max(of.red), unit="",
                                 hint="Give it more memory")  # fmt: skip
            continue
        here = red[p]
        v = max(
            fitting, key=lambda v: (sum(size[u] for u in dag.parents[v] if u in here) / (of.needs[v] or 1.0), turn[v])
        )
        del ready[v]
        missing = [u for u in dag.parents[v] if u not in here]
        kept = {*dag.parents[v]}
        need = size[v] + sum(size[u] for u in missing)
        while sum(size[u] for u in here) + need > of.red[p] and any(u not in kept for u in here):
            del here[min((u for u in here if u not in kept), key=lambda u: (left[u], u))]
        for u in (*missing, v):
            here[u] = None
        fetch = sum(of.g[p] * size[u] * (1.0 if u in of.given or done.get(u) == p else 2.0) for u in missing)
        clock[p] += of.work(p)[v] + fetch
        done[v] = p
        found.append((p, v))
        for u in dag.parents[v]:
            left[u] -= 1
            if not left[u]:
                here.pop(u, None)
        for c in dag.children[v]:
            waiting[c] -= 1
            if not waiting[c]:
                ready[c] = None
                turn[c] = len(found)
    return found
