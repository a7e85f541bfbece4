"""Seconds of iterations that happened, by term: what a forecast says of the very passes that an engine ran.

The simulator sums the same tables over the iterations that it makes up. Here they are looked up for iterations that
were measured, column by column, which is what compares a forecast with a run term by term, and what refits it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import Unsupported
from fleetcast.cost.layers import kernel_format
from fleetcast.cost.step import GRID, StepCost

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Passes:
    """What iterations processed; columns of length n.

    Attributes:
        decodes: sequences that made a token.
        prompts: sequences whose prompt, or a piece of it, was processed.
        prompt_tokens: tokens of those.
        emitted: tokens that came out.
        context: cache tokens that decode steps read, their own included.
        pairs: pairs of a prompt's token and one it attends to.
        prompt_context: cache tokens that prompts read, their own included.
    """

    decodes: Array
    prompts: Array
    prompt_tokens: Array
    emitted: Array
    context: Array
    pairs: Array
    prompt_context: Array

    @property
    def tokens(self) -> Array:
        """Tokens that went through every matrix."""
        return np.asarray(self.decodes + self.prompt_tokens)

    def __getitem__(self, rows: Any) -> Passes:
        """Returns the passes at ``rows``."""
        return Passes(*(getattr(self, f.name)[rows] for f in fields(self)))


def kernel_seconds(cost: StepCost, done: Passes) -> dict[str, Array]:
    """Returns s by kernel, each of length n; "decode" and "prefill" are the two of attention.

    Args:
        cost: of a replica without pipeline stages, attention-DP, nano-batches or drafts.
        done: its iterations.

    Raises:
        Unsupported: the model has windows, whose reach the columns do not say, or the replica is none of those.
    """
    c, t = cost.scalars, cost.tables
    if c["window_share"] > 0 or c["stages"] > 1 or c["ranks"] > 1 or c["unit"] != 1 or cost.overlap is not None:
        raise Unsupported(
            "terms of single iterations: layers with a window, pipelines, attention-DP, nano-batches and drafts are "
            "not told apart", "Choose a plan without them",
        )  # fmt: skip
    tokens, n = done.tokens, done.decodes.astype(np.int64)
    dense = cost.parts["dense_communication"]
    reach = t["base"][n] + t["slope"][n] * done.context
    decode = np.where(n > 0, np.maximum(t["floor"][n], reach), 0.0)
    prefill = c["pre_base"] * done.prompts + c["pre_pair"] * done.pairs
    prefill = prefill + c["pre_query"] * done.prompt_tokens + c["pre_context"] * done.prompt_context
    return {
        "gemm": _at(cost.parts["gemm"], tokens), "elementwise": _at(cost.parts["memory-bound"], tokens),
        "experts": _at(cost.parts["experts"], tokens),
        "communication": _at(dense, tokens) + _at(cost.parts["communication"] - dense, tokens),
        "head": _at(t["head"], done.emitted), "decode": decode, "prefill": np.asarray(prefill, dtype=np.float64),
    }  # fmt: skip


def host_seconds(cost: StepCost, done: Passes) -> Array:
    """Returns s of the host's part of each iteration, where nothing of it is hidden."""
    c = cost.scalars
    sequences = done.decodes + done.prompts
    return np.asarray(c["host_step"] + c["host_seq"] * sequences + c["host_token"] * done.tokens)


def by_constant(cost: StepCost, done: Passes, found: Mapping[str, Array]) -> dict[str, Array]:
    """Returns kernel seconds as a calibration scales them, which add up to ``found``.

    ``memory.FORMAT``: products of one row, which is reading the weights, by number format, the LM head's among them;
    ``compute.FORMAT``: what further rows add; ``decode`` and ``prefill``: those of attention; ``elementwise``: passes
    over activations; ``sampling``: from logits to tokens; ``communication``.

    Args:
        cost: of the replica.
        done: its iterations.
        found: from `kernel_seconds`.
    """
    assert cost.rank is not None
    rank = cost.rank
    columns = ceil(rank.model.vocab / rank.tp)
    head = rank.product(GRID, columns, rank.model.hidden, "head")
    terms: dict[str, Array] = {}
    parts = (
        ("ffn", cost.parts["gemm"], done.tokens), ("experts", cost.parts["experts"], done.tokens),
        ("head", head, done.emitted),
    )  # fmt: skip
    for part, table, rows in parts:
        form = kernel_format(rank.precision, part)
        form = "bf16" if form == "fp16" else form  # the same kernels
        seconds = _at(table, rows)
        least = np.minimum(np.where(rows > 0, table[1], 0.0), seconds)
        for name, share in ((f"memory.{form}", least), (f"compute.{form}", seconds - least)):
            terms[name] = terms.get(name, np.zeros_like(seconds)) + share
    terms |= {name: found[name] for name in ("decode", "prefill", "elementwise", "communication")}
    terms["sampling"] = found["head"] - np.minimum(_at(head, done.emitted), found["head"])
    return {name: seconds for name, seconds in terms.items() if seconds.any()}


def _at(table: Array, tokens: Array) -> Array:
    """Returns a table over `GRID` at ``tokens``: linear between, and beyond as between the last two."""
    found = np.interp(tokens, GRID, table)
    slope = (table[-1] - table[-2]) / (GRID[-1] - GRID[-2])
    return np.asarray(found + slope * np.maximum(0.0, tokens - GRID[-1]))
