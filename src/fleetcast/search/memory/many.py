"""The least cost of a game of several processors: A* whose step is one move.

A state also holds the kind of move that runs, and by how much each processor lags behind the busiest: what fits into a
lag is free. Within a kind one processor moves after another, which leaves out orders that differ in nothing.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

from fleetcast.cost.pebbling.game import COMPUTE, DELETE, LOAD, SAVE, Move
from fleetcast.search.memory.bits import Bits, members
from fleetcast.search.memory.found import Exact

State = tuple[tuple[int, ...], int, int, int, tuple[float, ...], int]
"""(fast memories, slow memory, kind of move that runs, whose turn, lags, what has been computed)."""
Step = tuple[State, int, int, int, int]
"""(state before, kind, processor, node, given up)."""


def many(desk: Bits, known: float, states: int) -> Exact:
    """Returns the least cost below ``known``, if there is one, opening at most so many states."""
    k = desk.k
    start: State = ((0,) * k, desk.given, DELETE, 0, (0.0,) * k, 0)
    best: dict[State, float] = {start: 0.0}
    # Of equal memories the one paid least for: it may begin any kind anew, so that others gain no more than their lags.
    paid_for: dict[tuple[tuple[int, ...], int, int], float] = {}
    back: dict[State, Step] = {}
    heap: list[tuple[float, float, State]] = [(_ahead(desk, start), 0.0, start)]
    opened, least = 0, 0.0
    while heap:
        f, minus, state = heapq.heappop(heap)
        paid = -minus
        if paid > best[state]:
            continue
        least = f
        if not desk.sinks & ~state[1]:
            return Exact(paid, paid, True, _unwind(state, back, k), opened)
        opened += 1
        if opened > states:
            return Exact(math.inf, least, False, [], opened)
        for key, cost, step in _steps(desk, state, paid):
            if cost >= best.get(key, math.inf):
                continue
            memories = (key[0], key[1], key[5])
            other = paid_for.get(memories, math.inf)
            if other + max(key[4][key[3] :]) <= cost:
                continue
            total = cost + _ahead(desk, key)
            if desk.whole:
                total = math.ceil(total - 1e-9)
            if total < known - 1e-9:
                best[key] = cost
                paid_for[memories] = min(other, cost)
                back[key] = step
                heapq.heappush(heap, (total, -cost, key))
    return Exact(known, known, True, [], opened)


def _steps(desk: Bits, state: State, paid: float) -> Iterator[tuple[State, float, Step]]:
    """Yields the states after each move, and their costs; one processor after another within a kind."""
    reds, blue, kind, turn, lags, made = state
    k, useful = desk.k, desk.useful(blue)
    for new in (COMPUTE, SAVE, LOAD):
        fresh = new != kind
        for p in range(0 if fresh else turn, k):
            red = reds[p]
            if fresh and desk.of.alike and red in reds[:p]:
                continue  # as the same move on the other
            lag = 0.0 if fresh else lags[p]
            if new == SAVE:
                choices = red & ~blue & useful
            elif new == LOAD:
                choices = blue & ~red & useful
            else:
                choices = 0
                for v in desk.makeable:
                    bit = 1 << v
                    if useful & bit and not red & bit and not desk.parents[v] & ~red and not made & bit:
                        choices |= bit
            for v in members(choices):
                bit = 1 << v
                price = desk.works[p][v] if new == COMPUTE else desk.io[p][v]
                grow = max(0.0, price - lag)
                rest = lag + grow - price
                late = tuple(
                    [0.0 if q < p else rest if q == p else (0.0 if fresh else lags[q]) + grow for q in range(k)]
                )
                if new == SAVE:
                    after = blue | bit
                    live = desk.useful(after)
                    key: State = (tuple([r & live for r in reds]), after, new, p, late, made)
                    yield key, paid + grow, (state, new, p, v, 0)
                    continue
                kept = desk.parents[v] if new == COMPUTE else 0
                done = made | bit if new == COMPUTE and not desk.of.again else made
                for out in desk.room(red, kept, desk.size[v], p):
                    now = (red & ~out) | bit
                    yield (
                        ((*reds[:p], now, *reds[p + 1 :]), blue, new, p, late, done),
                        paid + grow,
                        (state, new, p, v, out),
                    )


def _ahead(desk: Bits, state: State) -> float:
    """Returns what must still be paid: each kind runs alone, and lags of the kind that runs are free.

    All that the neediest sink needs is computed by one processor, or a value of it is saved, before the sink is, and
    loaded by another.
    """
    reds, blue, kind, turn, lags, _ = state
    held = 0
    for red in reds:
        held |= red
    work, longest, alone, loads, saves, either = desk.left(held, blue)
    k = desk.k
    free, most = sum(lags[turn:]), max(lags)
    slack = most if kind == COMPUTE else 0.0
    step, move = (1.0, desk.io[0][0]) if desk.unit else (0.0, 0.0)
    computing = max(_shared(work, free if kind == COMPUTE else 0.0, k, step), longest - slack)
    late, saved = free if kind == LOAD else 0.0, free if kind == SAVE else 0.0
    each = computing + _shared(loads, late, k, move) + _shared(saves, saved, k, move)
    if move and alone - slack > computing:
        one = each - computing + alone - slack
        twice = 2.0 * move - (most if kind == SAVE else 0.0)
        split = _shared(loads + move, late, k, move) + max(_shared(saves + move, saved, k, move), twice)
        each = min(one, max(each, computing + split))
    return max(each, (work + loads + saves + either - free) / k)


def _shared(amount: float, free: float, k: int, step: float) -> float:
    """Returns what each of k processors takes at least, in whole steps unless they are 0."""
    part = (amount - free) / k
    if part <= 0:
        return 0.0
    return math.ceil(part / step - 1e-9) * step if step else part


def _unwind(state: State, back: dict[State, Step], k: int) -> list[Move]:
    """Returns the moves that led to a state."""
    steps = []
    while state in back:
        step = back[state]
        steps.append((step, state))
        state = step[0]
    made: list[Move] = []
    for (before, kind, p, v, out), after in reversed(steps):
        made += [(DELETE, p, u) for u in members(out)]
        made.append((kind, p, v))
        for q in range(k):
            had = before[0][q] & ~(out if q == p else 0) | (1 << v if q == p and kind != SAVE else 0)
            made += [(DELETE, q, u) for u in members(had & ~after[0][q])]
    return made
