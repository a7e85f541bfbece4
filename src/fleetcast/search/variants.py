"""What a pool can be told beside its layout: engine, dtypes, clock, policies; and the space in words."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import kinds
from fleetcast.cost.engine import engine
from fleetcast.cost.overlap.nano import nano_of
from fleetcast.policy import batch as batch_family
from fleetcast.scenario.drafts import UNSPLIT
from fleetcast.scenario.fleet.tree import Group
from fleetcast.scenario.plan import Pool, Table, as_tuple
from fleetcast.sim.serving.setting import DEFAULT_ENGINE

CHUNKS = (512, 2048, 8192)
"""Token budgets of an iteration that are searched."""
MAX_BATCHES = (64, 256, 1024)
"""Most running requests that are searched."""
BY_ROLE: dict[str, Table] = {"prefill": {"max_batch": [64], "chunk": [2048, 8192]}, "decode": {"chunk": [2048]}}
"""What is searched instead where a pool only prefills or only decodes: the rest of its batch policy hardly acts."""


def variants_of(template: Pool) -> Iterator[Table]:
    """Yields everything but the layout that a pool leaves open: engine, dtypes, policies, one value each.

    A draft pool has no policies: it does what its targets' say.
    """
    for name in as_tuple(template.engine) or (DEFAULT_ENGINE,):
        profile = engine(name)
        choices: dict[str, Sequence[Any]] = {
            "dtype": as_tuple(template.dtype) or (None,),
            "kv_dtype": as_tuple(template.kv_dtype) or (None,),
            "clock": as_tuple(template.clock) or (None,),
        }
        serving: dict[str, Sequence[Any]] = {
            "expert_placement": as_tuple(template.expert_placement) or (None,),
            "order": _tables(template.order, profile.order),
            "memory": _tables(template.memory, profile.memory),
            "overlap": _overlaps(template.overlap),
            "speculate": _speculations(template.speculate),
            "prefix_cache": _expanded(template.prefix_cache),
            "batch": batches(template.batch, profile.batch, template.role),
        }
        if template.role != "draft":
            choices |= serving
        for values in itertools.product(*choices.values()):
            yield {"engine": name} | dict(zip(choices, values, strict=True))


def batches(asked: Any, default: Table, role: str = "all") -> list[Table]:
    """Returns the batch tables to search, smallest budget and batch first.

    Args:
        asked: ``[plan].batch``: None, a kind, a table (lists mean search), or several of these.
        default: the engine's table; its budget is kept where it is not called ``chunk``.
        role: of the pool.

    Raises:
        SpecError: the tables leave nothing, e.g. every chunk below every max_batch.
    """
    starts = [{"kind": t} if isinstance(t, str) else dict(t) for t in as_tuple(asked)]
    if not starts:
        starts = [{"kind": kind} for kind in dict.fromkeys((default["kind"], "chunked"))]
    known, found = kinds(batch_family), []
    for start in starts:
        table = ({} if "kind" in start else {"kind": default["kind"]}) | start
        class_ = known.get(str(table["kind"]))
        names = inspect.signature(class_).parameters if class_ is not None else ()
        if "max_batch" in names:
            table.setdefault("max_batch", BY_ROLE.get(role, {}).get("max_batch", list(MAX_BATCHES)))
        if "chunk" in names:
            table.setdefault("chunk", BY_ROLE.get(role, {}).get("chunk", list(CHUNKS)))
        elif "max_tokens" in names and table["kind"] == default["kind"] and "max_tokens" in default:
            table.setdefault("max_tokens", default["max_tokens"])
        found += [t for t in expand(table) if t.get("chunk", 1 << 60) >= t.get("max_batch", 0)]
    if not found:
        raise SpecError(
            "plan.batch", "leaves nothing to search", value=asked, limit="chunk must be at least max_batch",
            hint="Raise chunk or lower max_batch",
        )  # fmt: skip
    return sorted(
        found, key=lambda t: (str(t["kind"]), t.get("chunk", 0), t.get("max_tokens", 0), t.get("max_batch", 0))
    )


def _overlaps(asked: Any) -> list[Table | None]:
    """Returns the values of ``overlap`` to search; a table is one value, the lists in it belong to it."""
    values = [{"kind": v} if isinstance(v, str) else dict(v) for v in as_tuple(asked)]
    for value in values:
        nano_of(value)
    return [None if v["kind"] == "none" else v for v in values] or [None]


def _tables(asked: Any, default: Table) -> list[Table]:
    return _expanded(asked) if as_tuple(asked) else list(expand(default))


def _expanded(asked: Any) -> list[Any]:
    tables = [{"kind": t} if isinstance(t, str) else dict(t) for t in as_tuple(asked)]
    return [full for table in tables for full in expand(table)] or [None]


def _speculations(asked: Any) -> list[Any]:
    """The drafts to search; a list of acceptances is one profile, not several values."""
    found: list[Any] = []
    for table in as_tuple(asked):
        if isinstance(table, str):
            found.append({"kind": table})
            continue
        rest = {k: v for k, v in table.items() if k != "acceptance"}
        found += [full | {k: table[k] for k in table.keys() - rest.keys()} for full in expand(rest)]
    return found or [None]


def expand(table: Table) -> Iterator[Table]:
    """Yields a policy's tables, one per combination of the values it lists, e.g. ``{chunk = [512, 2048]}`` as two."""
    values = [v if isinstance(v, list | tuple) else (v,) for v in table.values()]
    for chosen in itertools.product(*values):
        yield dict(zip(table, chosen, strict=True))


DEGREES = {
    "replicas": "replicas", "tensor_parallel": "TP", "pipeline_parallel": "PP", "expert_parallel": "EP",
    "attention_dp": "attention-DP",
}  # fmt: skip


def describe_space(
    templates: tuple[Pool, ...], groups: tuple[Group, ...], variants: tuple[tuple[Table, ...], ...],
    layouts: Sequence[int],
) -> tuple[str, ...]:  # fmt: skip
    """Returns the space in words, a sentence per pool of the plan.

    Args:
        templates: the pools.
        groups: of the fleet.
        variants: of each pool.
        layouts: how many each pool has, memory aside.
    """
    lines = []
    for template, choices, count in zip(templates, variants, layouts, strict=True):
        where = template.on or ", ".join(f"{g.count} x {g.device.id}" for g in groups)
        drafts = template.role == "draft"  # whose replicas follow from the others'
        open_ = [
            short for name, short in DEGREES.items()
            if not isinstance(getattr(template, name), int) and not (drafts and name == "replicas")
        ]  # fmt: skip
        what = "one layout on" if count == 1 else f"every {' x '.join(open_)} on 1 to all of"
        fixed = [
            f"{name} {_said(getattr(template, name))}"
            for name in template.__struct_fields__
            if name not in ("role", "on", "batch", *(UNSPLIT if drafts else ())) and getattr(template, name) is not None
        ]
        given = f" ({'; '.join(fixed)})" if fixed else ""
        batches_ = [v.get("batch") for v in choices]
        tables = [table for i, table in enumerate(batches_) if table is not None and table not in batches_[:i]]
        policies = "the batch policy" if len(tables) == 1 else f"{len(tables)} batch policies:"
        told = f"; {policies} {_spread(tables)}" if tables else ""
        others = len(choices) // max(1, len(tables))
        more = f", {others} variants of the other choices" if others > 1 else ""
        role = "" if template.role == "all" else f"{template.role}: "
        lines.append(f"{role}{what} {where}{given}{told}{more}")
    return tuple(lines)


def _spread(tables: Sequence[Table]) -> str:
    """Tables of one kind together: ``chunked (chunk 512, 2048; max_batch 64, 256)``."""
    told = []
    for kind in dict.fromkeys(str(table["kind"]) for table in tables):
        values: dict[str, list[Any]] = {}
        for table in tables:
            for key, value in table.items():
                if table["kind"] == kind and key != "kind" and value not in values.setdefault(key, []):
                    values[key].append(value)
        inner = "; ".join(f"{key} {_said(sorted(found))}" for key, found in sorted(values.items()))
        told.append(f"{kind} ({inner})" if inner else kind)
    return ", ".join(told)


def named(table: Table) -> str:
    """Returns a policy's table in words: ``chunked chunk 512 max_batch 64``."""
    return " ".join(str(table["kind"]) if k == "kind" else f"{k} {_said(v)}" for k, v in table.items())


def _said(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(_said, value))
    return named(value) if isinstance(value, dict) else str(value)
