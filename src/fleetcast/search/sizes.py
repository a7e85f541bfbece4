"""How many replicas of each pool: the sizes within a budget that leave no room for more, and which of them holds most.

Taking one more replica never takes less power or money, so what does not fit does not fit with more of anything: the
last pool's size is found by bisection, and a size is left out where some pool could be larger beside the same others.

Of many sizes the one that holds the largest load is found by racing. Loads lie on the grid of a bisection, the same
for all; a load that is held is taken to be held when it shrinks. So a challenger wins if and only if it holds the least
load that the best one so far misses: one trial for those that lose, and a bisection for the few that win.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Sizes = tuple[int, ...]
D = TypeVar("D")
Bracket = Callable[[Callable[[float], bool]], tuple[float | None, float | None]]
"""Bisects loads: whether one is held in, the largest held (None or 0 = none) and the least missed (None = none) out."""


def maximal(options: Sequence[Sequence[int]], fits: Callable[[Sizes], bool]) -> tuple[list[Sizes], int]:
    """Returns the sizes that fit and of which none can be raised to its next option, and how many fit in all.

    Args:
        options: what each pool's size may be, ascending.
        fits: whether sizes stay within the budget; false for larger ones wherever it is false.
    """
    *first, last = options
    after = [dict(itertools.pairwise(sizes)) for sizes in options]
    found, total = [], 0
    for chosen in itertools.product(*first):
        fit = _fitting(last, lambda n, chosen=chosen: fits((*chosen, n)))  # type: ignore[misc]
        if not fit:
            continue
        total += fit
        sizes = (*chosen, last[fit - 1])
        raised = ((i, after[i].get(n)) for i, n in enumerate(sizes[:-1]))
        if not any(more is not None and fits((*sizes[:i], more, *sizes[i + 1 :])) for i, more in raised):
            found.append(sizes)
    return found, total


def _fitting(options: Sequence[int], fits: Callable[[int], bool]) -> int:
    """How many of the options fit: the first ones."""
    low, high = 0, len(options) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(options[middle - 1]) else (low, middle)
    return low


@dataclass(frozen=True)
class Won(Generic[D]):
    """The winner of a race.

    Attributes:
        design: that holds most, of equals the first tried; None = none holds any load that was tried.
        held: its load.
        missed: the least load above it that was tried; None = every load is held.
        tried: designs that were tried at one load or more.
    """

    design: D | None
    held: float
    missed: float | None
    tried: int


def race(
    designs: Iterable[D], holds: Callable[[D, float], bool], bracket: Bracket, start: Won[D] | None = None
) -> Won[D]:
    """Returns the design that holds the largest load.

    Args:
        designs: the most promising first, which saves bisections.
        holds: whether a design holds a load.
        bracket: the bisection; every load that it asks about must depend on the answers alone.
        start: a winner among other designs, from the same bisection.
    """
    best = start or Won(None, 0.0, None, 0)
    known = start is not None
    tried = best.tried
    for design in designs:
        if known and best.missed is None:
            break
        floor = best.missed if known else None
        tried += 1
        if floor is not None and not holds(design, floor):
            continue

        def met(load: float, design: D = design, floor: float | None = floor) -> bool:
            return (floor is not None and load <= floor) or holds(design, load)

        held, missed = bracket(met)
        best, known = Won(design if held else None, held or 0.0, missed, tried), True
    return Won(best.design, best.held, best.missed, tried)
