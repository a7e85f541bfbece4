"""The sizes of a model that a device multiplies well: products under tensor parallelism, and the nearest better size.

Sizing after "Training Foundation Models on a Full-Stack AMD Platform" (ZAYA1, arXiv 2511.17127): benchmark or predict
the products of a candidate, and move each size to one whose tiles, waves and rows are whole. A model's score is the
share of the peak that its products reach, each weighted by its FLOP: forward, and the gradients of inputs and weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from typing import Any

from fleetcast.cost.training.network import Network
from fleetcast.search.shape.tiles import Fit, Tiling, fit, padded

NEAR = 1 / 8
"""Sizes that are tried: up to this share away."""
WORTH = 0.005
"""A gain below this is no reason to change a size."""
ALIKE = 2e-4
"""Vocabularies whose scores differ by less are equally good."""
MOST = 0.8
"""The nearest size that gains this share of what the best one near it gains is the one that is named."""


@dataclass(frozen=True)
class Sizes:
    """A decoder's sizes and how it is cut.

    Attributes:
        hidden, heads, kv_heads, head_dim, ffn, vocab, layers: as in a scenario; ``gated``: three projections.
        experts, top_k: routed experts and how many a token visits; ``ffn`` is then that of one.
        tokens: of a micro-batch on a device.
        tensor, expert: ranks that split layers, and that hold different experts.
    """

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    layers: int
    gated: bool
    experts: int = 0
    top_k: int = 0
    tokens: int = 2048
    tensor: int = 1
    expert: int = 1


@dataclass(frozen=True)
class Product:
    """A product of a forward pass on one device: ``times`` of it in the model, ``copies`` at once."""

    name: str
    m: float
    n: float
    k: float
    times: float
    copies: float = 1.0

    @property
    def flops(self) -> float:
        """FLOP of all of them, forward."""
        return 2.0 * self.m * self.n * self.k * self.times * self.copies


@dataclass(frozen=True)
class Field:
    """What is advised of one size.

    Attributes:
        name: key of the scenario's model.
        now: its value.
        better: the nearest value that gains most of what any near it gains; None = none gains anything.
        gain: how much faster the model's products are with it, for each FLOP; of the vocabulary, for each token.
        reasons: what is lost now.
    """

    name: str
    now: int
    better: int | None
    gain: float
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Advice:
    """Every size of a model on a device.

    Attributes:
        device: its name.
        sizes: the model's.
        share: of the peak that its products reach, as foretold.
        products: each product with how it fits.
        fields: what is advised.
        better: the share if every size is changed as advised, one after the other.
        notes: what was taken as given.
    """

    device: str
    sizes: Sizes
    share: float
    products: tuple[tuple[Product, Fit], ...]
    fields: tuple[Field, ...]
    better: float
    notes: tuple[str, ...] = field(default=())

    def table(self) -> dict[str, Any]:
        """Returns everything for JSON."""
        rows = [asdict(product) | {"fit": asdict(how)} for product, how in self.products]
        return {
            "device": self.device, "sizes": asdict(self.sizes), "share": self.share, "better": self.better,
            "products": rows, "fields": [asdict(one) for one in self.fields], "notes": list(self.notes),
        }  # fmt: skip


def sizes(network: Network, *, tokens: int, tensor: int = 1, expert: int = 1) -> Sizes:
    """Returns the sizes of a model's commonest layer."""
    layer = max(network.layers, key=lambda one: one.count)
    return Sizes(
        hidden=network.hidden, heads=layer.heads, kv_heads=layer.kv_heads, head_dim=layer.head_dim,
        ffn=layer.expert_ffn or layer.ffn, vocab=network.vocab, layers=network.depth, gated=layer.gated,
        experts=layer.experts, top_k=layer.top_k, tokens=tokens, tensor=tensor, expert=expert,
    )  # fmt: skip


def products(s: Sizes) -> Iterator[Product]:
    """Yields the products of a forward pass on one of the ranks."""
    t, h, m = s.tensor, float(s.hidden), float(s.tokens)
    wide = 2.0 if s.gated else 1.0
    if s.heads:
        yield Product("queries, keys, values", m, (s.heads + 2 * s.kv_heads) * s.head_dim / t, h, s.layers)
        yield Product("attention's output", m, h, s.heads * s.head_dim / t, s.layers)
    if s.experts:
        held, rows = s.experts / s.expert, m * s.top_k * s.expert / s.experts  # all ranks' tokens come to its experts
        yield Product("experts, in", rows, wide * s.ffn / t, h, s.layers, held)
        yield Product("experts, out", rows, h, s.ffn / t, s.layers, held)
    elif s.ffn:
        yield Product("feed-forward, in", m, wide * s.ffn / t, h, s.layers)
        yield Product("feed-forward, out", m, h, s.ffn / t, s.layers)
    yield Product("head", m, s.vocab / t, h, 1)


def time(s: Sizes, how: Tiling) -> tuple[float, float]:
    """Returns (FLOP, FLOP at the peak's pace that they take): products both ways and attention's padding."""
    work = taken = 0.0
    for p in products(s):
        for m, n, k in ((p.m, p.n, p.k), (p.m, p.k, p.n), (p.n, p.k, p.m)):
            work += p.flops
            taken += p.flops / fit(m, n, k, how, p.copies).share
    if s.heads:
        pairs = 12.0 * s.tokens * s.tokens * s.heads * s.head_dim / s.tensor * s.layers
        work += pairs
        taken += pairs / padded(s.head_dim)
    return work, taken


def share(s: Sizes, how: Tiling) -> float:
    """Returns the share of the peak that a model's products reach."""
    work, taken = time(s, how)
    return work / taken


def advise(s: Sizes, how: Tiling, device: str = "") -> Advice:
    """Returns what is advised of every size, each by itself, and what all of it together gains."""
    found = tuple((p, fit(p.m, p.n, p.k, how, p.copies)) for p in products(s))
    names = ["hidden", "ffn", "vocab", *(["heads"] if s.heads else []), *(["experts"] if s.experts else [])]
    fields, changed = [], s
    for name in names:
        fields.append(_field(s, name, how, found))
        after = _field(changed, name, how, found)
        if after.better is not None:
            changed = _with(changed, name, after.better)
    notes = (
        f"{s.tokens:,} tokens on a device, {s.tensor} tensor-parallel ranks, rows of 16 bits" if how.line > 16
        else f"{s.tokens:,} tokens on a device, rows of 32 bits", f"tiles: {how.source}",
    )  # fmt: skip
    return Advice(device, s, share(s, how), found, tuple(fields), share(changed, how), notes)


def _with(s: Sizes, name: str, value: int) -> Sizes:
    if name == "hidden" and s.heads:
        return replace(s, hidden=value, head_dim=value // s.heads if s.heads * s.head_dim == s.hidden else s.head_dim)
    if name == "heads":
        grouped = s.heads // max(s.kv_heads, 1)
        keys = value if grouped == 1 else max(1, round(value / grouped))
        return replace(s, heads=value, kv_heads=keys, head_dim=s.heads * s.head_dim // value)
    changed: dict[str, Any] = {name: value}
    return replace(s, **changed)


def _allowed(s: Sizes, name: str, value: int) -> bool:
    """Whether a size may be had: it splits over ranks, and heads are whole."""
    made, t = _with(s, name, value), s.tensor
    if name == "heads":
        whole = s.heads * s.head_dim % value == 0 and value % made.kv_heads == 0
        shared = made.kv_heads % t == 0 or t % made.kv_heads == 0
        return whole and value % t == 0 and shared and made.head_dim % 8 == 0  # FlashAttention takes multiples of 8
    if name == "hidden":
        whole = not s.heads or s.heads * s.head_dim != s.hidden or value % s.heads == 0
        return whole and value % t == 0 and (not s.heads or made.head_dim % 2 == 0)
    if name == "experts":
        return value % s.expert == 0 and value >= s.top_k
    return value % t == 0


def _field(s: Sizes, name: str, how: Tiling, found: tuple[tuple[Product, Fit], ...]) -> Field:
    now = int(getattr(s, name))
    reach = ceil(now * (1.0 if name in ("heads", "experts") else NEAR))
    low = now if name == "vocab" else max(1, now - reach)  # tokens that exist need their row
    high = now + (max(1024, 8 * how.line * s.tensor) if name == "vocab" else reach)
    tried = [value for value in range(low, high + 1) if value != now and _worth_a_try(value, name, how, s)]
    scores: dict[int, float] = {}
    work, taken = time(s, how)
    for value in tried:
        if _allowed(s, name, value):
            more, took = time(_with(s, name, value), how)
            # A longer vocabulary says nothing more: its FLOP count as those of the one that was asked for.
            scores[value] = (work / took if name == "vocab" else more / took) / (work / taken)
    reasons = tuple(_reasons(s, name, how, found))
    best = max(scores.values(), default=0.0)
    allowed = _allowed(s, name, now)
    if best < 1.0 + WORTH and allowed:
        return Field(name, now, None, 0.0, reasons)
    # Rows of padding cost little, so that the vocabulary takes the best; whole lines help whatever else is changed.
    enough = best - ALIKE if name == "vocab" else 1.0 + (best - 1.0) * MOST
    near = [value for value, score in scores.items() if score >= min(enough, best)]
    line = how.line * (s.tensor if name in ("ffn", "vocab") else 1)
    if not near:
        return Field(name, now, None, 0.0, reasons)
    better = min(near, key=lambda value: (name == "vocab" and value % line != 0, abs(value - now), value))
    return Field(name, now, better, scores[better] - 1.0, reasons)


def _worth_a_try(value: int, name: str, how: Tiling, s: Sizes) -> bool:
    """Whether a size's rows are at least whole vectors: the others are never better than their neighbours."""
    if name in ("heads", "experts"):
        return True
    return value % (how.vector * (s.tensor if name in ("ffn", "vocab") else 1)) == 0


_USED = {
    "hidden": ("queries, keys, values", "attention's output", "feed-forward, in", "feed-forward, out", "head"),
    "ffn": ("feed-forward, in", "feed-forward, out", "experts, in", "experts, out"), "vocab": ("head",),
    "heads": ("queries, keys, values", "attention's output"), "experts": ("experts, in", "experts, out"),
}  # fmt: skip


def _reasons(s: Sizes, name: str, how: Tiling, found: tuple[tuple[Product, Fit], ...]) -> Iterator[str]:
    now, t = int(getattr(s, name)), s.tensor
    ranks = f" over {t} ranks" if t > 1 and name in ("ffn", "vocab") else ""
    if name in ("hidden", "ffn", "vocab"):
        part = now / (t if name in ("ffn", "vocab") else 1)
        if part != int(part):
            yield f"{now:,} does not split{ranks}"
        elif int(part) % how.vector:
            yield f"{int(part):,}{ranks} is a multiple of neither {how.line} nor {how.vector}"
        elif int(part) % how.line:
            yield f"{int(part):,}{ranks} is no multiple of {how.line}, though of {how.vector}"
    if name == "heads":
        if s.heads % t:
            yield f"{s.heads} heads do not split over {t} ranks"
        if padded(s.head_dim) < 1:
            yield f"heads {s.head_dim} wide are padded in attention's kernels: {1 - padded(s.head_dim):.0%} for nothing"
    for p, f in found:
        if p.name not in _USED[name]:
            continue
        rows, columns = f.tile
        if f.edges < 0.97:
            yield f"{p.name}: {1 - f.edges:.0%} of its {rows} x {columns} tiles is edge ({p.m:,.0f} x {p.n:,.0f})"
        if f.last < 0.95:
            yield f"{p.name}: {f.waves:.2f} waves of tiles over {how.units} units leave {1 - f.last:.0%} of them idle"
    if name == "experts":
        rows_of = next(p.m for p, _ in found if p.name == "experts, in")
        if rows_of < how.tiles[0][0]:
            yield f"an expert sees {rows_of:,.0f} rows, fewer than a tile of {how.tiles[0][0]}: fewer or larger batches"
