"""Evaluate on the few rows that differ, and hand each row its value: what makes expensive look-ups cheap on columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.intp]
_LARGEST = 1 << 20  # integers up to here are ranked in a table; beyond it they are sorted
_SMALL = 33


def distinct(columns: Sequence[NDArray[np.int32]]) -> tuple[Index, Index]:
    """Returns (a row of each distinct combination, for every row which combination it is).

    Args:
        columns: non-negative integers, equal lengths.

    Costs a few passes over the rows and no sort, unless a column holds large numbers.
    """
    size = len(columns[0])
    code: Index = np.zeros(size, dtype=np.intp)
    room = 1
    for column in columns:
        ranks, count = _ranks(column)
        if count > 1:
            code = code * count + ranks
            room *= count
            if room > max(2 * size, 1024):
                _, code, room = _compact(code, room)
    first, code, _ = _compact(code, room)
    return first, code


def _compact(code: Index, room: int) -> tuple[Index, Index, int]:
    """Returns (a row of each code in use, the codes numbered without gaps, how many)."""
    if room > max(_LARGEST, 16 * len(code)):
        _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
        return np.asarray(first, dtype=np.intp), np.asarray(inverse, dtype=np.intp), len(first)
    row = np.full(room, -1, dtype=np.intp)
    row[code] = np.arange(len(code), dtype=np.intp)
    used = row >= 0
    number = np.cumsum(used) - 1
    return row[used], np.asarray(number.take(code), dtype=np.intp), int(number[-1]) + 1


def _ranks(column: NDArray[np.int32]) -> tuple[Index | NDArray[np.int32], int]:
    """Returns numbers that order and tell apart a column's values, and what they are below."""
    top = int(column.max(initial=0))
    if top == int(column.min(initial=top)):
        return column, 1
    if top < _SMALL:  # as they are: gaps cost less than closing them
        return column, top + 1
    if top > _LARGEST:
        found, inverse = np.unique(column, return_inverse=True)
        return np.asarray(inverse, dtype=np.intp), len(found)
    at = column.astype(np.intp)
    seen = np.zeros(top + 1, dtype=np.bool_)
    seen[at] = True
    ranks = np.cumsum(seen) - 1
    return np.asarray(ranks.take(at), dtype=np.intp), int(ranks[-1]) + 1
