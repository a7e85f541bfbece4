"""Walks over a directed acyclic graph in compressed rows: an order, and the longest way to the end.

Children of node i are ``child[first[i] : first[i + 1]]``. Columns are memoryviews of NumPy arrays, so that the same
lines run compiled and as plain Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np

try:
    import cython
except ImportError:
    from fleetcast.kernels import shim as cython

COMPILED = cython.compiled


def column(code: str, values: Any) -> Any:
    """Returns a column the loops can index, compiled or not, without a copy where the type is right."""
    array: Any = np.require(values, dtype={"d": "f8", "i": "i4", "q": "i8"}[code], requirements=("C", "W"))
    return memoryview(array)


def topological(first: Any, child: Any) -> Any:
    """Returns the nodes, each after all of its parents, breadth first (Kahn, 1962); fewer than all where a cycle is.

    Args:
        first: i8[n + 1].
        child: i4[m].
    """
    n = len(first) - 1
    out = np.empty(n, np.int32)
    degree = np.bincount(child, minlength=n).astype(np.int32) if n else np.empty(0, np.int32)
    if n == 0:
        return out
    done = _topological(n, column("q", first), column("i", child), column("i", degree), column("i", out))
    return out[:done]


@cython.ccall
@cython.boundscheck(False)
@cython.wraparound(False)
def _topological(
    n: cython.Py_ssize_t, first: cython.longlong[::1], child: cython.int[::1], degree: cython.int[::1],
    out: cython.int[::1],
) -> cython.Py_ssize_t:  # fmt: skip
    i: cython.Py_ssize_t
    e: cython.Py_ssize_t
    c: cython.int
    filled: cython.Py_ssize_t = 0
    taken: cython.Py_ssize_t = 0
    for i in range(n):
        if degree[i] == 0:
            out[filled] = cython.cast(cython.int, i)
            filled += 1
    while taken < filled:
        i = out[taken]
        taken += 1
        for e in range(first[i], first[i + 1]):
            c = child[e]
            degree[c] -= 1
            if degree[c] == 0:
                out[filled] = c
                filled += 1
    return filled


def upward(order: Any, first: Any, child: Any, weight: Any, gap: Any) -> Any:
    """Returns f8[n], the longest way from a node's begin to the end: its weight, and of one child the gap and the same.

    Args:
        order: i4[n], topological.
        first: i8[n + 1].
        child: i4[m].
        weight: f8[n], of nodes.
        gap: f8[m], of edges.
    """
    rank = np.zeros(len(weight))
    if len(rank):
        child, gap = (child, gap) if len(child) else (np.zeros(1, np.int32), np.zeros(1))
        _upward(
            column("i", order), column("q", first), column("i", child), column("d", weight), column("d", gap),
            column("d", rank),
        )  # fmt: skip
    return rank


@cython.ccall
@cython.boundscheck(False)
@cython.wraparound(False)
def _upward(
    order: cython.int[::1], first: cython.longlong[::1], child: cython.int[::1], weight: cython.double[::1],
    gap: cython.double[::1], rank: cython.double[::1],
) -> cython.int:  # fmt: skip
    i: cython.Py_ssize_t
    k: cython.Py_ssize_t
    e: cython.Py_ssize_t
    most: cython.double
    way: cython.double
    for k in range(len(order) - 1, -1, -1):
        i = order[k]
        most = 0.0
        for e in range(first[i], first[i + 1]):
            way = gap[e] + rank[child[e]]
            if way > most:
                most = way
        rank[i] = weight[i] + most
    return 0


def optimistic(order: Any, first: Any, child: Any, seconds: Any, gap: Any) -> Any:
    """Returns f8[K, n], PEFT's optimistic costs: from a task's end on a kind of worker to the graph's end, at best.

    Every later task takes the worker that is best for it, nobody waits; of several children the longest way counts.

    Args:
        order: i4[n], topological.
        first: i8[n + 1].
        child: i4[m].
        seconds: f8[K, n], of tasks; inf = a kind cannot run it.
        gap: f8[m], s of an edge between two workers.
    """
    kinds, n = seconds.shape
    cost = np.zeros(kinds * n)
    if n:
        child, gap = (child, gap) if len(child) else (np.zeros(1, np.int32), np.zeros(1))
        _optimistic(
            kinds, n, column("i", order), column("q", first), column("i", child), column("d", seconds.ravel()),
            column("d", gap), column("d", cost), column("d", np.zeros(n)),
        )  # fmt: skip
    return cost.reshape(kinds, n)


@cython.ccall
@cython.boundscheck(False)
@cython.wraparound(False)
def _optimistic(
    kinds: cython.Py_ssize_t, n: cython.Py_ssize_t, order: cython.int[::1], first: cython.longlong[::1],
    child: cython.int[::1], seconds: cython.double[::1], gap: cython.double[::1], cost: cython.double[::1],
    best: cython.double[::1],
) -> cython.int:  # fmt: skip
    i: cython.Py_ssize_t
    k: cython.Py_ssize_t
    e: cython.Py_ssize_t
    p: cython.Py_ssize_t
    c: cython.Py_ssize_t
    way: cython.double
    stay: cython.double
    for k in range(n - 1, -1, -1):
        i = order[k]
        best[i] = float("inf")
        for p in range(kinds):
            for e in range(first[i], first[i + 1]):
                c = child[e]
                way = best[c] + gap[e]
                stay = cost[p * n + c] + seconds[p * n + c]
                if stay < way:
                    way = stay
                if way > cost[p * n + i]:
                    cost[p * n + i] = way
            way = cost[p * n + i] + seconds[p * n + i]
            if way < best[i]:
                best[i] = way
    return 0
