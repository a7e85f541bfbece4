"""How many replicas of each pool: the sizes within a budget that leave no room for more.

Taking one more replica never takes less power or money, so what does not fit does not fit with more of anything: the
last pool's size is found by bisection, and a size is left out where some pool could be larger beside the same others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

Sizes = tuple[int, ...]


def maximal(options: Sequence[Sequence[int]], fits: Callable[[Sizes], bool]) -> Iterator[Sizes]:
    """Yields the sizes that fit and of which none can be raised to its next option, in lexical order.

    Args:
        options: what each pool's size may be, ascending.
        fits: whether sizes stay within the budget; false for larger ones wherever it is false.
    """
    *first, last = options
    after = [dict(itertools.pairwise(sizes)) for sizes in options]
    for chosen in itertools.product(*first):
        best = largest(last, lambda n, chosen=chosen: fits((*chosen, n)))  # type: ignore[misc]
        if best is None:
            continue
        sizes = (*chosen, best)
        raised = ((i, after[i].get(n)) for i, n in enumerate(sizes[:-1]))
        if not any(more is not None and fits((*sizes[:i], more, *sizes[i + 1 :])) for i, more in raised):
            yield sizes


def largest(options: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """Returns the largest option that fits, None where none does; fits none beyond the first that does not."""
    low, high = -1, len(options)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(options[middle]) else (low, middle)
    return options[low] if low >= 0 else None
