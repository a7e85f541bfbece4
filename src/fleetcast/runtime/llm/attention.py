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


def attend(q: Tensor, cache: Cache, layer: int, groups: Sequence[Group], window: int) -> Tensor:
    """Returns (tokens, heads, head_dim) for the queries ``q`` of that shape."""
    out = torch.empty_like(q)
    for group in groups:
        keys, values = cache.read(layer, group.slots)
        found = functional.scaled_dot_product_attention(
            q[group.rows].transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2),
            attn_mask=group.masks[window], enable_gqa=True,
        )  # fmt: skip
        out[group.rows] = found.transpose(1, 2)
    return out


def slots_of(p: Piece) -> Tensor:
    """Returns the cache slots of a sequence up to the piece's last token, by position."""
    position = torch.arange(p.start + len(p.tokens))
    return torch.tensor(p.table)[position // BLOCK] * BLOCK + position % BLOCK


def groups_of(pieces: Sequence[Piece], windows: set[int]) -> list[Group]:
    """Returns the pieces of a pass by who attends together; ``windows`` are those of the layers."""
    begins = np.cumsum([0, *(len(p.tokens) for p in pieces)])
    steps = [i for i, p in enumerate(pieces) if len(p.tokens) == 1]
    members = [steps] if steps else []
    members += [[i] for i, p in enumerate(pieces) if len(p.tokens) > 1]
    return [_group([pieces[i] for i in those], [int(begins[i]) for i in those], windows) for those in members]


def _group(pieces: Sequence[Piece], begins: Sequence[int], windows: set[int]) -> Group:
    asking = len(pieces[0].tokens)
    each = [slots_of(p) for p in pieces]
    longest = max(len(slots) for slots in each)
    slots = torch.stack([torch.cat([x, x[:1].expand(longest - len(x))]) for x in each])
    at = torch.tensor([p.start for p in pieces])[:, None, None, None] + torch.arange(asking)[:, None]
    place = torch.arange(longest)
    masks = {w: (place <= at) & (place > at - w) if w else place <= at for w in windows}
    return Group(torch.tensor(begins)[:, None] + torch.arange(asking), slots, masks)
