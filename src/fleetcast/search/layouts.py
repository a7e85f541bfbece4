"""The layouts of a pool on a group of devices, as rows: every degree of parallelism that the model allows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import Infeasible
from fleetcast.scenario.fleet.tree import Group
from fleetcast.scenario.plan import Pool, as_tuple
from fleetcast.scenario.workload.models import Layout, Model

EACH = 64
"""Up to here every number of replicas is tried, beyond it numbers about 1 / 32 apart."""
DEGREES = ("replicas", "tp", "pp", "ep", "adp")
ROW = np.dtype([("pool", "i4"), ("group", "i4"), *((name, "i8") for name in DEGREES)])
"""One layout: index of the pool and of the fleet's group, and the degrees."""

Rows = NDArray[np.void]


def family_name(group: str, tp: int, pp: int, ep: int = 1, adp: int = 1) -> str:
    """Returns e.g. ``TP4 PP2 EP8 on h100-sxm``."""
    more = "".join(f" {name}{n}" for name, n in (("EP", ep), ("ADP", adp)) if n > 1)
    return f"TP{tp} PP{pp}{more} on {group}"


def too_few(group: Group, template: Pool) -> tuple[str, Infeasible]:
    """Why there is no layout where the model forbids none: the least that ``[plan]`` asks for is more than there is."""
    replicas, tp, pp, ep, adp = (
        min(as_tuple(asked) or (1,))
        for asked in (
            template.replicas, template.tensor_parallel, template.pipeline_parallel, template.expert_parallel,
            template.attention_dp,
        )
    )  # fmt: skip
    why = Infeasible("devices", need=replicas * tp * pp * adp, have=group.count)
    return family_name(group.name, tp, pp, ep, adp), why


def layouts(model: Model, group: Group, template: Pool) -> tuple[Rows, list[tuple[str, Infeasible]]]:
    """Returns every layout of a pool on a group as rows (``pool`` and ``group`` unset), and what the model forbids.

    Args:
        model: what the pool serves.
        group: the devices.
        template: fixed and listed degrees.
    """
    n = group.count
    experts = max((block.ffn.experts for block in model.blocks), default=0)
    latent = any(b.attention is not None and b.attention.kind == "mla" for b in model.blocks)
    heads = max((b.attention.heads for b in model.blocks if b.attention is not None), default=1)
    adp = _options(template.attention_dp, range(1, min(n, max(experts, 8)) + 1) if experts or latent else (1,))
    tp = _options(template.tensor_parallel, range(1, min(n, heads) + 1))
    ep = _options(template.expert_parallel, range(1, min(n, experts) + 1) if experts else (1,))
    shapes = _cross({"tp": tp}, "adp", adp, lambda c: n // c["tp"])
    shapes = _cross(shapes, "ep", ep, lambda c: c["tp"] * c["adp"])
    keep = (shapes["tp"] * shapes["adp"]) % shapes["ep"] == 0
    shapes = {name: column[keep] for name, column in shapes.items()}
    good, misfits = _fitting(model, group, shapes)
    shapes = {name: column[good] for name, column in shapes.items()}
    pp = _options(template.pipeline_parallel, range(1, min(n, model.layers) + 1))
    rows = _cross(shapes, "pp", pp, lambda c: places(group, c["tp"] * c["adp"]))

    def most(c: dict[str, Any]) -> Any:
        return places(group, c["tp"] * c["adp"]) // c["pp"]

    shapes, rows = rows, _cross(rows, "replicas", _options(template.replicas, _spaced(n)), most)
    if template.replicas is None:  # as many as fit, too, where the steps jump over that number
        full = shapes | {"replicas": most(shapes)}
        missed = ~np.isin(full["replicas"], _spaced(n)) & (full["replicas"] > 0)
        rows = {name: np.concatenate([rows[name], full[name][missed]]) for name in rows}
    table = np.zeros(len(rows["tp"]), dtype=ROW)
    for name in DEGREES:
        table[name] = rows[name]
    return table, misfits


def places(group: Group, span: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns how many sets of ``span`` ranks a group holds when a set that fits a node does not straddle two."""
    whole, rest = divmod(group.count, group.node)
    within = whole * (group.node // span) + rest // span
    nodes = -(-span // group.node)
    across = np.where(span % group.node == 0, whole // nodes, group.count // (nodes * group.node))
    spare = np.where((across == 0) & (span <= group.count), 1, across)
    return np.asarray(np.where(span <= group.node, within, spare), dtype=np.int64)


def _options(asked: int | tuple[int, ...] | None, default: Iterable[int]) -> NDArray[np.int64]:
    return np.array(sorted(set(as_tuple(asked) or default)), dtype=np.int64)


def _cross(columns: dict[str, Any], name: str, options: NDArray[np.int64], limit: Any) -> dict[str, Any]:
    """Gives every row each option up to its limit: rows repeat, one column more."""
    most = np.searchsorted(options, limit(columns), side="right")
    first = np.repeat(np.cumsum(most) - most, most)
    crossed = {key: np.repeat(column, most) for key, column in columns.items()}
    return crossed | {name: options[np.arange(len(first)) - first]}


def _spaced(n: int) -> list[int]:
    """1 to ``EACH`` and on to n in steps of about a thirty-second, n among them."""
    found = list(range(1, min(n, EACH) + 1))
    while found[-1] < n:
        found.append(min(n, found[-1] + max(1, found[-1] // 32)))
    return found


def _fitting(model: Model, group: Group, shapes: dict[str, Any]) -> tuple[list[int], list[tuple[str, Infeasible]]]:
    good: list[int] = []
    wrong: dict[tuple[str, str], tuple[list[int], Infeasible]] = {}
    for i, (tp, adp, ep) in enumerate(zip(shapes["tp"], shapes["adp"], shapes["ep"], strict=True)):
        why = model.misfit(Layout(tensor_parallel=int(tp), attention_dp=int(adp), expert_parallel=int(ep)))
        if why is None:
            good.append(i)
            continue
        # one line per constraint, not one per layout that breaks it
        name, degree = "TP", int(tp)
        if why.constraint == "expert width":
            name, degree = "expert TP", int(tp * adp // ep)
        elif why.constraint.startswith("expert"):
            name, degree = "EP", int(ep)
        values, _ = wrong.setdefault((name, why.constraint), ([], why))
        if degree not in values:
            values.append(degree)
    return good, [(f"{_listed(name, values)} on {group.name}", why) for (name, _), (values, why) in wrong.items()]


def _listed(name: str, values: list[int]) -> str:
    shown = [f"{name}{v}" for v in sorted(values)]
    return ", ".join(shown if len(shown) <= 9 else [*shown[:8], f"{len(shown) - 8} more"])
