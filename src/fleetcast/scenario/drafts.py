"""Drafts in a plan: what a ``speculate`` table says of who drafts, and what a draft pool may say beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import Spec, convert

DRAFTING = ("model", "acceptance", "acceptance_spread", "drafter_correlation", "lookups", "pipelined")
"""What ``speculate`` says beside its policy: see `Drafting`."""
MOST_SPREAD = 0.5
"""Most standard deviation that a rate from 0 to 1 can have."""
UNDRAFTED = ("off", "ngram")
"""Kinds of ``speculate`` for which no model drafts."""
SERVING = ("batch", "order", "memory", "overlap", "speculate", "prefix_cache")
"""What only a pool that serves requests is told."""
UNSPLIT = ("pipeline_parallel", "expert_parallel", "attention_dp")
"""Degrees that a draft pool has none of."""


class Drafting(Spec):
    """Who drafts tokens for speculation, and how good the drafts are.

    Attributes:
        model: of the drafter, by catalogue name or path. None for n-grams.
        pipelined: true = each drafter has a device of its own in the same group, and drafts for half of the batch while
            the other half is checked: short for a draft pool there; false = they run on the pool's devices, before
            each check; None = in the plan's draft pool where there is one, else as false.
        acceptance: chance that a drafted token is accepted where those before it were; a list gives one per
            position, a name a published profile; None = assumed.
        acceptance_spread: standard deviation of how far the acceptance may be off, which widens intervals; None = that
            of published profiles among each other where one is named or the rate is assumed, else 0.02.
        drafter_correlation: of several drafters, from 0 = independent to 1 = copies of one another.
        lookups: share of calls for which an n-gram lookup finds a draft.
    """

    model: str | None = None
    acceptance: float | str | tuple[float, ...] | None = None
    acceptance_spread: float | None = None
    drafter_correlation: float = 0.5
    lookups: float = 1.0
    pipelined: bool | None = None


def drafts_by_model(table: Any) -> bool:
    """Whether a model drafts under one value of ``speculate``."""
    return table is not None and (table.get("kind") if isinstance(table, dict) else table) not in UNDRAFTED


def drafts_elsewhere(table: Any) -> bool:
    """Whether the model that drafts under one value of ``speculate`` runs in the draft pool, where a plan has one."""
    return drafts_by_model(table) and not (isinstance(table, dict) and table.get("pipelined") is False)


def drafting_of(table: Any, path: str) -> tuple[Any, Drafting]:
    """Returns what a ``speculate`` table says of the policy, and of who drafts.

    Raises:
        SpecError: an acceptance, correlation or share outside 0 to 1, or a model where none drafts.
    """
    if not isinstance(table, dict):
        return table, Drafting()
    found: Drafting = convert({k: v for k, v in table.items() if k in DRAFTING}, Drafting, path)
    if isinstance(found.acceptance, tuple) and not found.acceptance:
        raise SpecError(f"{path}.acceptance", "is empty", limit="one rate per position", hint="Or leave it out")
    rates = found.acceptance if isinstance(found.acceptance, tuple) else (found.acceptance,)
    for name, values in (
        ("acceptance", rates), ("drafter_correlation", (found.drafter_correlation,)), ("lookups", (found.lookups,)),
    ):  # fmt: skip
        for value in values:
            if isinstance(value, float | int) and not 0.0 <= value <= 1.0:
                raise SpecError(f"{path}.{name}", "is out of range", value=value, limit="0 to 1")
    spread = found.acceptance_spread
    if spread is not None and not 0.0 <= spread <= MOST_SPREAD:
        raise SpecError(f"{path}.acceptance_spread", "is out of range", value=spread, limit=f"0 to {MOST_SPREAD:g}")
    kind = table.get("kind")
    if kind in UNDRAFTED and found.model is not None:
        raise SpecError(
            f"{path}.model", f"is not used by '{kind}'", value=found.model, hint='Leave it out, or use kind = "fixed"'
        )
    return {k: v for k, v in table.items() if k not in DRAFTING}, found


def check_drafts(pools: Sequence[Mapping[str, Any]], places: Sequence[str], path: str) -> None:
    """Refuses a draft pool that has nobody to draft for, or is told what only a pool that serves can do.

    Args:
        pools: tables of a plan's pools, what is left out not in them.
        places: where each stands, for errors.
        path: of the plan.

    Raises:
        SpecError: one of these, or several draft pools.
    """
    drafting = [(pool, place) for pool, place in zip(pools, places, strict=True) if pool.get("role") == "draft"]
    if not drafting:
        return
    if len(drafting) > 1:
        raise SpecError(
            f"{path}.pools", "have several of the role 'draft'", value=len(drafting), limit="one draft pool",
            hint="Give one pool all the replicas, or draft within the groups with pipelined = true",
        )  # fmt: skip
    draft, place = drafting[0]
    for name in SERVING:
        if name in draft:
            raise SpecError(
                f"{place}.{name}", "has no meaning in a draft pool", value=draft[name],
                limit="on, model, replicas, tensor_parallel, engine, dtypes and clock",
                hint="Put it in the pool that is drafted for" if name == "speculate" else "Leave it out",
            )  # fmt: skip
    for name in UNSPLIT:
        if draft.get(name, 1) != 1:
            raise SpecError(f"{place}.{name}", "is not modelled in a draft pool", value=draft[name], limit="1")
    asked = [
        (table, where) for pool, where in zip(pools, places, strict=True) for table in _several(pool.get("speculate"))
        if drafts_elsewhere(table)
    ]  # fmt: skip
    if not asked:
        raise SpecError(
            f"{place}.role", "has no pool to draft for", value="draft",
            limit="another pool whose speculate drafts by a model", hint='Add speculate = { kind = "fixed" } to one',
        )  # fmt: skip
    for table, where in asked:
        _check_pair(table if isinstance(table, Mapping) else {}, where, draft.get("model"), place)


def _check_pair(table: Mapping[str, Any], where: str, model: str | None, place: str) -> None:
    """Refuses what one value of ``speculate`` says against the draft pool at ``place``, which holds ``model``."""
    if table.get("pipelined"):
        raise SpecError(
            f"{where}.speculate.pipelined", "stands beside a draft pool", value=True,
            limit="either, since it is short for a draft pool in the same group", hint="Leave one of them out",
        )  # fmt: skip
    named = _several(table.get("model"))
    if model is not None and any(other != model for other in named):
        raise SpecError(
            f"{where}.speculate.model", "contradicts the draft pool", value=table["model"],
            limit=f"{model}, which {place} holds", hint="Leave it out",
        )  # fmt: skip
    if model is None and not named:
        raise SpecError(
            f"{place}.model", "is missing", limit="a draft model with the target's vocabulary",
            hint='Add e.g. model = "llama-3.2-1b"',
        )  # fmt: skip


def _several(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, tuple | list) else [value]
