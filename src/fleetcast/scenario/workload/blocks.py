"""Blocks: the different layers of a model, and the tensors each one holds."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Literal

from fleetcast.base.spec import Spec
from fleetcast.scenario.workload.tensors import Tensor, linear, vector


class Attention(Spec):
    """Attention of one layer.

    Attributes:
        kind: ``gqa`` (also MHA and MQA) or ``mla`` (multi-head latent attention: one compressed KV
            for all heads).
        heads: query heads.
        kv_heads: key and value heads; 1 for mla, whose cache no head splits.
        head_dim: elements of a query and key head (mla: nope_dim + rope_dim).
        v_head_dim: elements of a value head; 0 = head_dim.
        window: tokens that a query sees; 0 = all before it.
        bias: which of the projections q, k, v, o add a bias, as letters (mla: a, c = the two down
            projections).
        gated: the output is multiplied by a gate, a second half of the query projection
            (Qwen3-Next).
        qk_norm: norms of queries and keys: "" none, "head" one vector for all heads, "all" as wide
            as the projection, "affine" like head with a bias.
        sinks: a learned extra logit per head (gpt-oss).
        q_lora, kv_lora, nope_dim, rope_dim: mla's ranks and head parts; q_lora 0 = no query
            compression.
        index_heads, index_dim, index_top_k: DeepSeek sparse attention: a light indexer picks
            ``index_top_k`` tokens, and caches ``index_dim`` bytes (fp8) and an fp32 scale per
            token; 0 = none.
    """

    heads: int
    head_dim: int
    kv_heads: int = 1
    kind: Literal["gqa", "mla"] = "gqa"
    v_head_dim: int = 0
    window: int = 0
    bias: str = ""
    gated: bool = False
    qk_norm: Literal["", "head", "all", "affine"] = ""
    sinks: bool = False
    q_lora: int = 0
    kv_lora: int = 0
    nope_dim: int = 0
    rope_dim: int = 0
    index_heads: int = 0
    index_dim: int = 0
    index_top_k: int = 0

    @property
    def value_dim(self) -> int:
        """Elements of a value head."""
        return self.v_head_dim or self.head_dim

    def kv_elements(self, tensor_parallel: int = 1) -> int:
        """Returns cached elements per token on one rank.

        Heads are dealt to ranks; mla's cache is on every one.
        """
        if self.kind == "mla":
            return self.kv_lora + self.rope_dim
        return ceil(self.kv_heads / tensor_parallel) * (self.head_dim + self.value_dim)

    def kv_bytes(self, bytes_per_element: float = 2.0, tensor_parallel: int = 1) -> float:
        """Returns cached bytes per token on one rank, the sparse indexer's keys included."""
        index = self.index_dim + 4.0 if self.index_heads else 0.0
        return self.kv_elements(tensor_parallel) * bytes_per_element + index


class Recurrence(Spec):
    """Gated DeltaNet layer: a state of fixed size instead of a KV cache.

    (Yang et al., 2024; used by Qwen3-Next.)

    Attributes:
        key_heads, value_heads: heads; their states are ``key_dim x value_dim`` each, one per value
            head.
        key_dim, value_dim: elements of a head.
        kernel: taps of the causal convolution before it.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int

    @property
    def channels(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    def state_bytes(self, tensor_parallel: int = 1, conv_bytes: float = 2.0) -> float:
        """Returns bytes of state per sequence on one rank.

        An fp32 matrix per head and the convolution's taps.
        """
        heads = ceil(self.value_heads / tensor_parallel)
        taps = ceil(self.channels / tensor_parallel) * (self.kernel - 1)
        return heads * self.key_dim * self.value_dim * 4.0 + taps * conv_bytes


class Ffn(Spec):
    """Feed-forward part of one layer.

    Attributes:
        width: inner elements, of one expert where there are experts.
        gated: gate and up projections (SwiGLU, GeGLU), not one.
        bias: every projection adds a bias.
        experts: routed experts; 0 = dense.
        top_k: experts that a token visits.
        shared_width: inner elements of the always-on expert; 0 = none.
        shared_gate: the shared expert is weighed by a learned gate.
        router_bias: one bias per expert in the router.
    """

    width: int
    gated: bool = True
    bias: bool = False
    experts: int = 0
    top_k: int = 0
    shared_width: int = 0
    shared_gate: bool = False
    router_bias: bool = False


class Block(Spec):
    """One kind of layer.

    Attributes:
        ffn: feed-forward part.
        attention: self-attention; None where ``recurrence`` stands instead.
        recurrence: linear attention.
        cross: attention to the encoder.
        norms: vectors of ``hidden`` elements in its norms (RMSNorm 1, LayerNorm with bias 2).
        stack: ``decoder`` or ``encoder``.
    """

    ffn: Ffn
    attention: Attention | None = None
    recurrence: Recurrence | None = None
    cross: Attention | None = None
    norms: int = 2
    stack: Literal["decoder", "encoder"] = "decoder"


def block_tensors(block: Block, hidden: int) -> tuple[Tensor, ...]:
    """Returns the weight tensors of one layer.

    Args:
        block: the layer.
        hidden: elements of the residual stream.
    """
    rows: list[Tensor] = []
    if block.attention is not None:
        rows += _mla(block.attention, hidden) if block.attention.kind == "mla" else _gqa(block.attention, hidden)
    if block.recurrence is not None:
        rows += _recurrence(block.recurrence, hidden)
    if block.cross is not None:
        rows += _gqa(block.cross, hidden, "cross.")
    rows += _ffn(block.ffn, hidden)
    rows.append(vector("norms", "norm", block.norms * hidden))
    return tuple(rows)


def _gqa(a: Attention, hidden: int, prefix: str = "") -> Iterator[Tensor]:
    queries, keys, values = a.heads * a.head_dim, a.kv_heads * a.head_dim, a.kv_heads * a.value_dim
    wide = 2 * queries if a.gated else queries
    yield linear(prefix + "q", "attention", hidden, wide, split="out", pieces=a.heads, bias="q" in a.bias)
    yield linear(prefix + "k", "attention", hidden, keys, split="out", pieces=a.kv_heads, bias="k" in a.bias)
    yield linear(
        prefix + "v",
        "attention",
        hidden,
        values,
        split="out",
        pieces=a.kv_heads,
        bias="v" in a.bias,
    )
    yield linear(
        prefix + "o",
        "attention",
        a.heads * a.value_dim,
        hidden,
        split="in",
        pieces=a.heads,
        bias="o" in a.bias,
    )
    if a.qk_norm == "all":
        yield vector(prefix + "q_norm", "norm", queries, split="out", pieces=a.heads)
        yield vector(prefix + "k_norm", "norm", keys, split="out", pieces=a.kv_heads)
    elif a.qk_norm:
        each = 2 if a.qk_norm == "affine" else 1
        yield vector(prefix + "qk_norm", "norm", 2 * each * a.head_dim)
    if a.sinks:
        yield vector(prefix + "sinks", "attention", a.heads, split="out")


def _mla(a: Attention, hidden: int) -> Iterator[Tensor]:
    queries = a.heads * (a.nope_dim + a.rope_dim)
    if a.q_lora:
        yield linear("q_down", "attention", hidden, a.q_lora, bias="a" in a.bias)
        yield vector("q_norm", "norm", a.q_lora)
        yield linear("q", "attention", a.q_lora, queries, split="out", pieces=a.heads)
    else:
        yield linear("q", "attention", hidden, queries, split="out", pieces=a.heads)
    yield linear("kv_down", "attention", hidden, a.kv_lora + a.rope_dim, bias="c" in a.bias)
    yield vector("kv_norm", "norm", a.kv_lora)
    up = a.heads * (a.nope_dim + a.value_dim)
    yield linear("kv", "attention", a.kv_lora, up, split="out", pieces=a.heads)
    yield linear(
        "o",
        "attention",
        a.heads * a.value_dim,
        hidden,
        split="in",
        pieces=a.heads,
        bias="o" in a.bias,
    )
    if a.index_heads:
        yield linear("index.q", "index", a.q_lora or hidden, a.index_heads * a.index_dim)
        yield linear("index.k", "index", hidden, a.index_dim)
        yield vector("index.k_norm", "norm", 2 * a.index_dim)
        yield linear("index.weights", "index", hidden, a.index_heads)


def _recurrence(r: Recurrence, hidden: int) -> Iterator[Tensor]:
    inner, pieces = r.value_heads * r.value_dim, r.key_heads
    yield linear("qkvz", "recurrence", hidden, r.channels + inner, split="out", pieces=pieces)
    yield linear("decay", "recurrence", hidden, 2 * r.value_heads, split="out", pieces=pieces)
    yield Tensor(
        name="conv",
        part="recurrence",
        inputs=r.kernel,
        outputs=r.channels,
        split="out",
        pieces=pieces,
    )
    yield vector("rates", "recurrence", 2 * r.value_heads, split="out", pieces=pieces)
    yield vector("gate_norm", "norm", r.value_dim)
    yield linear("o", "recurrence", inner, hidden, split="in", pieces=pieces)


def _ffn(f: Ffn, hidden: int) -> Iterator[Tensor]:
    if not f.experts:
        yield from _mlp("ffn", f.width, hidden, f.gated, f.bias)
        return
    yield linear("router", "router", hidden, f.experts, bias=f.router_bias)
    yield from _mlp("experts", f.width, hidden, f.gated, f.bias, f.experts)
    if f.shared_width:
        yield from _mlp("shared", f.shared_width, hidden, f.gated, f.bias)
    if f.shared_gate:
        yield vector("shared_gate", "router", hidden)


def _mlp(part: str, width: int, hidden: int, gated: bool, bias: bool, copies: int = 1) -> Iterator[Tensor]:
    for name in ("gate", "up") if gated else ("up",):
        yield linear(f"{part}.{name}", part, hidden, width, split="out", bias=bias, copies=copies)
    yield linear(f"{part}.down", part, width, hidden, split="in", bias=bias, copies=copies)
