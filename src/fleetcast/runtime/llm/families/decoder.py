"""The decoder that every family is one case of: its fields, the parts it has, and what a config.json says of them.

Widths, heads, windows and ties come from the catalogue's own reader (`scenario.workload.architectures`). What costs
nothing and so is not in a `Model` (rotary angles, epsilons, activations, caps) is read here and in the families' files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fleetcast.base.errors import Unsupported
from fleetcast.runtime.llm.naming import Naming, Size, Stored
from fleetcast.runtime.llm.rope import Rope, read_rope, theta_table
from fleetcast.scenario.workload.architectures.fields import Fields
from fleetcast.scenario.workload.models import Model

Norm = Literal["rms", "rms+1", "layer"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]

ACTIVATIONS: Final[dict[str, Activation]] = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "relu": "relu",
}  # fmt: skip
"""The activations that run, by the names of configs; gelu_tanh is the approximation by a tanh."""


@dataclass(frozen=True, kw_only=True)
class Experts:
    """A mixture of experts.

    Attributes:
        count: experts.
        top_k: that a token visits.
        width: inner elements of one.
        shared: inner elements of the one that every token visits, weighed by a gate; 0 = none.
        renormalised: the weights of those visited add up to 1.
    """

    count: int
    top_k: int
    width: int
    shared: int
    renormalised: bool


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder.

    Attributes:
        naming: of its checkpoints.
        hidden: elements of the residual stream.
        heads: query heads.
        kv_heads: key and value heads.
        head_dim: elements of a head.
        width: inner elements of a dense feed-forward part.
        vocab: rows of the embedding.
        context: most positions of a sequence.
        windows: tokens that a query of each layer sees, itself included; 0 = all before it.
        ropes: how queries and keys of each layer turn with their position.
        sparse: which layers have experts.
        experts: of those layers.
        norm: "rms", "rms+1" (RMSNorm that stores its weight less 1) or "layer" (LayerNorm with a bias).
        epsilon: of the norms.
        sandwich: attention and feed-forward are normed after as well as before.
        parallel: attention and feed-forward read one norm and are added together.
        qk_norm: queries and keys are normed per head.
        activation: of the feed-forward part.
        gated: the feed-forward part multiplies the activation with a second projection.
        bias: which of the projections q, k, v, o add a bias, as letters.
        ffn_bias: the feed-forward projections add one.
        head_bias: the LM head adds one.
        tied: the LM head is the embedding.
        positions: rows of a table of learned positions; 0 = none.
        embedding_scale: factor on embeddings.
        scale: factor on attention scores.
        attention_cap: scores s become cap tanh(s / cap); 0 = they stay.
        logit_cap: the same of logits.
        stored: dtype the config names for its weights: "fp32", "bf16" or "fp16".
    """

    naming: Naming
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int
    vocab: int
    context: int
    windows: tuple[int, ...]
    ropes: tuple[Rope, ...]
    sparse: tuple[bool, ...]
    experts: Experts | None
    norm: Norm = "rms"
    epsilon: float
    sandwich: bool = False
    parallel: bool = False
    qk_norm: bool
    activation: Activation
    gated: bool
    bias: str
    ffn_bias: bool
    head_bias: bool = False
    tied: bool
    positions: int = 0
    embedding_scale: float = 1.0
    scale: float
    attention_cap: float = 0.0
    logit_cap: float = 0.0
    stored: str

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.windows)

    def parts(self) -> Iterator[tuple[str, Size]]:
        """Yields the engine's name and the size, (outputs, inputs), of every tensor of the model."""
        yield "embedding.weight", (self.vocab, self.hidden)
        if self.positions:
            yield "positions.weight", (self.positions, self.hidden)
        for i in range(self.layers):
            for name, size in self.layer(i):
                yield f"layers.{i}.{name}", size
        yield from self._normed("norm", self.hidden)
        if not self.tied:
            yield "head.weight", (self.vocab, self.hidden)
        if self.head_bias:
            yield "head.bias", (self.vocab,)

    def layer(self, i: int) -> Iterator[tuple[str, Size]]:
        """Yields the names within layer ``i`` and the sizes of its tensors."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield from self._normed("attention_norm", self.hidden)
        for letter, out in (("q", queries), ("k", keys), ("v", keys)):
            yield from _linear(letter, out, self.hidden, letter in self.bias)
        if self.qk_norm:
            yield from self._normed("q_norm", self.head_dim)
            yield from self._normed("k_norm", self.head_dim)
        yield from _linear("o", self.hidden, queries, "o" in self.bias)
        if self.sandwich:
            yield from self._normed("after_attention_norm", self.hidden)
        if not self.parallel:
            yield from self._normed("ffn_norm", self.hidden)
        if self.experts is not None and self.sparse[i]:
            yield from self._mixture(self.experts)
        else:
            yield from self._dense("", self.width)
        if self.sandwich:
            yield from self._normed("after_ffn_norm", self.hidden)

    def checkpoint(self) -> Iterator[Stored]:
        """Yields every tensor of a checkpoint, with the parts it holds."""
        return self.naming.tensors(self.parts())

    def tensors(self) -> Iterator[tuple[str, Size]]:
        """Yields the name and size, as stored, of every tensor of a checkpoint."""
        return ((stored.name, stored.size) for stored in self.checkpoint())

    def _normed(self, name: str, size: int) -> Iterator[tuple[str, Size]]:
        yield f"{name}.weight", (size,)
        if self.norm == "layer":
            yield f"{name}.bias", (size,)

    def _dense(self, prefix: str, width: int) -> Iterator[tuple[str, Size]]:
        for name in ("gate", "up") if self.gated else ("up",):
            yield from _linear(prefix + name, width, self.hidden, self.ffn_bias)
        yield from _linear(prefix + "down", self.hidden, width, self.ffn_bias)

    def _mixture(self, experts: Experts) -> Iterator[tuple[str, Size]]:
        yield "router.weight", (experts.count, self.hidden)
        for i in range(experts.count):
            yield from self._dense(f"experts.{i}.", experts.width)
        if experts.shared:
            yield from self._dense("shared.", experts.shared)
            yield "shared_gate.weight", (1, self.hidden)


def _linear(name: str, out: int, inside: int, bias: bool) -> Iterator[tuple[str, Size]]:
    yield f"{name}.weight", (out, inside)
    if bias:
        yield f"{name}.bias", (out,)


def shaped(
    model: Model, fields: Fields, naming: Naming, *, activation: str = "", epsilon: tuple[str, float] | None = None,
    ropes: Sequence[Rope] | None = None,
) -> Shape:  # fmt: skip
    """Returns the shape of a model with RMSNorm and nothing that its family adds.

    Args:
        model: what the catalogue's reader makes of that config.
        fields: the config.
        naming: of the family's checkpoints.
        activation: as configs name it; "" = ``hidden_act``, silu where that is silent.
        epsilon: the config's name of it, and what the class assumes; None = ``rms_norm_eps``, 1e-6.
        ropes: of each layer; None = all turn as the config says, whole heads, theta 10,000 assumed.

    Raises:
        SpecError: a field that cannot be.
        Unsupported: a quantisation or an activation that the engine does not run.
    """
    if model.precision.parts:
        hint = "Take the unquantised checkpoint"
        raise Unsupported(f"{fields.path}: the engine does not run {model.precision.method} weights", hint)
    named = activation or fields.text("hidden_act", "silu")
    if named not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise Unsupported(f"{fields.path}: the engine does not run hidden_act {named!r}", f"It runs {known}")
    layers = [model.blocks[i] for i in model.pattern]
    attentions = [block.attention for block in layers if block.attention is not None]
    attention, dim = attentions[0], attentions[0].head_dim
    dense = next((b.ffn for b in layers if not b.ffn.experts), layers[0].ffn)
    routed = next((b.ffn for b in layers if b.ffn.experts), None)
    experts = None
    if routed is not None:
        experts = Experts(
            count=routed.experts, top_k=routed.top_k, width=routed.width, shared=routed.shared_width, renormalised=True
        )
    name, assumed = epsilon or ("rms_norm_eps", 1e-6)
    return Shape(
        naming=naming, hidden=model.hidden, heads=attention.heads, kv_heads=attention.kv_heads, head_dim=dim,
        width=dense.width, vocab=model.vocab, context=model.context or 2048,
        windows=tuple(a.window for a in attentions),
        ropes=tuple(ropes or [read_rope(fields, dim, theta_table(fields))] * len(layers)),
        sparse=tuple(bool(b.ffn.experts) for b in layers), experts=experts,
        epsilon=fields.number(name, default=assumed, high=1.0), qk_norm=bool(attention.qk_norm),
        activation=ACTIVATIONS[named], gated=dense.gated, bias=attention.bias, ffn_bias=dense.bias, tied=model.tied,
        scale=dim**-0.5, stored=model.precision.rest,
    )  # fmt: skip


def head_dim(model: Model) -> int:
    """Returns the elements of a head."""
    return next(block.attention.head_dim for block in model.blocks if block.attention is not None)
