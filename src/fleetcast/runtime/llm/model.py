"""The forward pass of the Llama family over a paged KV cache, on torch.

Pieces of any number of sequences go through every matrix together; only attention knows them apart. Decode steps, one
token each, share one attention call, padded to the longest; every piece of a prompt has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm.engine import Piece
from fleetcast.runtime.llm.paging import BLOCK
from fleetcast.runtime.llm.shape import Shape

try:
    import torch
    from torch.nn import functional
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any


@dataclass(frozen=True)
class _Linear:
    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class _Layer:
    attention_norm: Tensor
    ffn_norm: Tensor
    qkv: _Linear
    out: _Linear
    gate_up: _Linear
    down: _Linear
    q_norm: Tensor | None
    k_norm: Tensor | None
    window: int


@dataclass(frozen=True)
class _Group:
    """Sequences that attend in one call.

    Attributes:
        rows: (n, q) rows of the pass that ask.
        slots: (n, k) cache slots that they read; a sequence shorter than k repeats its own first.
        masks: (n, 1, q, k) what each row sees, by window.
    """

    rows: Tensor
    slots: Tensor
    masks: Mapping[int, Tensor]


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
        size = (len(self.layers), blocks * BLOCK, shape.kv_heads, shape.head_dim)
        self.keys = torch.zeros(size, dtype=self.embedding.dtype)
        self.values = torch.zeros(size, dtype=self.embedding.dtype)

    def forward(self, pieces: Sequence[Piece]) -> NDArray[np.float32]:
        """Returns the logits (pieces that emit, vocabulary) and caches every token's keys and values."""
        with torch.inference_mode():
            found = self._forward(pieces)
        return np.asarray(found.float().numpy(), dtype=np.float32)

    def _forward(self, pieces: Sequence[Piece]) -> Tensor:
        s = self.shape
        ids = torch.tensor([token for p in pieces for token in p.tokens])
        positions = torch.cat([torch.arange(p.start, p.start + len(p.tokens)) for p in pieces])
        written = torch.cat([_slots(p)[p.start :] for p in pieces])
        groups = _groups(pieces, set(s.windows))
        angles = positions[:, None] * self.frequencies
        x = self.embedding[ids]
        cos, sin = (f(torch.cat([angles, angles], dim=1))[:, None].to(x.dtype) for f in (torch.cos, torch.sin))
        queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
        for i, layer in enumerate(self.layers):
            q, k, v = layer.qkv(_rms(x, layer.attention_norm, s.epsilon)).split([queries, keys, keys], dim=1)
            q, k, v = (part.unflatten(1, (-1, s.head_dim)) for part in (q, k, v))
            if layer.q_norm is not None:
                q, k = _rms(q, layer.q_norm, s.epsilon), _rms(k, layer.k_norm, s.epsilon)
            self.keys[i, written] = _rotate(k, cos, sin)
            self.values[i, written] = v
            mixed = self._attend(i, _rotate(q, cos, sin), groups, layer.window)
            x = x + layer.out(mixed.flatten(1))
            gate, up = layer.gate_up(_rms(x, layer.ffn_norm, s.epsilon)).chunk(2, dim=1)
            x = x + layer.down(functional.silu(gate) * up)
        ends = np.cumsum([len(p.tokens) for p in pieces]) - 1
        last = torch.tensor([int(end) for end, p in zip(ends, pieces, strict=True) if p.emit], dtype=torch.int64)
        return functional.linear(_rms(x[last], self.norm, s.epsilon), self.head)

    def _attend(self, layer: int, q: Tensor, groups: Sequence[_Group], window: int) -> Tensor:
        """Returns (tokens, heads, head_dim) for the queries ``q`` of that shape."""
        out = torch.empty_like(q)
        for group in groups:
            found = functional.scaled_dot_product_attention(
                q[group.rows].transpose(1, 2), self.keys[layer, group.slots].transpose(1, 2),
                self.values[layer, group.slots].transpose(1, 2), attn_mask=group.masks[window], enable_gqa=True,
            )  # fmt: skip
            out[group.rows] = found.transpose(1, 2)
        return out


def _slots(p: Piece) -> Tensor:
    """Returns the cache slots of a sequence up to the piece's last token, by position."""
    position = torch.arange(p.start + len(p.tokens))
    return torch.tensor(p.table)[position // BLOCK] * BLOCK + position % BLOCK


def _groups(pieces: Sequence[Piece], windows: set[int]) -> list[_Group]:
    begins = np.cumsum([0, *(len(p.tokens) for p in pieces)])
    steps = [i for i, p in enumerate(pieces) if len(p.tokens) == 1]
    members = [steps] if steps else []
    members += [[i] for i, p in enumerate(pieces) if len(p.tokens) > 1]
    return [_group([pieces[i] for i in those], [int(begins[i]) for i in those], windows) for those in members]


def _group(pieces: Sequence[Piece], begins: Sequence[int], windows: set[int]) -> _Group:
    asking = len(pieces[0].tokens)
    each = [_slots(p) for p in pieces]
    longest = max(len(slots) for slots in each)
    slots = torch.stack([torch.cat([x, x[:1].expand(longest - len(x))]) for x in each])
    at = torch.tensor([p.start for p in pieces])[:, None, None, None] + torch.arange(asking)[:, None]
    place = torch.arange(longest)
    masks = {w: (place <= at) & (place > at - w) if w else place <= at for w in windows}
    return _Group(torch.tensor(begins)[:, None] + torch.arange(asking), slots, masks)


def _layer(weights: Mapping[str, Tensor], number: int, window: int) -> _Layer:
    at = f"model.layers.{number}."

    def linear(*names: str) -> _Linear:
        """Several projections of one input, as one."""
        matrices = [weights[f"{at}{name}_proj.weight"] for name in names]
        biases = [weights.get(f"{at}{name}_proj.bias") for name in names]
        if all(b is None for b in biases):
            return _Linear(torch.cat(matrices), None)
        filled = [m.new_zeros(len(m)) if b is None else b for m, b in zip(matrices, biases, strict=True)]
        return _Linear(torch.cat(matrices), torch.cat(filled))

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
