"""Attention over the paged cache: which rows of a pass see which slots.

Decode steps, one token each, share one call, padded to the longest; every piece of a prompt has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm.cache import Cache
from fleetcast.runtime.llm.paging import BLOCK
from fleetcast.runtime.llm.requests import Piece

try:
    import torch
    from torch.nn import functional
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any


@dataclass(frozen=True)
class Group:
    """Sequences that attend in one call.

    Attributes:
        rows: (n, q) rows of the pass that ask.
        slots: (n, k) cache slots that they read; a sequence shorter than k repeats its own first.
        masks: (n, 1, q, k) what each row sees, by window.
    """

    rows: Tensor
    slots: Tensor
    masks: Mapping[int, Tensor]


def attend(
    q: Tensor, cache: Cache, layer: int, groups: Sequence[Group], window: int, *, scale: float, cap: float = 0.0,
) -> Tensor:  # fmt: skip
    """Returns (tokens, heads, head_dim) for the queries ``q`` of that shape.

    Args:
        q: queries.
        cache: keys and values.
        layer: of the cache.
        groups: who attends together.
        window: tokens that a query sees; 0 = all before it.
        scale: factor on scores.
        cap: scores s become cap tanh(s / cap); 0 = they stay.
    """
    out = torch.empty_like(q)
    for group in groups:
        keys, values = cache.read(layer, group.slots)
        asked, keys, values = (part.transpose(1, 2) for part in (q[group.rows], keys, values))
        mask = group.masks[window]
        if cap:
            found = _capped(asked, keys, values, mask, scale, cap)
        else:
            found = functional.scaled_dot_product_attention(
                asked, keys, values, attn_mask=mask, scale=scale, enable_gqa=True
            )
        out[group.rows] = found.transpose(1, 2)
    return out


def _capped(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float, cap: float) -> Tensor:
    """Returns attention whose scores are capped, which no fused kernel of torch does; softmax in fp32."""
    n, heads, asking, width = q.shape
    shared = q.reshape(n, keys.shape[1], heads // keys.shape[1], asking, width)
    scores = shared @ keys[:, :, None].transpose(3, 4) * scale
    scores = torch.tanh(scores / cap) * cap
    scores = scores.masked_fill(~mask[:, :, None], float("-inf"))
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    return (weights @ values[:, :, None]).reshape(q.shape)


def slots_of(p: Piece) -> Tensor:
    """Returns the cache slots of a sequence up to the piece's last token, by position."""
    position = torch.arange(p.start + len(p.tokens))
    return torch.tensor(p.table)[position // BLOCK] * BLOCK + position % BLOCK


def groups_of(pieces: Sequence[Piece], windows: set[int], device: Any = "cpu") -> list[Group]:
    """Returns the pieces of a pass by who attends together; ``windows`` are those of the layers."""
    begins = np.cumsum([0, *(len(p.tokens) for p in pieces)])
    steps = [i for i, p in enumerate(pieces) if len(p.tokens) == 1]
    members = [steps] if steps else []
    members += [[i] for i, p in enumerate(pieces) if len(p.tokens) > 1]
    return [_group([pieces[i] for i in those], [int(begins[i]) for i in those], windows, device) for those in members]


def _group(pieces: Sequence[Piece], begins: Sequence[int], windows: set[int], device: Any) -> Group:
    asking = len(pieces[0].tokens)
    each = [slots_of(p) for p in pieces]
    longest = max(len(slots) for slots in each)
    slots = torch.stack([torch.cat([x, x[:1].expand(longest - len(x))]) for x in each])
    at = torch.tensor([p.start for p in pieces])[:, None, None, None] + torch.arange(asking)[:, None]
    place = torch.arange(longest)
    masks = {w: ((place <= at) & (place > at - w) if w else place <= at).to(device) for w in windows}
    rows = torch.tensor(begins)[:, None] + torch.arange(asking)
    return Group(rows.to(device), slots.to(device), masks)
