"""The least cost of small games, by A* over states held as bits.

A state says which values lie in each fast memory and which in slow memory. With one processor nothing is gained by
loading before the compute that reads it, or by saving before the eviction, so that a step is a compute with all that it
needs; several are `many`. What is left over costs at least what must still be computed, loaded and saved (`bits`), and
a schedule that local search found is beaten or proven best.
"""

from __future__ import annotations

import heapq
import math

from fleetcast.base.errors import Unsupported
from fleetcast.cost.pebbling.game import COMPUTE, DELETE, LOAD, SAVE, Game, Move
from fleetcast.search.memory.bits import Bits, Left, members
from fleetcast.search.memory.found import Exact
from fleetcast.search.memory.holistic import holistic
from fleetcast.search.memory.many import many

STATES = 2_000_000
"""Most states that are opened."""
MOST = 24
"""Most nodes: bits of a state. Twelve take seconds; more depend on the graph."""


def exact(of: Game, *, states: int = STATES) -> Exact:
    """Returns the least cost of a synchronous game without latency, and a schedule.

    Args:
        of: the game; with one processor both timings are the same.
        states: most that are opened; the answer then says how far it is proven.

    Raises:
        Unsupported: more than 24 nodes, clocks of their own, or latency.
        SpecError, Infeasible: some value and its inputs fit into no memory.
    """
    n = len(of.dag)
    if n > MOST:
        raise Unsupported(f"{n} nodes are too many for the least cost", f"At most {MOST}; ask holistic search instead")
    if of.latency or (of.processors > 1 and of.timing != "synchronous"):
        raise Unsupported("the least cost is known of synchronous processors without latency", "Ask holistic search")
    known = holistic(of, tries=2000)
    desk = Bits(of)
    goal = _one(desk, known.cost, states) if of.processors == 1 else many(desk, known.cost, states)
    if goal.moves:
        return goal
    return Exact(known.cost, known.cost if goal.proven else min(goal.least, known.cost), goal.proven, known.moves,
                 goal.states)  # fmt: skip


def _one(desk: Bits, known: float, states: int) -> Exact:
    """One processor: a step is a compute with the evictions, saves and loads before it."""
    io, work, again = desk.io[0], desk.works[0], desk.of.again

    def ahead(red: int, blue: int) -> float:
        return _total(desk.left(red, blue))

    start = (0, desk.given, 0)
    best: dict[tuple[int, int, int], float] = {start: 0.0}
    back: dict[tuple[int, int, int], tuple[tuple[int, int, int], int, int, int]] = {}
    heap: list[tuple[float, float, tuple[int, int, int]]] = [(ahead(*start[:2]), 0.0, start)]
    opened, least = 0, 0.0
    while heap:
        f, minus, state = heapq.heappop(heap)
        paid = -minus
        if paid > best[state]:
            continue
        red, blue, made = state
        least = f
        if not desk.sinks & ~(red | blue):  # what is left is to save the sinks that are held
            return Exact(f, f, True, _unwind(desk, state, back), opened)
        opened += 1
        if opened > states:
            return Exact(math.inf, least, False, [], opened)
        useful = desk.useful(blue)
        for v in desk.makeable:
            bit = 1 << v
            inputs = desk.parents[v]
            if not useful & bit or red & bit or inputs & ~(red | blue) or made & bit:
                continue
            if blue & bit and not again:
                continue
            missing = inputs & ~red
            need = desk.size[v] + desk.weight(missing)
            base = paid + work[v] + sum(io[u] for u in members(missing))
            for out in desk.room(red, inputs, need, 0):
                lost = out & ~blue
                must = lost & desk.sinks
                if not again:  # what is still read cannot come back otherwise
                    must |= sum(1 << u for u in members(lost) if desk.children[u] & ~made & ~bit)
                may = lost & ~must
                save = may
                while True:  # every choice of what is saved before it goes
                    kept = must | save
                    after = blue | kept
                    live = desk.useful(after)
                    now = ((red & ~out) | missing | bit) & (live | desk.sinks & ~after)
                    done = 0 if again else made | bit
                    key = (now, after, done)
                    cost = base + sum(io[u] for u in members(kept))
                    if cost < best.get(key, math.inf):
                        total = cost + ahead(now, after)
                        if total < known - 1e-9:
                            best[key] = cost
                            back[key] = (state, v, out, kept)
                            heapq.heappush(heap, (total, -cost, key))
                    if not save:
                        break
                    save = (save - 1) & may
    return Exact(known, known, True, [], opened)


def _total(left: Left) -> float:
    work, _, _, loads, saves, either = left
    return work + loads + saves + either


def _unwind(
    desk: Bits,
    state: tuple[int, int, int],
    back: dict[tuple[int, int, int], tuple[tuple[int, int, int], int, int, int]],
) -> list[Move]:
    """Returns the moves that led to a state, and the saves that end it."""
    steps = []
    end = state
    while state in back:
        before, v, out, kept = back[state]
        steps.append((before, v, out, kept, state))
        state = before
    made: list[Move] = []
    for before, v, out, kept, after in reversed(steps):
        made += [(SAVE, 0, u) for u in members(kept)]
        made += [(DELETE, 0, u) for u in members(out)]
        missing = desk.parents[v] & ~before[0]
        made += [(LOAD, 0, u) for u in members(missing)]
        made.append((COMPUTE, 0, v))
        made += [(DELETE, 0, u) for u in members(((before[0] & ~out) | missing | 1 << v) & ~after[0])]
    return made + [(SAVE, 0, u) for u in members(desk.sinks & end[0] & ~end[1])]
