"""The cheapest hours of one job where every start costs work: a Lagrangian, and a walk over slots inside it.

A plan says for each slot on which kind of device a job runs, or that it does not. Work done in a slot is worth so many
grams, its price; for a price, the plan whose worth exceeds its emissions most is found by dynamic programming over
(slot, kind or none), a start being paid with lost work. The best plan for its price emits least among all that do as
much (Everett, Operations Research 1963). The price is found by bisection; of the plan just above what is needed the end
is cut, the plan just below grows where that is cheapest, and the one that emits less is taken. Between them there may
be a better.

A file of plain Python that Cython compiles where there is a compiler.
"""

from __future__ import annotations

from typing import Any

import numpy as np

try:
    import cython
except ImportError:
    from fleetcast.kernels import shim as cython

COMPILED = cython.compiled
HALVINGS = 40
"""Of the interval that holds the price."""
NONE = -1


def cheapest(
    grams: cython.double[:, ::1], done: cython.double[:, ::1], lost: cython.double[::1], need: cython.double,
    held: cython.int, fresh: cython.bint,
) -> Any:  # fmt: skip
    """Returns i4[S], the kind that the job is on in each slot, -1 = none; None where no plan does enough.

    Args:
        grams: f8[K, S], what a slot on a kind emits; inf = it cannot be there.
        done: f8[K, S], work that it does there.
        lost: f8[K], work that a start on a kind costs: on another kind than in the slot before, or after none.
        need: work to be done.
        held: the kind that it runs on now, -1 = none: to stay is no start.
        fresh: its first start costs nothing.
    """
    count: cython.int = grams.shape[1]
    kinds: cython.int = grams.shape[0]
    back = np.empty((count, kinds + 2), np.int32)
    plan = np.full(count, NONE, np.int32)
    worth = np.empty((2, kinds + 2))
    low: cython.double = 0.0
    high: cython.double = 1.0
    tries: cython.int = 0
    s: cython.int
    k: cython.int
    most: cython.double = 0.0
    for s in range(count):
        best: cython.double = 0.0
        for k in range(kinds):
            if grams[k, s] < 1e299 and done[k, s] > best:
                best = done[k, s]
        most += best
    if most < need:
        return None
    while _walk(grams, done, lost, high, held, fresh, back, worth, plan) < need:
        high *= 2.0
        tries += 1
        if tries > 200:
            return None
    tries = 0
    while tries < HALVINGS and high - low > 1e-9 * high:
        price: cython.double = 0.5 * (low + high)
        if _walk(grams, done, lost, price, held, fresh, back, worth, plan) < need:
            low = price
        else:
            high = price
        tries += 1
    other = np.full(count, NONE, np.int32)
    _walk(grams, done, lost, low, held, fresh, back, worth, other)
    _walk(grams, done, lost, high, held, fresh, back, worth, plan)
    _trim(done, lost, need, held, fresh, plan)
    if _grow(grams, done, lost, need, held, fresh, other):
        _trim(done, lost, need, held, fresh, other)
        if _emits(grams, done, lost, need, held, fresh, other) < _emits(grams, done, lost, need, held, fresh, plan):
            return other
    return plan


def soonest(
    done: cython.double[:, ::1], lost: cython.double[::1], need: cython.double, held: cython.int, fresh: cython.bint
) -> tuple[Any, int]:  # fmt: skip
    """Returns a plan that takes in every slot the kind on which most gets done, and the slot in which it has ended.

    Args:
        done: f8[K, S], work of a slot; below 0 = the job cannot be there.
        lost: as of `cheapest`; ``need``, ``held`` and ``fresh`` too.
        need: see there.
        held: see there.
        fresh: see there.

    Returns:
        i4[S] and the slot, -1 = it does not end in these slots.
    """
    count: cython.int = done.shape[1]
    kinds: cython.int = done.shape[0]
    plan = np.full(count, NONE, np.int32)
    view: cython.int[::1] = plan
    work: cython.double = 0.0
    s: cython.int
    k: cython.int
    for s in range(count):
        most: cython.double = -1e300
        best: cython.int = NONE
        for k in range(kinds):
            if done[k, s] < 0:
                continue
            gain: cython.double = done[k, s] if k == held or fresh else done[k, s] - lost[k]
            if gain > most:
                most, best = gain, k
        held = best
        if best < 0:
            continue
        fresh = False
        view[s] = best
        work += most
        if work >= need:
            return plan, s
    return plan, -1


@cython.cfunc
def _walk(
    grams: cython.double[:, ::1], done: cython.double[:, ::1], lost: cython.double[::1], price: cython.double,
    held: cython.int, fresh: cython.bint, back: cython.int[:, ::1], worth: cython.double[:, ::1], plan: cython.int[::1],
) -> cython.double:  # fmt: skip
    """Puts the best plan for a price into ``plan``; returns the work that it does.

    States: on kind k, at rest (K), waiting for a first start that is free (K + 1).
    """
    count: cython.int = grams.shape[1]
    kinds: cython.int = grams.shape[0]
    rest: cython.int = kinds
    wait: cython.int = kinds + 1
    s: cython.int
    k: cython.int
    j: cython.int
    never: cython.double = -1e300
    for k in range(kinds + 2):
        worth[0, k] = never
    state: cython.int = held if held >= 0 else (wait if fresh else rest)
    worth[0, state] = 0.0
    for s in range(count):
        a: cython.int = s % 2
        b: cython.int = 1 - a
        worth[b, wait], back[s, wait] = worth[a, wait], wait
        worth[b, rest], back[s, rest] = worth[a, rest], rest
        for k in range(kinds):
            if worth[a, k] > worth[b, rest]:
                worth[b, rest], back[s, rest] = worth[a, k], k
            if grams[k, s] > 1e299:
                worth[b, k], back[s, k] = never, k
                continue
            start: cython.double = price * lost[k]
            best: cython.double = worth[a, k]
            back[s, k] = k
            for j in range(kinds + 2):
                bid: cython.double = worth[a, j] if j == wait else worth[a, j] - start
                if j != k and bid > best:
                    best = bid
                    back[s, k] = j
            worth[b, k] = best + price * done[k, s] - grams[k, s]
    a = count % 2
    state = wait
    for j in range(kinds + 1):
        if worth[a, j] > worth[a, state]:
            state = j
    for s in range(count - 1, -1, -1):
        plan[s] = state if state < kinds else NONE
        state = back[s, state]
    return _does(done, lost, held, fresh, plan)


@cython.cfunc
def _does(
    done: cython.double[:, ::1], lost: cython.double[::1], held: cython.int, fresh: cython.bint, plan: cython.int[::1]
) -> cython.double:  # fmt: skip
    """Returns the work of a plan."""
    work: cython.double = 0.0
    s: cython.int
    for s in range(plan.shape[0]):
        k: cython.int = plan[s]
        if k >= 0:
            work += done[k, s]
            if k != held and not fresh:
                work -= lost[k]
            fresh = False
        held = k
    return work


@cython.cfunc
def _emits(
    grams: cython.double[:, ::1], done: cython.double[:, ::1], lost: cython.double[::1], need: cython.double,
    held: cython.int, fresh: cython.bint, plan: cython.int[::1],
) -> cython.double:  # fmt: skip
    """Returns what a plan emits until the job has ended, in its last slot."""
    total: cython.double = 0.0
    last: cython.int = -1
    s: cython.int
    for s in range(plan.shape[0]):
        if plan[s] >= 0:
            total += grams[plan[s], s]
            last = s
    if last < 0:
        return 0.0
    surplus: cython.double = _does(done, lost, held, fresh, plan) - need
    return total - grams[plan[last], last] * surplus / done[plan[last], last]


@cython.cfunc
def _grow(
    grams: cython.double[:, ::1], done: cython.double[:, ::1], lost: cython.double[::1], need: cython.double,
    held: cython.int, fresh: cython.bint, plan: cython.int[::1],
) -> cython.bint:  # fmt: skip
    """Adds the slots to a plan that emit least for what they do, until it does enough; returns whether it does."""
    s: cython.int
    k: cython.int
    work: cython.double = _does(done, lost, held, fresh, plan)
    while work < need:
        least: cython.double = 1e299
        at: cython.int = -1
        on: cython.int = -1
        for s in range(plan.shape[0]):
            if plan[s] >= 0:
                continue
            for k in range(grams.shape[0]):
                if grams[k, s] > 1e299:
                    continue
                plan[s] = k
                more: cython.double = _does(done, lost, held, fresh, plan) - work
                plan[s] = NONE
                if more > 0 and grams[k, s] / more < least:
                    least, at, on = grams[k, s] / more, s, k
        if at < 0:
            return False
        plan[at] = on
        work = _does(done, lost, held, fresh, plan)
    return True


@cython.cfunc
def _trim(
    done: cython.double[:, ::1], lost: cython.double[::1], need: cython.double, held: cython.int, fresh: cython.bint,
    plan: cython.int[::1],
) -> cython.void:  # fmt: skip
    """Takes the last slots out of a plan that it can do without: work done soon is safe from who comes later."""
    s: cython.int
    for s in range(plan.shape[0] - 1, -1, -1):
        k: cython.int = plan[s]
        if k >= 0:
            plan[s] = NONE
            if _does(done, lost, held, fresh, plan) < need:
                plan[s] = k
                return
