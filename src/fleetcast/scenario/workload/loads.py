"""How a router spreads tokens over the experts of each layer: measured loads from a file, or a synthetic skew.

A load says how many of a layer's choices fell on each expert. A token chooses ``top_k`` different experts, so the
chance that it chooses expert e is ``top_k`` times e's share of the load: measured shares need no model of how the
choices of one token exclude each other. A synthetic skew does: there a token draws its experts one after another, each
with probability proportional to ``1 / popularity rank ^ zipf`` among those not drawn yet (successive sampling). That is
what the ``top_k`` largest of ``log weight + Gumbel noise`` are, so it is a softmax router whose scores scatter from
token to token around a fixed preference.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.files import read_text
from fleetcast.base.rng import rng
from fleetcast.base.spec import Spec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fleetcast.scenario.workload.models import Model

COLUMNS = ("layer", "expert", "load")
DRAWN = 16
"""Most layers for which a synthetic load draws which experts are popular; more stand for the same mean."""


class Skew(Spec):
    """A synthetic preference of the router.

    Attributes:
        zipf: exponent: the expert of popularity rank r has weight r^-zipf; 0 = all alike.
    """

    zipf: Annotated[float, msgspec.Meta(ge=0, le=3)]


@dataclass(frozen=True, eq=False)
class ExpertLoad:
    """How often tokens choose each expert.

    Attributes:
        chosen: float64[layers, experts], chance that a token chooses the expert; a row adds up to ``top_k``. Fewer
            rows than layers stand for as many layers each.
        top_k: experts a token chooses.
        source: what it is, for notes.
    """

    chosen: NDArray[np.float64]
    top_k: int
    source: str


def expert_load_of(given: str | Skew, model: Model, folder: Path, path: str = "workload.expert_load") -> ExpertLoad:
    """Returns the load that a scenario describes.

    Args:
        given: CSV file, its path relative to ``folder``, or a synthetic skew.
        model: whose layers have the experts.
        folder: of the scenario.
        path: where it stands, for errors.

    Raises:
        SpecError: a dense model, layers with different experts, or a file that does not fit the model.
    """
    kinds = {(b.ffn.experts, b.ffn.top_k): 0 for b in model.blocks if b.ffn.experts}
    shown = given if isinstance(given, str) else {"zipf": given.zipf}
    if not kinds:
        raise SpecError(
            path, "is about a model with experts, and this one is dense", value=shown, limit=f"{model.id} has none",
            hint="Leave it out, or choose a mixture of experts",
        )  # fmt: skip
    if len(kinds) > 1:
        raise SpecError(
            path, "wants the same experts in every layer that has some", value=shown,
            limit=f"{model.id} has layers of {', '.join(str(e) for e, _ in kinds)} experts", hint="Leave it out",
        )  # fmt: skip
    experts, top_k = next(iter(kinds))
    layers = sum(n for b, n in zip(model.blocks, model.counts, strict=True) if b.ffn.experts)
    if isinstance(given, str):
        return read_loads(folder / given, layers, experts, top_k, path)
    return synthetic(given.zipf, layers, experts, top_k)


@lru_cache(maxsize=64)
def synthetic(zipf: float, layers: int, experts: int, top_k: int) -> ExpertLoad:
    """Returns the load of a router with a Zipf preference; which experts it prefers differs from layer to layer."""
    import numpy as np

    chances = inclusion(np.arange(1.0, experts + 1) ** -zipf, top_k)
    chosen = np.array([chances[rng(0, "expert load", str(i)).permutation(experts)] for i in range(min(layers, DRAWN))])
    return ExpertLoad(chosen[:1] if zipf == 0 else chosen, top_k, f"synthetic, Zipf exponent {zipf:g}")


def inclusion(weights: NDArray[np.float64], top_k: int) -> NDArray[np.float64]:
    """Returns the chance of each expert to be among ``top_k`` drawn one after another in proportion to ``weights``.

    Draws without replacement come in the order of independent exponential times of rates ``weights``, so e is among
    the first k with probability ``int w_e exp(-w_e t) P(fewer than k others by t) dt``. The others' count is a
    Poisson-binomial, whose lower tail is summed exactly; the integral is a trapezoid in log t, which converges
    geometrically here.

    Args:
        weights: float64[experts], above 0.
        top_k: at most as many.

    Returns:
        float64[experts], adding up to ``top_k``.
    """
    import numpy as np

    w = np.asarray(weights, dtype=np.float64) / np.max(weights)
    count = len(w)
    if top_k >= count:
        return np.ones(count)
    first, last = np.log(1e-9 / count), np.log(1e-9)
    while last < np.log(40.0 / w.min()) and -np.expm1(-w * np.exp(last)).sum() < top_k + 10.0 * top_k**0.5 + 40.0:
        last += 0.5
    t = np.exp(np.linspace(first, last, int((last - first) / 0.1) + 2))[:, None]
    by = -np.expm1(-w * t)  # [times, experts]: drawn by then
    before = np.zeros((count + 1, len(t), top_k))  # chance that exactly j of the experts in front of e came by t
    before[0, :, 0] = 1.0
    behind = before[0].copy()
    for e in range(count):
        before[e + 1] = before[e] * (1.0 - by[:, e : e + 1])
        before[e + 1, :, 1:] += before[e, :, :-1] * by[:, e : e + 1]
    found = np.empty(count)
    step = (last - first) / (len(t) - 1)
    for e in range(count - 1, -1, -1):
        room = np.cumsum(behind, axis=1)[:, ::-1]  # at most k-1-j of the experts behind e
        density = w[e] * t[:, 0] * np.exp(-w[e] * t[:, 0]) * (before[e] * room).sum(axis=1)
        found[e] = step * (density.sum() - 0.5 * (density[0] + density[-1]))
        now = behind * (1.0 - by[:, e : e + 1])
        now[:, 1:] += behind[:, :-1] * by[:, e : e + 1]
        behind = now
    return np.asarray(np.minimum(found * (top_k / found.sum()), 1.0))


def read_loads(file: Path, layers: int, experts: int, top_k: int, path: str = "workload.expert_load") -> ExpertLoad:
    """Returns the loads of a CSV file with the columns ``layer`` (may be absent), ``expert`` and ``load``.

    ``load`` is a count or a share: only its proportion within a layer counts. Experts are numbered from 0. Without the
    column ``layer`` all layers are alike; with it every layer with experts has its rows, under any whole numbers.

    Args:
        file: to read.
        layers: of the model that have experts.
        experts: of each.
        top_k: experts that a token chooses.
        path: key of the scenario, for errors.

    Raises:
        SpecError: unreadable, a column, layer or expert missing or twice, a load below 0, or loads that ``top_k``
            different choices a token cannot give.
    """
    import numpy as np

    rows = list(csv.reader(read_text(file).splitlines()))
    head = [name.strip() for name in rows[0]] if rows else []
    for name in head:
        if name not in COLUMNS:
            raise SpecError(
                path, f"has a column {name!r}", value=file.name, limit=f"columns {', '.join(COLUMNS)}",
                hint=closest(name, COLUMNS) or "Put the line layer,expert,load first",
            )  # fmt: skip
    for name in COLUMNS[1:]:
        if name not in head:
            raise SpecError(
                path, f"has no column {name}", value=file.name, limit=f"columns {', '.join(COLUMNS)}; layer may lack",
                hint="Put the line layer,expert,load first",
            )  # fmt: skip
    found: dict[int, dict[int, float]] = {}
    for line, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        layer = _number(file, line, row, head, "layer", None) if "layer" in head else 0
        expert = _number(file, line, row, head, "expert", experts)
        mine = found.setdefault(int(layer), {})
        if int(expert) in mine:
            raise SpecError(
                f"{file.name} line {line}, column expert", "stands twice in a layer", value=int(expert),
                limit="a line per layer and expert", hint="Add the two loads up",
            )  # fmt: skip
        mine[int(expert)] = _number(file, line, row, head, "load", None)
    if len(found) != (layers if "layer" in head else 1):
        raise SpecError(
            path, f"has loads of {len(found)} layers", value=file.name, limit=f"{layers} layers have experts",
            hint="Write a line per layer and expert, or leave the column layer out: all layers alike",
        )  # fmt: skip
    chosen = np.array([_chances(file, path, key, mine, experts, top_k) for key, mine in sorted(found.items())])
    return ExpertLoad(chosen, top_k, f"measured, {file.name}")


def _chances(file: Path, path: str, layer: int, loads: dict[int, float], experts: int, top_k: int) -> list[float]:
    """Returns each expert's chance to be chosen by a token."""
    where = f"{file.name}, layer {layer}"
    if len(loads) != experts:
        missing = next(e for e in range(experts) if e not in loads)
        raise SpecError(
            path, f"has {len(loads)} experts in layer {layer}", value=where, limit=f"{experts} experts, from 0",
            hint=f"Add expert {missing}; one that no token chose has load 0",
        )  # fmt: skip
    total, used = sum(loads.values()), sum(load > 0 for load in loads.values())
    if used < top_k:
        raise SpecError(
            path, f"has {used} experts with a load in layer {layer}", value=where,
            limit=f"at least {top_k}: a token chooses as many different ones", hint="Count more tokens",
        )  # fmt: skip
    worst = max(loads, key=lambda e: loads[e])
    if loads[worst] * top_k > total * (1 + 1e-6):
        raise SpecError(
            path, f"gives expert {worst} of layer {layer} a share of {loads[worst] / total:.3g}", value=where,
            limit=f"at most 1/{top_k}: a token chooses an expert once", hint="Check the counts, or the model",
        )  # fmt: skip
    return [min(1.0, top_k * loads[e] / total) for e in range(experts)]


def _number(file: Path, line: int, row: list[str], head: list[str], column: str, below: int | None) -> float:
    """Returns a cell: a load from 0, or with ``below`` or as a layer a whole number."""
    place = head.index(column)
    text = row[place].strip() if place < len(row) else ""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    whole = column == "load" or value == int(value) if 0 <= value < 1e15 else False
    if not whole or (below is not None and value >= below):
        limit = "a number from 0" if column == "load" else "a whole number from 0"
        limit += f" to {below - 1}" if below is not None else ""
        raise SpecError(f"{file.name} line {line}, column {column}", "is out of range", value=text, limit=limit)
    return value
