"""What an iteration costs where tokens are drafted: the target checks drafts, drafters run before it on its devices.

An iteration of n sequences that draft k tokens each takes k passes of the drafter at n tokens and one pass of the
target at n (k + 1), whose attention reads each cache once for k + 1 queries. Both come from their own `StepCost`. The
drafter's passes depend on n alone, so they go into the tables of decode attention, whose floor and affine part the two
models' are added into: the drafter is taken to leave its floor where the target does, which is off by at most its own
floor, tens of microseconds. Lengths that differ between sequences are taken at their long-run shares.

Pipelined, each drafter has a device of its own, and the batch is split in two halves that take turns: one is drafted
for while the other is checked. A round of both takes twice the longer of the two, or, where that is shorter, a draft
and a check of the whole batch one after the other. A prompt is read by the drafters meanwhile, at no cost.

Not charged: the host's time between draft passes; a second read of the drafter's weights for a prompt (its prompt
rides along with the first pass).
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np

from fleetcast.cost.speculate import Process
from fleetcast.cost.step import GRID, Array, StepCost

UNIT = 64
"""Contexts grow by the mean tokens of a call, counted in 64ths of a token."""
LINEAR = (512.0, 8192.0)
"""Tokens between which a drafter's time for a prompt is taken to grow, per token."""


def with_drafts(cost: StepCost, process: Process, drafter: StepCost | None, pipelined: bool = False) -> StepCost:
    """Returns the cost of an iteration that checks drafts.

    Args:
        cost: of the target alone, its attention priced for ``process.length + 1`` queries a sequence.
        process: what is drafted and accepted.
        drafter: cost of one drafter, None where drafts cost nothing (n-grams).
        pipelined: drafters have devices of their own.
    """
    tables, scalars = dict(cost.tables), dict(cost.scalars)
    work = dict(cost.work) | {"queries": process.length + 1.0, "calls": process.tokens}
    scalars |= {
        "unit": UNIT, "growth": round(process.tokens * UNIT), "width": ceil((process.length + 1.0) * UNIT - 1e-9),
        "ahead": ceil(process.length - 1e-9),
    }  # fmt: skip
    n = np.arange(len(tables["floor"]), dtype=np.float64)
    tables["draft"] = np.zeros_like(n)
    if drafter is not None and pipelined:
        tables |= _pipelined(tables, process, drafter, scalars["width"] / UNIT, n)
        work["draft_bytes"] = process.length * _weights(drafter)
        count = process.drafters * drafter.devices * scalars["ranks"]
        cost = replace(cost, drafters=count, notes=_joined(cost.notes, drafter.notes))
    elif drafter is not None:
        passes = process.drafters * process.length
        tables["draft"] = process.drafters * _passes(process, drafter, n)
        for name in ("floor", "base", "slope"):
            more = process.drafters * process.length * drafter.tables[name]
            tables[name] = tables[name] + more + (tables["draft"] if name != "slope" else 0.0)
        low, high = (_at(_work(drafter), x) for x in LINEAR)
        scalars["pre_query"] += process.drafters * (high - low) / (LINEAR[1] - LINEAR[0])
        for name in ("pre_base", "pre_pair", "pre_query", "pre_context", "swap_block"):
            scalars[name] += process.drafters * drafter.scalars[name]
        work["draft_bytes"] = passes * _weights(drafter)
        work["draft_flops"] = passes * (drafter.work["flops_token"] + drafter.work["flops_head"])
        work["draft_kv"] = passes * drafter.work["kv_bytes"]
        cost = replace(cost, notes=_joined(cost.notes, drafter.notes))
    return replace(cost, tables=tables, scalars=scalars, work=work)


def _pipelined(
    tables: dict[str, Array], process: Process, drafter: StepCost, width: float, n: Array
) -> dict[str, Array]:
    """Returns decode attention's tables with what drafting on devices of their own adds, and the drafts' own time."""
    checks, own = tables["dense"] + tables["experts"] + tables["head"], process.length

    def check(m: Array) -> Array:
        return _at(checks, m * width) + np.interp(m, n, tables["base"])

    def draft(m: Array) -> Array:
        return np.interp(m, n, _passes(process, drafter, n) + own * drafter.tables["base"])

    half = n / 2.0
    turns = np.maximum(2.0 * np.maximum(check(half), draft(half)) - check(n), 0.0)
    alone = draft(n)
    together = (n >= 2) & (turns < alone)
    more = np.where(together, turns, alone)
    hidden = together & (check(half) >= draft(half))  # then the drafter's cache is read meanwhile, too
    slope = np.where(hidden, 0.0, own * drafter.tables["slope"])
    return {
        "draft": alone, "floor": tables["floor"] + more, "base": tables["base"] + more,
        "slope": tables["slope"] + slope,
    }  # fmt: skip


def _weights(drafter: StepCost) -> float:
    """Bytes of weights that a pass of one token reads."""
    return float((drafter.work["weight_bytes"] + drafter.work["head_bytes"] * (GRID > 0))[1])


def _joined(notes: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    return (*notes, *(note for note in more if note not in notes))


def _passes(process: Process, drafter: StepCost, n: Array) -> Array:
    """Returns seconds of one drafter's passes for ``n`` sequences, attention aside: a pass runs while any drafts on."""
    total = np.zeros_like(n)
    work = _work(drafter)
    for place in range(1, max(process.lengths) + 1):
        share = process.reaches(place)
        any_ = 1.0 - (1.0 - share) ** n
        size = np.divide(n * share, any_, out=np.zeros_like(n), where=any_ > 0)
        total += any_ * _at(work, size)
    return total


def _work(drafter: StepCost) -> Array:
    return np.asarray(drafter.tables["dense"] + drafter.tables["experts"] + drafter.tables["head"])


def _at(table: Array, tokens: Array | float) -> Array:
    return np.asarray(np.interp(tokens, GRID, table))
