"""What an iteration costs where tokens are drafted: the target checks drafts, drafters run before it on its devices.

An iteration of n sequences that draft k tokens each takes k passes of the drafter at n tokens and one pass of the
target at n (k + 1), whose attention reads each cache once for k + 1 queries. Both come from their own `StepCost`. The
drafter's passes depend on n alone, so they go into the tables of decode attention, whose floor and affine part the two
models' are added into: the drafter is taken to leave its floor where the target does, which is off by at most its own
floor, tens of microseconds. Lengths that differ between sequences are taken at their long-run shares.

Apart, drafters have devices of their own, in the target's group or another, and the batch is split in two halves that
take turns: one is drafted for while the other is checked. A round of both takes twice the longer of the two, or, where
that is shorter, a draft and a check of the whole batch one after the other. What travels is token ids, `ID` bytes each:
the drafts to the target, and back what it made of them, two messages a half one after the other. Their time counts as
the drafting side's. Drafts are checked against the target's own choice, so no probabilities are sent.

A check and a draft grow with context at different rates, so a round is the larger of two affine functions. It is
charged as the affine one that lies on or above it at no context and at a full cache, as decode attention is under
nano-batches: exact where one side is the longer at both ends, else never too little. A prompt is read by the drafters
while the target reads it; what a slower drafter needs beyond is charged, operator by operator.

Not charged: the host's time between draft passes; a second read of the drafter's weights for a prompt (its prompt
rides along with the first pass); the drafters' queries of a prompt that was prefilled in another pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, hypot

import numpy as np

from fleetcast.cost.speculate import Process
from fleetcast.cost.step import GRID, Array, StepCost
from fleetcast.scenario.fleet.links import Link, transfer_time

UNIT = 64
"""Contexts grow by the mean tokens of a call, counted in 64ths of a token."""
LINEAR = (512.0, 8192.0)
"""Tokens between which a drafter's time for a prompt is taken to grow, per token."""
ID = 4.0
"""Bytes of a token's number on a link."""
PREFILL = ("pre_base", "pre_pair", "pre_query", "pre_context")


def with_drafts(
    cost: StepCost, process: Process, drafter: StepCost | None, apart: Sequence[Link] | None = None,
    doubted: float = 0.0,
) -> StepCost:  # fmt: skip
    """Returns the cost of an iteration that checks drafts.

    Args:
        cost: of the target alone, its attention priced for ``process.length + 1`` queries a sequence.
        process: what is drafted and accepted.
        drafter: cost of one drafter, None where drafts cost nothing (n-grams).
        apart: links to the devices that drafters have to themselves; None = they share the target's.
        doubted: standard deviation of log(time per token) that the acceptance leaves.
    """
    tables, scalars = dict(cost.tables), dict(cost.scalars)
    work = dict(cost.work) | {"queries": process.length + 1.0, "calls": process.tokens}
    scalars |= {
        "unit": UNIT, "growth": round(process.tokens * UNIT), "width": ceil((process.length + 1.0) * UNIT - 1e-9),
        "ahead": ceil(process.length - 1e-9),
    }  # fmt: skip
    n = np.arange(len(tables["floor"]), dtype=np.float64)
    tables["draft"] = np.zeros_like(n)
    if drafter is not None:
        own = 1 if apart is not None else process.drafters  # of drafters apart one stands for all: they work alike
        passes = own * process.length
        tables["draft"] = own * _passes(process, drafter, n)
        work["draft_bytes"] = passes * _weights(drafter)
        work["draft_flops"] = passes * (drafter.work["flops_token"] + drafter.work["flops_head"])
        work["draft_kv"] = passes * drafter.work["kv_bytes"]
        if apart is None:
            tables |= _after(tables, passes, drafter)
            for name, more in _prompt(drafter, _work(drafter)).items():
                scalars[name] += own * more
            scalars["swap_block"] += own * drafter.scalars["swap_block"]
        else:
            drafts = tables["draft"] + process.length * drafter.tables["base"]
            tables |= _turns(cost, process, drafts, drafter.tables["slope"], exchange(process, apart, n))
            theirs = _prompt(cost, cost.tables["dense"] + cost.tables["experts"])
            alone = _prompt(drafter, drafter.tables["dense"] + drafter.tables["experts"])  # prompts need no logits
            for name in PREFILL:
                scalars[name] += max(0.0, alone[name] - theirs[name])
            # a drafter's own time by tokens that come out of the target, which the loop counts
            work["draft_time"] = np.interp(GRID * UNIT / scalars["width"], n, drafts)
            work["draft_prompt"], work["draft_prompt_flops"] = alone["pre_query"], drafter.work["flops_token"]
        cost = replace(
            cost, apart=apart is not None, notes=_joined(cost.notes, drafter.notes),
            spread=max(cost.spread, drafter.spread),
        )  # fmt: skip
    doubt = cost.doubt[0], hypot(cost.doubt[1], doubted)  # a first token waits for no draft
    return replace(cost, tables=tables, scalars=scalars, work=work, doubt=doubt)


def exchange(process: Process, links: Sequence[Link], n: Array) -> Array:
    """Returns seconds that the token ids of ``n`` sequences travel in a round: drafts there, the target's tokens back.

    All drafters' ids pass the target's end of the link one after the other.
    """
    fixed = transfer_time(links, 0.0, 2.0)
    each = transfer_time(links, process.drafters * (2.0 * process.length + 1.0) * ID, 0.0)
    return np.where(n > 0, fixed + each * n, 0.0)


def _after(tables: dict[str, Array], passes: float, drafter: StepCost) -> dict[str, Array]:
    """Returns decode attention's tables with drafters that run before each check on the target's devices."""
    return {
        f"{cut}{name}": tables[f"{cut}{name}"]
        + passes * drafter.tables[name] + (tables["draft"] if name != "slope" else 0.0)
        for cut in ("", "cut_") for name in ("floor", "base", "slope") if f"{cut}{name}" in tables
    }  # fmt: skip


def _turns(cost: StepCost, process: Process, drafts: Array, slope: Array, sent: Array) -> dict[str, Array]:
    """Returns decode attention's tables with what drafters on devices of their own add, and that alone as ``draft``.

    Args:
        cost: of the target alone.
        process: what is drafted.
        drafts: s that a drafter's passes take by sequences, without context.
        slope: s of one of its passes per token of context.
        sent: s that ids travel by sequences.
    """
    tables, scalars = cost.tables, cost.scalars
    n = np.arange(len(drafts), dtype=np.float64)
    half, width = n / 2.0, ceil((process.length + 1.0) * UNIT - 1e-9) / UNIT
    checks = tables["dense"] + tables["experts"] + tables["head"]
    drafts, drafted = drafts + sent, process.length * slope
    context = cost.rank.model.context if cost.rank is not None else 0
    room = float(scalars["capacity"] * scalars["block"])
    reach = np.maximum(np.minimum(room, n * (context or room)), 1.0)
    found: dict[str, Array] = {}
    for cut in ("", "cut_"):
        if f"{cut}base" not in tables:
            continue
        base, own = tables[f"{cut}base"], tables[f"{cut}slope"]
        check = _at(checks, n * width) + base
        halves = 2.0 * (_at(checks, half * width) + np.interp(half, n, base)), 2.0 * np.interp(half, n, drafts)
        turns = np.maximum(np.maximum(*halves), check)
        full = np.maximum(np.maximum(halves[0] + own * reach, halves[1] + drafted * reach), turns)
        together = (n >= 2) & (turns < check + drafts)
        more = np.where(together, turns - check, drafts)
        found |= {f"{cut}floor": tables[f"{cut}floor"] + more, f"{cut}base": base + more}
        found[f"{cut}slope"] = np.where(together, (full - turns) / reach, own + drafted)
        found.setdefault("draft", more)
    return found


def _prompt(cost: StepCost, work: Array) -> dict[str, float]:
    """Returns the scalars of prefill attention with a token's ``work`` in ``pre_query``."""
    low, high = (float(_at(work, x)) for x in LINEAR)
    found = {name: float(cost.scalars[name]) for name in PREFILL}
    return found | {"pre_query": found["pre_query"] + (high - low) / (LINEAR[1] - LINEAR[0])}


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
