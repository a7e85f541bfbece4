"""The hot loop of functions: pods of one function after another, from event to event.

Where pods share nothing, functions are independent, so each is walked alone and its events are three sorted columns:
arrivals, arrivals of its caller, and at most one time at which a pod shall be warm again. Busy pods wait in a heap for
their end, idle ones in a stack, the one used last on top: it takes the next request, so that others may end (of all
ways to match pods to requests this leaves the shortest gaps). A dead pod is seen when it comes to the top, once.

Plain Python that Cython compiles where there is a compiler. It knows no policy: decisions are columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

try:
    import cython
except ImportError:
    from fleetcast.kernels import shim as cython

COMPILED = cython.compiled
WARM, COLD, STARTING, DELAYED = range(4)
"""How a request met its pod: idle; started for it; being started already; it waited for a busy one."""


def column(code: str, values: Any) -> Any:
    """Returns a column the loop can index, compiled or not, without a copy where the type is right."""
    array: Any = np.require(values, dtype={"d": "f8", "i": "i4", "q": "i8", "b": "i1"}[code], requirements=("C", "W"))
    return memoryview(array)


@cython.cfunc
@cython.boundscheck(False)
@cython.wraparound(False)
def _sink(key: cython.double[::1], pod: cython.longlong[::1], size: cython.Py_ssize_t) -> cython.int:
    """Puts the last entry of a heap in its place."""
    child: cython.Py_ssize_t = size - 1
    up: cython.Py_ssize_t
    k: cython.double = key[child]
    p: cython.longlong = pod[child]
    while child > 0:
        up = (child - 1) // 2
        if key[up] < k or (key[up] == k and pod[up] < p):
            break
        key[child] = key[up]
        pod[child] = pod[up]
        child = up
    key[child] = k
    pod[child] = p
    return 0


@cython.cfunc
@cython.boundscheck(False)
@cython.wraparound(False)
def _lift(
    key: cython.double[::1], pod: cython.longlong[::1], hole: cython.Py_ssize_t, size: cython.Py_ssize_t
) -> cython.int:  # fmt: skip
    """Takes the entry at ``hole`` out of a heap of ``size``, which is one shorter afterwards."""
    child: cython.Py_ssize_t
    up: cython.Py_ssize_t
    k: cython.double = key[size - 1]
    p: cython.longlong = pod[size - 1]
    size -= 1
    if hole >= size:
        return 0
    while hole > 0:
        up = (hole - 1) // 2
        if key[up] < k or (key[up] == k and pod[up] < p):
            break
        key[hole] = key[up]
        pod[hole] = pod[up]
        hole = up
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        if child + 1 < size and (
            key[child + 1] < key[child] or (key[child + 1] == key[child] and pod[child + 1] < pod[child])
        ):
            child += 1
        if k < key[child] or (k == key[child] and p < pod[child]):
            break
        key[hole] = key[child]
        pod[hole] = pod[child]
        hole = child
    key[hole] = k
    pod[hole] = p
    return 0


@cython.ccall
@cython.boundscheck(False)
@cython.wraparound(False)
@cython.cdivision(True)
def walk(
    first: cython.longlong[::1], time: cython.double[::1], duration: cython.double[::1], row: cython.longlong[::1],
    total: cython.double[::1], patience: cython.double[::1], span: cython.double,
    rule: cython.longlong[::1], rule_at: cython.longlong[::1], keep: cython.double[::1], begin: cython.double[::1],
    end: cython.double[::1], follow: cython.double[::1],
    hook: cython.longlong[::1], hook_time: cython.double[::1],
    wait: cython.double[::1], state: cython.char[::1], idle: cython.double[::1],
    pod_function: cython.int[::1], pod_start: cython.double[::1], pod_row: cython.longlong[::1],
    pod_last: cython.double[::1], pod_death: cython.double[::1],
    key: cython.double[::1], heap: cython.longlong[::1], stack: cython.longlong[::1], free: cython.double[::1],
    claimed: cython.char[::1],
) -> cython.longlong:  # fmt: skip
    """Walks every function; returns the number of pods.

    Of the trace: ``first``, ``time``, ``duration``, ``row``, ``span``, and ``total``, s of each start; ``patience``
    f8[F], s that a request may wait for a busy pod. Decisions: those of function f are ``rule[f]`` to ``rule[f + 1]``,
    each from its arrival ``rule_at`` on: ``keep``, ``begin``, ``end``, ``follow``. The arrivals of f's caller are
    ``hook[f]`` to ``hook[f + 1]`` of ``hook_time``, s.

    Written: ``wait`` f8[n], s until a pod was there, ``state`` i1[n], how the request met it, ``idle`` f8[F], s that
    pods were warm without work; of each pod its function, when its start began, which start it took, when its last
    request ended (its being ready where none came) and when it ended. ``key``, ``heap``, ``stack``, ``free`` and
    ``claimed`` are room for as many pods.
    """
    f: cython.Py_ssize_t
    i: cython.Py_ssize_t
    j: cython.Py_ssize_t
    h: cython.Py_ssize_t
    s: cython.Py_ssize_t
    lo: cython.Py_ssize_t
    hi: cython.Py_ssize_t
    stop: cython.Py_ssize_t
    over: cython.Py_ssize_t
    busy: cython.Py_ssize_t
    warm: cython.Py_ssize_t
    coming: cython.Py_ssize_t
    p: cython.longlong
    pods: cython.longlong = 0
    rows: cython.longlong
    arriving: cython.double
    calling: cython.double
    pending: cython.double
    until: cython.double
    a: cython.double
    u: cython.double
    e: cython.double
    d: cython.double
    following: cython.double
    idled: cython.double
    never: cython.double = float("inf")
    is_arrival: cython.bint
    for f in range(len(first) - 1):
        lo, hi = first[f], first[f + 1]
        j, stop, h, over = rule[f], rule[f + 1], hook[f], hook[f + 1]
        rows = row[f + 1] - row[f]
        busy = warm = coming = 0
        pending, until, following, idled = never, never, 0.0, 0.0
        i = lo
        while True:
            arriving = time[i] if i < hi else never
            calling = hook_time[h] if h < over else never
            is_arrival = False
            u = 0.0
            if calling <= pending and calling <= arriving:
                if calling == never:
                    break
                a = calling
                h += 1
                if following <= 0.0 or a >= span:
                    continue
                u = a + following
            elif pending <= arriving:
                a = pending
                u = until
                pending = never
                if a >= span:
                    continue
            else:
                a = arriving
                is_arrival = True
            # pods that have become idle, in the order in which they did
            while busy > 0 and key[0] <= a:
                p = heap[0]
                free[p] = key[0]
                _lift(key, heap, 0, busy)
                busy -= 1
                if claimed[p] == 0:
                    claimed[p] = 1
                    coming -= 1
                stack[warm] = p
                warm += 1
            # the one used last that still lives
            p = -1
            while warm > 0:
                p = stack[warm - 1]
                if pod_death[p] >= a:
                    break
                idled += pod_death[p] - free[p]
                warm -= 1
                p = -1
            if not is_arrival:
                if u > span:
                    u = span
                if p < 0 and coming > 0:
                    for s in range(busy):
                        if claimed[heap[s]] == 0 and (p < 0 or heap[s] < p):
                            p = heap[s]
                if p >= 0:
                    if pod_death[p] < u:
                        pod_death[p] = u
                    continue
                p = pods
                pods += 1
                pod_function[p] = cython.cast(cython.int, f)
                pod_start[p] = a
                pod_row[p] = row[f] + (i - lo) % rows
                e = a + total[pod_row[p]]
                pod_last[p] = e
                pod_death[p] = u if u > e else e
                claimed[p] = 0
                coming += 1
                key[busy] = e
                heap[busy] = p
                busy += 1
                _sink(key, heap, busy)
                continue
            if p >= 0:
                warm -= 1
                idled += a - free[p]
                wait[i] = 0.0
                state[i] = 0
            elif coming > 0:
                over_s: cython.Py_ssize_t = -1
                for s in range(busy):
                    if claimed[heap[s]] == 0 and (over_s < 0 or heap[s] < heap[over_s]):
                        over_s = s
                p = heap[over_s]
                wait[i] = key[over_s] - a
                _lift(key, heap, over_s, busy)
                busy -= 1
                coming -= 1
                claimed[p] = 1
                state[i] = 2
            elif patience[f] > 0.0 and busy > 0 and key[0] <= a + patience[f]:
                p = heap[0]
                wait[i] = key[0] - a
                _lift(key, heap, 0, busy)
                busy -= 1
                state[i] = 3
            else:
                p = pods
                pods += 1
                pod_function[p] = cython.cast(cython.int, f)
                pod_start[p] = a
                pod_row[p] = row[f] + (i - lo) % rows
                claimed[p] = 1
                wait[i] = total[pod_row[p]]
                state[i] = 1
            while j + 1 < stop and rule_at[j + 1] <= i - lo:
                j += 1
            e = a + wait[i] + duration[i]
            d = e + keep[j]
            if d > span:
                d = span if span > e else e
            pod_last[p] = e
            pod_death[p] = d
            key[busy] = e
            heap[busy] = p
            busy += 1
            _sink(key, heap, busy)
            pending = a + begin[j]
            until = a + end[j]
            following = follow[j]
            i += 1
        for s in range(busy):
            idled += pod_death[heap[s]] - key[s]
        for s in range(warm):
            idled += pod_death[stack[s]] - free[stack[s]]
        idle[f] = idled
    return pods


@cython.ccall
@cython.boundscheck(False)
@cython.wraparound(False)
@cython.cdivision(True)
def match(
    first: cython.longlong[::1], time: cython.double[::1], duration: cython.double[::1], gap: cython.double[::1],
    before: cython.longlong[::1], key: cython.double[::1], heap: cython.longlong[::1], stack: cython.longlong[::1],
) -> cython.int:  # fmt: skip
    """Gives every request the pod that became free last, were starts to take no time and pods never to end.

    Written: ``gap`` f8[n], s that the pod had been free, infinite where none was; ``before`` i8[n], the request that it
    served, -1 where none. ``key``, ``heap`` and ``stack`` are room for n.
    """
    f: cython.Py_ssize_t
    i: cython.Py_ssize_t
    busy: cython.Py_ssize_t
    warm: cython.Py_ssize_t
    q: cython.longlong
    for f in range(len(first) - 1):
        busy = warm = 0
        for i in range(first[f], first[f + 1]):
            while busy > 0 and key[0] <= time[i]:
                stack[warm] = heap[0]
                warm += 1
                _lift(key, heap, 0, busy)
                busy -= 1
            if warm > 0:
                warm -= 1
                q = stack[warm]
                before[i] = q
                gap[i] = time[i] - (time[q] + duration[q])
            else:
                before[i] = -1
                gap[i] = float("inf")
            key[busy] = time[i] + duration[i]
            heap[busy] = i
            busy += 1
            _sink(key, heap, busy)
    return 0
