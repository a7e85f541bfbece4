"""Operators of one transformer block on one rank, and what they take: where a model's shape meets a device's curves.

Fused as engines fuse them: q, k and v are one product, gate and up are one. Per layer there are two all-reduces of
the residual stream (after attention, after the feed-forward part), or the dispatch and combine of experts where
attention is data-parallel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost import attention as att
from fleetcast.cost.collectives import Fabric, nested_time
from fleetcast.cost.gemm import Gemm, gemm_time
from fleetcast.cost.moe import Experts, distinct_experts, experts_time
from fleetcast.cost.placement import busiest_rank
from fleetcast.cost.roofline import Coefficients, Silicon, Stream, peak, stream_time
from fleetcast.scenario.workload.blocks import Attention, Block
from fleetcast.scenario.workload.loads import ExpertLoad
from fleetcast.scenario.workload.models import Layout, Model, rank_bytes
from fleetcast.scenario.workload.precision import BITS, Precision
from fleetcast.scenario.workload.tensors import Tensor

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Kernels:
    """Which kernels an engine runs where a device offers several.

    Attributes:
        nccl: the server switched the engine's own all-reduce kernel off: NCCL's runs, where it was measured.
        stand_in: weight formats that the device cannot multiply -> the format whose kernels the engine uses for them.
    """

    nccl: bool = False
    stand_in: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Rank:
    """One device of a replica with all that its operators' times depend on.

    ``queries``: tokens a sequence's decode step checks at once; its attention reads the cache once for all of them.
    ``load``: how the router spreads tokens over experts, None = the spread and skew of the kernels' fit; ``placement``
    of the experts on ranks, see `cost.placement.placed`.
    """

    model: Model
    layout: Layout
    precision: Precision
    kv_dtype: str
    chip: Silicon
    fitted: Coefficients
    inner: Fabric
    outer: Fabric
    per_node: int
    kernels: Kernels = Kernels()
    queries: float = 1.0
    load: ExpertLoad | None = None
    placement: str = "contiguous"

    @cached_property
    def tp(self) -> int:
        """Ranks that split each layer."""
        return self.layout.tensor_parallel

    def product(self, tokens: Array, n: float, k: float, part: str) -> Array:
        """Returns seconds of a matrix product of ``tokens`` rows, in the format ``part`` is served in."""
        dtype = kernel_format(self.precision, part)
        c = self.fitted.get("gemm", dtype, Gemm)
        resident = c.resident(self.footprint) if c.footprint else 0.0
        return gemm_time(tokens, n, k, dtype, self.chip, c, resident=resident)

    def pass_over(self, tokens: Array, elements: float, kernels: int = 1) -> Array:
        """Returns seconds of ``kernels`` element-wise kernels that together move ``elements`` 16-bit values a token."""
        c = self.fitted.get("stream", self.precision.rest, Stream)
        return stream_time(tokens * (2.0 * elements), self.chip, c) + (kernels - 1) * c.launch

    @cached_property
    def footprint(self) -> float:
        """Bytes of matrices that an iteration of few tokens reads on this device, experts aside."""
        layers = sum(
            count * sum(rank_bytes(t, self.layout, self.precision) for t in rows if t.part != "experts")
            for rows, count in zip(self.model.tensors, self.model.counts, strict=True)
        )
        head = self.model.vocab * self.model.hidden * self.precision.bytes_per_weight("head")
        return (layers + head / self.tp) / self.layout.pipeline_parallel

    def reduce(self, tokens: Array) -> Array:
        """Returns seconds of an all-reduce of the residual stream over the tensor-parallel ranks."""
        measured = self.tp in self.inner.curves.get("nccl_all_reduce", {}) and self.tp <= self.per_node
        plain = self.kernels.nccl and measured
        return nested_time(
            "nccl_all_reduce" if plain else "all_reduce",
            tokens * (2.0 * self.model.hidden),
            self.tp,
            self.per_node,
            self.inner,
            self.outer,
        )

    def head(self, tokens: Array) -> tuple[Array, float]:
        """Returns (seconds, weight bytes) of the LM head: product, gather of the logits, pass over them."""
        columns = ceil(self.model.vocab / self.tp)
        time = self.product(tokens, columns, self.model.hidden, "head")
        time = time + nested_time(
            "all_gather",
            tokens * (2.0 * self.model.vocab),
            self.tp,
            self.per_node,
            self.inner,
            self.outer,
        )
        if "sample" in self.fitted.tables:
            logits = tokens * (8.0 * self.model.vocab)
            time = time + stream_time(logits, self.chip, self.fitted.get("sample", self.precision.rest, Stream))
        else:
            time = time + self.pass_over(tokens, 4.0 * self.model.vocab, 2)
        return time, columns * self.model.hidden * self.precision.bytes_per_weight("head")

    def flops(self) -> dict[str, float]:
        """Returns FLOP per token on one device of the replica: of all layers, of their experts alone, of the head."""
        spread, model = self.tp * self.layout.pipeline_parallel, self.model
        head = model.vocab * model.hidden
        chosen = sum(
            count * block.ffn.top_k * t.elements / block.ffn.experts
            for block, rows, count in zip(model.blocks, model.tensors, model.counts, strict=True)
            for t in rows
            if t.part == "experts"
        )
        return {
            "token": 2.0 * (model.active_params() - head) / spread, "experts": 2.0 * chosen / spread,
            "head": 2.0 * head / spread,
        }  # fmt: skip

    def link_bytes(self) -> float:
        """Returns bytes one device sends per token, all layers: two all-reduces a layer."""
        share = 2.0 * (self.tp - 1) / self.tp if self.tp > 1 else 0.0
        return 2 * self.model.layers * 2.0 * self.model.hidden * share / self.layout.pipeline_parallel

    def peak(self) -> float:
        """Returns the FLOP/s that utilisation is counted against: that of the linear layers' format."""
        return peak(self.chip, kernel_format(self.precision, "ffn"))


def kernel_format(precision: Precision, part: str) -> str:
    """Returns the number format whose fitted kernels multiply ``part``: storage and arithmetic together."""
    stored, multiplied = precision.stored(part), precision.multiplied(part)
    if stored == multiplied == "fp8":
        return "fp8-block" if precision.group else "fp8"
    if stored in ("fp8", "int8") and stored != multiplied:
        return "fp8-weights"  # a byte per weight, multiplied in 16 bits
    return stored


@dataclass(frozen=True)
class Terms:
    """One layer on one rank over a token grid: seconds, and bytes of weights read per iteration."""

    gemm: Array
    stream: Array
    reduce: Array
    experts: Array
    dispatch: Array
    weights: float
    expert_weights: Array


def block_terms(rank: Rank, index: int, tokens: Array) -> Terms:
    """Returns the terms of block ``index`` of the model, attention itself left out (`attention_terms`)."""
    model, layout = rank.model, rank.layout
    block, rows = model.blocks[index], {t.name: t for t in model.tensors[index]}
    zero = np.zeros_like(tokens)
    gemm, stream, experts, dispatch = zero.copy(), zero.copy(), zero.copy(), zero.copy()
    for n, k, part, _ in products(rank, rows):
        gemm += rank.product(tokens, n, k, part)
    hidden = model.hidden
    stream += 2.0 * rank.pass_over(tokens, 4.0 * hidden)  # each norm reads and writes stream and residual
    if block.attention is not None:
        stream += rank.pass_over(tokens, 4.0 * block.attention.heads * block.attention.head_dim / rank.tp, 2)
    norm = zero
    if block.attention is not None and block.attention.qk_norm:
        a = block.attention
        stream += rank.pass_over(tokens, 2.0 * (a.heads + a.kv_heads) * a.head_dim / rank.tp, 2)
        if a.qk_norm == "all":  # the norm spans all heads: ranks add up their squares, two fp32 numbers a token
            norm = nested_time("all_reduce", tokens * 8.0, rank.tp, rank.per_node, rank.inner, rank.outer)
    if block.recurrence is not None:
        stream += rank.pass_over(tokens, 6.0 * block.recurrence.channels / rank.tp, 4)
    width = block.ffn.shared_width if block.ffn.experts else block.ffn.width
    if width:
        stream += rank.pass_over(tokens, 3.0 * width / rank.tp)
    reduces = 1.0 if block.ffn.experts and layout.attention_dp > 1 else 2.0
    reduce = reduces * rank.reduce(tokens) + norm
    expert_weights = zero
    if block.ffn.experts:
        experts, dispatch, expert_weights = _experts(rank, block, tokens)
    dense = sum(rank_bytes(t, layout, rank.precision) for t in rows.values() if t.part != "experts")
    return Terms(gemm, stream, reduce, experts, dispatch, dense, expert_weights)


def products(rank: Rank, rows: Mapping[str, Tensor]) -> list[tuple[float, float, str, bool]]:
    """Returns (n, k, part, whether its input is split) of a layer's products on one rank, fused over a common input."""
    found: dict[tuple[str, float], tuple[float, float, str, bool]] = {}
    for t in rows.values():
        if t.inputs == 1 or t.part in ("experts", "norm") or t.name == "conv":
            continue
        share = ceil((t.pieces or 1) / rank.tp) / t.pieces if t.pieces and t.split else 1.0
        share = share if t.pieces or not t.split else 1.0 / rank.tp
        n = t.outputs * (share if t.split == "out" else 1.0)
        k = t.inputs * (share if t.split == "in" else 1.0)
        stem = t.name.rpartition(".")[0] or t.part
        fuse = (stem, k) if t.split != "in" else (t.name, k)
        before = found.get(fuse)
        found[fuse] = (n + (before[0] if before else 0.0), k, t.part, t.split == "in")
    return list(found.values())


def _experts(rank: Rank, block: Block, tokens: Array) -> tuple[Array, Array, Array]:
    """Returns (seconds of the experts, of dispatch and combine, bytes of expert weights read) over replica tokens."""
    model, layout, ffn = rank.model, rank.layout, block.ffn
    dtype = kernel_format(rank.precision, "experts")
    ep, etp = (
        layout.expert_parallel,
        layout.tensor_parallel * layout.attention_dp / layout.expert_parallel,
    )
    native = dtype in rank.chip.peak
    c = rank.fitted.get("moe", dtype if native else dict(rank.kernels.stand_in).get(dtype, dtype), Experts)
    matrices = 3.0 if ffn.gated else 2.0
    busy = None
    if rank.load is None:
        seen = distinct_experts(tokens, ffn.experts, ffn.top_k, c.spread) / ep
    else:
        rows, touched, seen = busiest_rank(rank.load, ep, rank.placement).at(tokens)
        busy = rows, touched
    time = experts_time(
        tokens, model.hidden, ffn.width, ffn.experts, ffn.top_k, dtype, rank.chip, c,
        expert_parallel=ep, tensor_parallel=etp, matrices=matrices, busy=busy,
    )  # fmt: skip
    if busy is not None:
        time = time.mean(axis=0)  # over the layers' loads: times a block's count, the sum of the layers' busiest ranks
    weights = seen * (matrices * model.hidden * ffn.width / etp * rank.precision.bytes_per_weight("experts"))
    dispatch = np.zeros_like(tokens)
    if layout.attention_dp > 1:
        ranks = layout.attention_dp * layout.tensor_parallel
        size = tokens * (2.0 * model.hidden)
        for operation in ("all_gather", "reduce_scatter"):
            dispatch = dispatch + nested_time(operation, size, ranks, rank.per_node, rank.inner, rank.outer)
    return time, dispatch, weights


LAUNCHES = {"gqa": 6, "mla": 14, "recurrence": 12, "dense": 4, "experts": 13, "shared": 4}
"""Kernels that a part of a layer launches: norm, products, rotation, cache write, attention; with experts routing,
sorting, quantising, grouped products and the weighted sum. Counted in the engines' sources; all-reduces aside."""


def launches(model: Model) -> int:
    """Returns the kernels that one iteration launches over all layers, where no captured graph replays them."""
    total = 0
    for block, count in zip(model.blocks, model.counts, strict=True):
        parts: list[str] = [block.attention.kind] if block.attention is not None else []
        parts += ["recurrence"] if block.recurrence is not None else []
        parts += ["experts"] if block.ffn.experts else ["dense"]
        parts += ["shared"] if block.ffn.experts and block.ffn.shared_width else []
        total += count * sum(LAUNCHES[part] for part in parts)
    return total


def attention_terms(rank: Rank) -> dict[str, Any]:
    """Returns the sums over all layers that `StepCost` needs of attention itself, for one rank.

    Keys: ``launch``, ``head`` (s per sequence), ``base``, ``state`` (s per sequence of recurrent layers),
    ``slope_full`` and ``slope_window`` (s per context token), ``window`` (tokens), ``pre_base``, ``pre_pair``,
    ``pre_query``, ``pre_context`` (s), ``flops_pair``, ``kv_read`` and ``kv_bytes`` (B per context token).
    """
    sums: dict[str, Any] = dict.fromkeys(
        ("launch", "head", "base", "state", "slope_full", "slope_window", "pre_base", "pre_pair", "pre_query",
         "pre_context", "flops_pair", "kv_read", "kv_bytes"), 0.0,
    )  # fmt: skip
    windows: dict[int, int] = {}
    for block, count in zip(rank.model.blocks, rank.model.counts, strict=True):
        if block.recurrence is not None:
            sums["state"] += count * 2.0 * block.recurrence.state_bytes(rank.tp) / rank.chip.bandwidth
        if block.attention is None or block.stack == "encoder":
            continue
        a = block.attention
        if a.window:
            windows[a.window] = windows.get(a.window, 0) + count
        for key, value in block_attention(rank, a).items():
            sums[key] += count * value
    sums["window"] = max(windows, key=lambda w: windows[w]) if windows else 0
    return sums


def block_attention(rank: Rank, a: Attention) -> dict[str, float]:
    """Returns the terms of one layer's attention on one rank, keys as in `attention_terms`."""
    heads = ceil(a.heads / rank.tp)
    latent = "latent_" if a.kind == "mla" and "latent_decode" in rank.fitted.tables else ""
    decode = rank.fitted.get(f"{latent}decode", rank.kv_dtype, att.Decode)
    prefill = rank.fitted.get(f"{latent}prefill", rank.precision.rest, att.Prefill)
    kv_bytes = a.kv_elements(rank.tp) * BITS[rank.kv_dtype] / 8
    if a.kind == "mla":
        slope = float(att.latent_slope(heads * rank.queries, a.kv_lora, a.rope_dim, rank.kv_dtype, rank.chip, decode))
        kv_heads = heads  # prompts are attended to with keys and values of every head
        width = (a.nope_dim + a.rope_dim + a.value_dim) / 2.0
    else:
        kv_heads = ceil(a.kv_heads / rank.tp)
        slope = float(att.decode_slope(heads * rank.queries, kv_heads, a.head_dim, rank.kv_dtype, rank.chip, decode))
        width = (a.head_dim + a.value_dim) / 2.0
    pair = float(att.prefill_pair(heads, width, rank.chip, prefill))
    query, context = (float(att.prefill_token(n, width, rank.chip, prefill)) for n in (heads, kv_heads))
    return {
        "launch": decode.launch, "head": float(att.decode_head(kv_heads, a.head_dim, decode)), "base": decode.base,
        "state": decode.each,
        "slope_window" if a.window else "slope_full": slope,
        "pre_base": prefill.launch, "pre_pair": pair, "pre_query": query, "pre_context": context,
        "flops_pair": 4.0 * heads * width, "kv_read": kv_bytes, "kv_bytes": kv_bytes,
    }  # fmt: skip
