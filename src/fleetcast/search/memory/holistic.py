"""Schedules of a pebble game: order first and evictions after, or both together by local search.

Choosing who computes what when, and only then what stays in memory, can be far from the least (Papp, Böhnlein, Yzelman,
"Multiprocessor scheduling with memory constraints", arXiv 2507.17411: a linear factor). The search here starts at the
best of the two-stage schedules and changes the order, the processor of a value, and whether it is computed again where
it is read; what memory gives up follows. It keeps what is no dearer, sometimes what is a little
dearer (annealing), and returns the best it met, which is never above where it began.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fleetcast.base.errors import Infeasible
from fleetcast.base.rng import rng
from fleetcast.base.show import show
from fleetcast.cost.pebbling.check import cost
from fleetcast.cost.pebbling.game import Game, Move
from fleetcast.policy.evict import Belady, Lru, Policy
from fleetcast.search.memory.moves import Largest, Order, moves
from fleetcast.search.memory.orders import apart, depth_first, greedy, listed

RULES: tuple[Policy, ...] = (Belady(), Lru(), Largest())
TRIES = 6000
"""Changes that the local search draws, unless told otherwise; about a third of them can be carried out."""
HEAT = 0.01
"""Share of the first cost by which a dearer schedule is taken with a chance of 1/e, at the start; 0 at the end."""


@dataclass(frozen=True)
class Schedule:
    """Moves, what they cost, the order of computes they follow, and how they were found."""

    moves: list[Move]
    cost: float
    order: Order
    way: str


def two_stage(of: Game, rule: Policy | None = None) -> Schedule:
    """Returns the schedule of an order found without regard to memory, then evictions by a rule; default Belady's.

    Raises:
        SpecError, Infeasible: some value and its inputs fit into no memory.
    """
    of.demand()
    chosen = Belady() if rule is None else rule
    order = depth_first(of) if of.processors == 1 else listed(of)
    return _schedule(of, order, chosen, f"{'depth first' if of.processors == 1 else 'list'}, then {chosen.kind}")


def by_greed(of: Game, rule: Policy | None = None) -> Schedule:
    """Returns the schedule of the greedy order.

    Raises:
        SpecError, Infeasible: some value and its inputs fit into no memory.
    """
    of.demand()
    chosen = Belady() if rule is None else rule
    return _schedule(of, greedy(of), chosen, f"greedy, then {chosen.kind}")


def _schedule(of: Game, order: Order, rule: Policy, way: str) -> Schedule:
    found = moves(of, order, rule)
    if found is None:
        worst = max((v for v in range(len(of.dag)) if v not in of.given), key=lambda v: of.needs[v])
        raise Infeasible(
            "fast memory", need=of.needs[worst], have=min(of.red), unit="",
            hint=f"{of.dag.name(worst)} and its inputs do not fit; {show(max(of.red))} is the most",
        )  # fmt: skip
    return Schedule(found, cost(of, found), order, way)


def holistic(of: Game, *, tries: int = TRIES, seed: int = 0, start: Sequence[Schedule] = ()) -> Schedule:
    """Returns the best schedule that local search finds, never dearer than any of the two-stage ones.

    Args:
        of: the game.
        tries: changes that are drawn; the only limit, so that equal calls find equal schedules.
        seed: of the random changes.
        start: schedules to begin from as well.

    Raises:
        SpecError, Infeasible: some value and its inputs fit into no memory.
    """
    begun = [*(two_stage(of, rule) for rule in RULES), *(by_greed(of, rule) for rule in RULES[:1]), *start]
    if of.again and of.processors > 1:
        alone = apart(of)
        found = moves(of, alone, RULES[0])
        begun += [] if found is None else [Schedule(found, cost(of, found), alone, "each sink apart, then belady")]
    best = min(begun, key=lambda s: s.cost)
    if not best.order:
        return best
    rounds = {id(s): s for s in (best, begun[0], begun[3], begun[-1])}.values()
    draws = rng(seed, "pebbling").random((tries, 5))
    for row, first in zip(np.array_split(draws, len(rounds)), rounds, strict=True):
        now = first
        for left, (*draw, luck) in zip(range(len(row), 0, -1), row.tolist(), strict=True):
            changed = _change(of, now.order, draw)
            found = None if changed is None else moves(of, changed, RULES[0])
            if changed is None or found is None:
                continue
            taken = cost(of, found)
            heat = HEAT * first.cost * left / len(row)
            if taken <= now.cost or luck < math.exp((now.cost - taken) / heat):
                now = Schedule(found, taken, changed, "holistic")
                best = min(best, now, key=lambda s: s.cost)
    return best


def _change(of: Game, order: Order, draw: list[float]) -> Order | None:
    """Returns a neighbour of an order, None where the draw names none: four numbers from 0 to 1 say which."""
    n, k, dag = len(order), of.processors, of.dag
    i, which = int(draw[0] * n), draw[1]
    p, v = order[i]
    made = list(order)
    if which < 0.45:  # elsewhere in the order, more often near
        span = 1 + int(draw[2] ** 2 * (n - 1))
        j = i + span if draw[3] < 0.5 else i - span
        if not 0 <= j < n:
            return None
        made.insert(j, made.pop(i))
    elif which < 0.6:  # a run of computes, elsewhere
        length = 2 + int(draw[2] * min(6, n // 2))
        block, rest = made[i : i + length], made[:i] + made[i + length :]
        j = int(draw[3] * (len(rest) + 1))
        made = rest[:j] + block + rest[j:]
    elif which < 0.75 and k > 1:  # on another processor, with what only it reads or alone
        q = int(draw[2] * (k - 1))
        q += q >= p
        made[i] = (q, v)
        if draw[3] < 0.5:
            made = [(q, u) if u in dag.parents[v] and len(dag.children[u]) == 1 else (o, u) for o, u in made]
    elif which < 0.9:  # an input of it computed again, just before, with what it reads or alone
        inputs = [u for u in dag.parents[v] if u not in of.given]
        if not inputs or not of.again:
            return None
        chosen = inputs[int(draw[2] * len(inputs))]
        before = [u for u in dag.parents[chosen] if u not in of.given] if draw[3] < 0.3 else []
        made[i:i] = [(p, u) for u in (*before, chosen)]
    else:  # one of several computes of a value left out
        if sum(u == v for _, u in order) < 2:
            return None
        del made[i]
    return made if _legal(of, made) else None


def _legal(of: Game, order: Order) -> bool:
    """Whether every value is computed after what it is computed from."""
    done = set(of.given)
    for _, v in order:
        if any(u not in done for u in of.dag.parents[v]):
            return False
        done.add(v)
    return True
