"""The game played by brute force: sets instead of bits, all processors at once, every deletion a move of its own.

It shares no code with what it is held against, and knows unit weights alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count, product


def least(
    parents: list[list[int]], processors: int, red: int, g: float, *, computed: bool = False, again: bool = True
) -> float:
    """Returns the least cost of ending with all sinks in slow memory."""
    n = len(parents)
    read = {u for some in parents for u in some}
    inputs = frozenset() if computed else frozenset(v for v in range(n) if not parents[v])
    sinks = frozenset(v for v in range(n) if v not in read)
    start = ((frozenset(),) * processors, inputs, frozenset())
    known = {start: 0.0}
    tie = count()
    heap = [(0.0, next(tie), start)]
    while heap:
        paid, _, state = heapq.heappop(heap)
        if paid > known[state]:
            continue
        if sinks <= state[1]:
            return paid
        for price, after in steps(parents, inputs, state, red, g, again):
            if paid + price < known.get(after, float("inf")):
                known[after] = paid + price
                heapq.heappush(heap, (paid + price, next(tie), after))
    return float("inf")


def steps(parents, inputs, state, red, g, again) -> Iterator[tuple[float, tuple]]:
    fast, slow, made = state
    n = len(parents)
    for p, held in enumerate(fast):
        for v in held:
            yield 0.0, ((*fast[:p], held - {v}, *fast[p + 1 :]), slow, made)
    for kind in ("load", "save", "compute"):
        choices = []
        for held in fast:
            if kind == "load":
                mine = [v for v in slow if v not in held] if len(held) < red else []
            elif kind == "save":
                mine = [v for v in held if v not in slow]
            else:
                mine = [
                    v for v in range(n)
                    if v not in inputs and v not in held and set(parents[v]) <= held and len(held) < red
                    and (again or v not in made)
                ]  # fmt: skip
            choices.append([None, *mine])
        for chosen in product(*choices):
            if all(v is None for v in chosen):
                continue
            moved = {v for v in chosen if v is not None}
            if kind == "compute" and not again and len(moved) < sum(v is not None for v in chosen):
                continue
            if kind == "save":
                yield g, (fast, slow | moved, made)
                continue
            grown = tuple(held if v is None else held | {v} for held, v in zip(fast, chosen, strict=True))
            if kind == "compute":
                yield 1.0, (grown, slow, made if again else made | moved)
            else:
                yield g, (grown, slow, made)
