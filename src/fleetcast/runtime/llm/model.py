"""The forward pass of the Llama family over a paged KV cache, on torch.

Pieces of any number of sequences go through every matrix together; only attention knows them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm.attention import attend, groups_of, slots_of
from fleetcast.runtime.llm.cache import Cache
from fleetcast.runtime.llm.linear import Linear, joined
from fleetcast.runtime.llm.paging import BLOCK
from fleetcast.runtime.llm.requests import Piece
from fleetcast.runtime.llm.shape import Shape

try:
    import torch
    from torch.nn import functional
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any


@dataclass(frozen=True)
class _Layer:
    attention_norm: Tensor
    ffn_norm: Tensor
    qkv: Linear
    out: Linear
    gate_up: Linear
    down: Linear
    q_norm: Tensor | None
    k_norm: Tensor | None
    window: int


class Transformer:
    """A model of the Llama family and its KV cache.

    Args:
        shape: of the model.
        weights: every tensor of ``shape.tensors()``, all of one dtype.
        blocks: of the cache, `BLOCK` tokens each.
    """

    def __init__(self, shape: Shape, weights: Mapping[str, Tensor], blocks: int) -> None:
        self.shape, self.vocab, self.context = shape, shape.vocab, shape.context
        self.embedding = weights["model.embed_tokens.weight"]
        self.head = self.embedding if shape.tied else weights["lm_head.weight"]
        self.norm = weights["model.norm.weight"]
        self.layers = [_layer(weights, i, window) for i, window in enumerate(shape.windows)]
        self.frequencies = torch.tensor(shape.frequencies, dtype=torch.float32)
        slots = blocks * BLOCK
        self.cache = Cache(len(self.layers), slots, shape.kv_heads, shape.head_dim, self.embedding.dtype)

    def forward(self, pieces: Sequence[Piece]) -> NDArray[np.float32]:
        """Returns the logits (tokens that emit, vocabulary) and caches every token's keys and values."""
        with torch.inference_mode():
            found = self._forward(pieces)
        return np.asarray(found.float().numpy(), dtype=np.float32)

    def _forward(self, pieces: Sequence[Piece]) -> Tensor:
        s = self.shape
        ids = torch.tensor([token for p in pieces for token in p.tokens])
        positions = torch.cat([torch.arange(p.start, p.start + len(p.tokens)) for p in pieces])
        written = torch.cat([slots_of(p)[p.start :] for p in pieces])
        groups = groups_of(pieces, set(s.windows))
        angles = positions[:, None] * self.frequencies
        x = self.embedding[ids]
        cos, sin = (f(torch.cat([angles, angles], dim=1))[:, None].to(x.dtype) for f in (torch.cos, torch.sin))
        queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
        for i, layer in enumerate(self.layers):
            q, k, v = layer.qkv(_rms(x, layer.attention_norm, s.epsilon)).split([queries, keys, keys], dim=1)
            q, k, v = (part.unflatten(1, (-1, s.head_dim)) for part in (q, k, v))
            if layer.q_norm is not None:
                q, k = _rms(q, layer.q_norm, s.epsilon), _rms(k, layer.k_norm, s.epsilon)
            self.cache.write(i, written, _rotate(k, cos, sin), v)
            mixed = attend(_rotate(q, cos, sin), self.cache, i, groups, layer.window)
            x = x + layer.out(mixed.flatten(1))
            gate, up = layer.gate_up(_rms(x, layer.ffn_norm, s.epsilon)).chunk(2, dim=1)
            x = x + layer.down(functional.silu(gate) * up)
        ends = np.cumsum([len(p.tokens) for p in pieces]).tolist()
        last = torch.tensor([i for end, p in zip(ends, pieces, strict=True) for i in range(end - p.emit, end)]).long()
        return functional.linear(_rms(x[last], self.norm, s.epsilon), self.head)


def _layer(weights: Mapping[str, Tensor], number: int, window: int) -> _Layer:
    at = f"model.layers.{number}."

    def linear(*names: str) -> Linear:
        return joined(
            [weights[f"{at}{name}_proj.weight"] for name in names],
            [weights.get(f"{at}{name}_proj.bias") for name in names],
        )

    return _Layer(
        attention_norm=weights[f"{at}input_layernorm.weight"],
        ffn_norm=weights[f"{at}post_attention_layernorm.weight"],
        qkv=linear("self_attn.q", "self_attn.k", "self_attn.v"),
        out=linear("self_attn.o"),
        gate_up=linear("mlp.gate", "mlp.up"),
        down=linear("mlp.down"),
        q_norm=weights.get(f"{at}self_attn.q_norm.weight"),
        k_norm=weights.get(f"{at}self_attn.k_norm.weight"),
        window=window,
    )


def _rms(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Returns RMSNorm over the last axis, the mean square taken in fp32."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)).to(x.dtype) * weight


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Returns heads turned by their position's angles; element i pairs with i + head_dim / 2."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin
