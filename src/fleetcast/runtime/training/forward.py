"""The Llama family as one differentiable function of its tensors: any batch and length, no cache.

It shares no code with the engine, which makes it the oracle of what was trained here and is served there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fleetcast.base.errors import MissingExtra, Unsupported
from fleetcast.runtime.llm.families.llama import NAMING
from fleetcast.runtime.llm.rope import Rope
from fleetcast.runtime.llm.shape import Shape

try:
    import torch
    from torch.nn import functional
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any
Watch = Callable[[str, Tensor], None]
"""Is told the name of a matrix and what it is about to be multiplied with, (..., inputs)."""


def forward(shape: Shape, weights: Mapping[str, Tensor], ids: Tensor) -> Tensor:
    """Returns the logits (batch, length, vocab) of ``ids`` (batch, length)."""
    return logits(shape, weights, hidden(shape, weights, ids)[-1])


def logits(shape: Shape, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Returns the last norm and the LM head of a residual stream (..., hidden): (..., vocab)."""
    head = weights["model.embed_tokens.weight" if shape.tied else "lm_head.weight"]
    return functional.linear(_rms(x, weights["model.norm.weight"], shape.epsilon), head)


def hidden(shape: Shape, weights: Mapping[str, Tensor], ids: Tensor, watch: Watch | None = None) -> list[Tensor]:
    """Returns the residual stream (batch, length, hidden) before the first layer and after each.

    Args:
        shape: of the model.
        weights: every tensor of ``shape.tensors()``, of one dtype.
        ids: (batch, length) tokens; every row begins at position 0.
        watch: sees the inputs of each matrix of the layers.

    Raises:
        Unsupported: a model of another family.
    """
    s, length, turns = shape, ids.shape[1], _rope(shape)

    def linear(name: str, x: Tensor) -> Tensor:
        if watch is not None:
            watch(f"{name}.weight", x)
        return functional.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def split(x: Tensor, norm: str) -> Tensor:
        x = x.unflatten(-1, (-1, s.head_dim))
        x = _rms(x, weights[norm], s.epsilon) if s.qk_norm and norm else x
        return x.transpose(1, 2)

    x = functional.embedding(ids, weights["model.embed_tokens.weight"])
    place = torch.arange(length, device=ids.device)
    angles = place[:, None].float() * torch.tensor(turns.frequencies, dtype=torch.float32, device=ids.device)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    found = [x]
    for layer, window in enumerate(s.windows):
        at = f"model.layers.{layer}."
        h = _rms(x, weights[f"{at}input_layernorm.weight"], s.epsilon)
        q = _turn(split(linear(f"{at}self_attn.q_proj", h), f"{at}self_attn.q_norm.weight"), cos, sin)
        k = _turn(split(linear(f"{at}self_attn.k_proj", h), f"{at}self_attn.k_norm.weight"), cos, sin)
        v = split(linear(f"{at}self_attn.v_proj", h), "")
        seen = None
        if 0 < window < length:
            seen = (place[None, :] <= place[:, None]) & (place[None, :] > place[:, None] - window)
        mixed = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, is_causal=seen is None, enable_gqa=True
        )
        x = x + linear(f"{at}self_attn.o_proj", mixed.transpose(1, 2).flatten(2))
        h = _rms(x, weights[f"{at}post_attention_layernorm.weight"], s.epsilon)
        gate, up = linear(f"{at}mlp.gate_proj", h), linear(f"{at}mlp.up_proj", h)
        x = x + linear(f"{at}mlp.down_proj", functional.silu(gate) * up)
        found.append(x)
    return found


def _rope(shape: Shape) -> Rope:
    """Returns how all layers turn, or raises where this forward pass is not the model's."""
    ropes = set(shape.ropes)
    plain = (
        shape.norm == "rms" and shape.activation == "silu" and shape.embedding_scale == 1.0 and not any(shape.sparse)
    )
    if shape.naming != NAMING or not plain or len(ropes) > 1 or min(r.gain for r in ropes) != 1.0:
        raise Unsupported("models of this family are not trained here", "The Llama family is, with silu, without yarn")
    return ropes.pop()


def _rms(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    if x.dtype == torch.float32:
        return functional.rms_norm(x, (x.shape[-1],), weight, epsilon)
    return functional.rms_norm(x.float(), (x.shape[-1],), None, epsilon).to(x.dtype) * weight


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Returns heads rotated: elements i and i + head_dim / 2 are the parts of a complex number."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
