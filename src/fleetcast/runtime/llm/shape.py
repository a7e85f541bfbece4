"""What of a config.json the engine's arithmetic depends on, and which tensors the checkpoint must then hold.

Widths, heads, windows and ties come from the catalogue's own reader (`scenario.workload.architectures`); rotary angles
and the norms' epsilon, which cost nothing and so are not in a `Model`, are read here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.scenario.workload.architectures import from_config
from fleetcast.scenario.workload.architectures.fields import HINT, Fields, read_config

FAMILY: Final = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""The architectures that run."""

_SCALINGS: Final = ("default", "linear", "llama3")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder of the Llama family.

    Attributes:
        hidden: elements of the residual stream.
        heads: query heads.
        kv_heads: key and value heads.
        head_dim: elements of a head.
        width: inner elements of the feed-forward part.
        vocab: rows of the embedding.
        context: most positions of a sequence.
        windows: tokens that a query of each layer sees, itself included; 0 = all before it.
        bias: which of the projections q, k, v, o add a bias, as letters.
        ffn_bias: the feed-forward projections add one.
        qk_norm: queries and keys are normed per head.
        tied: the LM head is the embedding.
        epsilon: of the norms.
        frequencies: (head_dim / 2,) radians per position.
        stored: dtype the config names for its weights: "fp32", "bf16" or "fp16".
    """

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int
    vocab: int
    context: int
    windows: tuple[int, ...]
    bias: str
    ffn_bias: bool
    qk_norm: bool
    tied: bool
    epsilon: float
    frequencies: tuple[float, ...]
    stored: str

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yields the name and shape of every tensor of the checkpoint."""
        yield "model.embed_tokens.weight", (self.vocab, self.hidden)
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        for layer in range(len(self.windows)):
            at = f"model.layers.{layer}."
            yield f"{at}input_layernorm.weight", (self.hidden,)
            yield f"{at}post_attention_layernorm.weight", (self.hidden,)
            for letter, out, inside in (
                ("q", queries, self.hidden), ("k", keys, self.hidden), ("v", keys, self.hidden),
                ("o", self.hidden, queries),
            ):  # fmt: skip
                yield f"{at}self_attn.{letter}_proj.weight", (out, inside)
                if letter in self.bias:
                    yield f"{at}self_attn.{letter}_proj.bias", (out,)
            if self.qk_norm:
                yield f"{at}self_attn.q_norm.weight", (self.head_dim,)
                yield f"{at}self_attn.k_norm.weight", (self.head_dim,)
            for name, out, inside in (
                ("gate", self.width, self.hidden), ("up", self.width, self.hidden), ("down", self.hidden, self.width),
            ):  # fmt: skip
                yield f"{at}mlp.{name}_proj.weight", (out, inside)
                if self.ffn_bias:
                    yield f"{at}mlp.{name}_proj.bias", (out,)
        yield "model.norm.weight", (self.hidden,)
        if not self.tied:
            yield "lm_head.weight", (self.vocab, self.hidden)


def read_shape(config: Mapping[str, Any] | str | Path) -> Shape:
    """Returns the shape that a Hugging Face config.json describes.

    Args:
        config: the parsed table, or the path of a config.json or of the folder that holds one.

    Raises:
        SpecError: not a config, or a field that cannot be.
        Unsupported: an architecture, quantisation, activation or rotary scaling that the engine does not run.
    """
    path = "config" if isinstance(config, Mapping) else str(config)
    table = config if isinstance(config, Mapping) else read_config(config)
    model, fields = from_config(table, path), Fields(table, path)
    if model.architecture not in FAMILY:
        raise Unsupported(f"{path}: the engine does not run {model.architecture}", f"It runs {', '.join(FAMILY)}")
    if model.precision.parts:
        hint = "Take the unquantised checkpoint"
        raise Unsupported(f"{path}: the engine does not run {model.precision.method} weights", hint)
    act = fields.text("hidden_act", "silu")
    if act not in ("silu", "swish"):
        raise Unsupported(f"{path}: the engine does not run hidden_act {act!r}", "It runs 'silu'")
    layers = [model.blocks[i] for i in model.pattern]
    attentions = [block.attention for block in layers if block.attention is not None]
    attention, ffn = attentions[0], layers[0].ffn
    if attention.head_dim % 2:
        raise SpecError(f"{path}.head_dim", "must be even", value=attention.head_dim, limit="pairs are rotated")
    return Shape(
        hidden=model.hidden, heads=attention.heads, kv_heads=attention.kv_heads, head_dim=attention.head_dim,
        width=ffn.width, vocab=model.vocab, context=model.context or 2048,
        windows=tuple(a.window for a in attentions), bias=attention.bias, ffn_bias=ffn.bias,
        qk_norm=bool(attention.qk_norm), tied=model.tied,
        epsilon=_number(fields, "rms_norm_eps", 1e-6, least=0.0, most=1.0),
        frequencies=_frequencies(fields, attention.head_dim), stored=model.precision.rest,
    )  # fmt: skip


def _frequencies(fields: Fields, dim: int) -> tuple[float, ...]:
    """Returns the rotary frequencies: theta^(-2i/dim), slowed down as the config says.

    Su et al., "RoFormer", 2021; "llama3" is the rule of the Llama 3.1 release: wavelengths beyond the original context
    over ``low_freq_factor`` are stretched by ``factor``, those below it over ``high_freq_factor`` are kept, and between
    the two the frequency is interpolated.
    """
    # transformers 5 writes one table, rope_parameters; before it theta stood beside rope_scaling
    name = "rope_parameters" if fields.get("rope_parameters") is not None else "rope_scaling"
    scaling = fields.inner(name)
    theta = _number(scaling, "rope_theta", 10_000.0, least=1.0, most=1e12)
    for place in (fields, scaling):
        share = _number(place, "partial_rotary_factor", 1.0, least=0.0, most=1.0)
        if share != 1.0:
            raise Unsupported(f"{place.path}: the engine does not rotate a part of a head", "It rotates whole heads")
    kind = scaling.table.get("rope_type", scaling.table.get("type", "default"))
    if kind not in _SCALINGS:
        known = ", ".join(_SCALINGS)
        raise Unsupported(f"{scaling.path}: the engine does not scale positions by {kind!r}", f"It runs {known}")
    plain = [theta ** (-2 * i / dim) for i in range(dim // 2)]
    if kind == "default":
        return tuple(plain)
    factor = _number(scaling, "factor", None, least=1e-6, most=1e6)
    if kind == "linear":
        return tuple(f / factor for f in plain)
    low = _number(scaling, "low_freq_factor", None, least=1e-6, most=1e6)
    high = _number(scaling, "high_freq_factor", None, least=1e-6, most=1e6)
    if high <= low:
        path = f"{scaling.path}.high_freq_factor"
        raise SpecError(path, "must exceed low_freq_factor", value=high, limit=f"above {low:g}", hint=HINT)
    context = scaling.count("original_max_position_embeddings")
    found = []
    for f in plain:
        turns = context * f / (2 * math.pi)
        keep = min(1.0, max(0.0, (turns - low) / (high - low)))
        found.append((1.0 - keep) * f / factor + keep * f)
    return tuple(found)


def _number(fields: Fields, name: str, default: float | None, *, least: float, most: float) -> float:
    value = fields.get(name)
    limit = f"a number from {least:g} to {most:g}"
    if value is None:
        if default is None:
            raise SpecError(f"{fields.path}.{name}", "is missing", limit=limit, hint=HINT)
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise SpecError(f"{fields.path}.{name}", "cannot be", value=value, limit=limit, hint=HINT)
    return float(value)
