"""Attention over the paged cache: which rows of a pass see which slots.

Where our own kernels are built, they read the cache where it lies, block by block, and a sequence is never padded to
another. So do those on CUDA for short pieces. Elsewhere it is gathered: short pieces of as many tokens, decode steps
above all, share one call, padded to the longest; every other piece of a prompt has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm import cuda, native
from fleetcast.runtime.llm.cache import Cache
from fleetcast.runtime.llm.paging import BLOCK, blocks_of
from fleetcast.runtime.llm.requests import Piece

try:
    import torch
    from torch.nn import functional
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.bias import causal_lower_right
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any

FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Torch's kernels for pieces of prompts. cuDNN's is up to twice as fast, but plans each new length for some 40 ms."""
SHORT = 17
"""Most tokens of pieces that share a call: the longest draft that is checked, and the token before it."""


@dataclass(frozen=True)
class Group:
    """Sequences that attend in one call.

    Attributes:
        rows: (n, q) rows of the pass that ask.
        slots: (n, k) cache slots that they read; a sequence shorter than k repeats its own first.
        masks: (n, 1, q, k) what each row sees, by window; a window without one hides nothing before a row.
    """

    rows: Tensor
    slots: Tensor
    masks: Mapping[int, Tensor]


@dataclass(frozen=True)
class Paged:
    """Sequences of a pass as the kernels take them: ``tables`` (n, most) int32 blocks, ``spans`` (n, 3) int64.

    A span is the sequence's first row of the pass, how many rows it has, and the position of the first.
    """

    tables: Tensor
    spans: Tensor


def paged(pieces: Sequence[Piece]) -> Paged:
    """Returns the pieces of a pass for the kernels."""
    ends = [p.start + len(p.tokens) for p in pieces]
    most = max(blocks_of(end) for end in ends)
    tables = np.zeros((len(pieces), most), np.int32)
    spans = np.zeros((len(pieces), 3), np.int64)
    begin = 0
    for i, (p, end) in enumerate(zip(pieces, ends, strict=True)):
        used = blocks_of(end)
        tables[i, :used] = p.table[:used]
        spans[i] = begin, len(p.tokens), p.start
        begin += len(p.tokens)
    return Paged(torch.from_numpy(tables), torch.from_numpy(spans))


def attend_paged(
    q: Tensor, cache: Cache, layer: int, those: Paged, window: int, *, scale: float, cap: float = 0.0
) -> Tensor:
    """Returns what `attend` does, from the cache where it lies; see there."""
    out = torch.empty_like(q)
    _, heads, width = q.shape
    scales = (None, None) if cache.scales is None else (cache.scales[0, layer], cache.scales[1, layer])
    native.kernels.attend(
        native.KINDS[q.dtype], native.KINDS[cache.keys.dtype], q.data_ptr(), out.data_ptr(),
        cache.keys[layer].data_ptr(), cache.values[layer].data_ptr(), *map(native.address, scales),
        those.tables.data_ptr(), those.tables.shape[1], those.spans.data_ptr(), len(those.spans), heads,
        cache.keys.shape[2], width, window, torch.get_num_threads(), scale, cap,
    )  # fmt: skip
    return out


def place(
    qkv: Tensor, cache: Cache, layer: int, slots: Tensor, turns: tuple[Tensor, Tensor] | None,
    norms: tuple[Tensor, Tensor, float] | None,
) -> Tensor:  # fmt: skip
    """Returns the queries (tokens, heads, width), normed and turned, after storing keys and values in the cache.

    Args:
        qkv: (tokens, (heads + 2 key heads) width), contiguous.
        cache: keys and values.
        layer: of the cache.
        slots: (tokens,) int64.
        turns: cosines and sines of every token, fp32, (tokens, pairs that turn); None = nothing turns.
        norms: weights of the RMS norms of queries and keys, and their epsilon; None = there are none.
    """
    _, _, keys, width = cache.keys.shape
    heads = qkv.shape[1] // width - 2 * keys
    q = qkv.new_empty(len(qkv), heads, width)
    scales = (None, None) if cache.scales is None else (cache.scales[0, layer], cache.scales[1, layer])
    cosine, sine = turns if turns is not None else (None, None)
    q_norm, k_norm, epsilon = norms if norms is not None else (None, None, 0.0)
    native.kernels.place(
        native.KINDS[qkv.dtype], native.KINDS[cache.keys.dtype], 0 if q_norm is None else native.KINDS[q_norm.dtype],
        qkv.data_ptr(), native.address(q_norm), native.address(k_norm), native.address(cosine), native.address(sine),
        q.data_ptr(), cache.keys[layer].data_ptr(), cache.values[layer].data_ptr(), *map(native.address, scales),
        slots.data_ptr(), len(qkv), heads, keys, width, 0 if cosine is None else 2 * cosine.shape[1],
        torch.get_num_threads(), epsilon,
    )  # fmt: skip
    return q


def attend(
    q: Tensor, cache: Cache, layer: int, groups: Sequence[Group], window: int, *, scale: float, cap: float = 0.0,
    rows: cuda.Rows | None = None,
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
        rows: who attends each for itself, by the kernels on CUDA.
    """
    out = torch.empty_like(q)
    if rows is not None:
        cuda.attend(q, out, cache, layer, rows, window, scale=scale, cap=cap)
    for group in groups:
        keys, values = cache.read(layer, group.slots, q.dtype)
        asked, keys, values = (part.transpose(1, 2) for part in (q[group.rows], keys, values))
        mask = group.masks.get(window)
        if mask is None:
            first = asked.shape[2] == keys.shape[2]
            with sdpa_kernel(FUSED):
                found = functional.scaled_dot_product_attention(
                    asked, keys, values, attn_mask=None if first else causal_lower_right(asked.shape[2], keys.shape[2]),
                    is_causal=first, scale=scale, enable_gqa=True,
                )  # fmt: skip
        elif cap:
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


def written_slots(pieces: Sequence[Piece]) -> Tensor:
    """Returns the cache slots of the pass's tokens, one after the other."""
    found = []
    for p in pieces:
        position = np.arange(p.start, p.start + len(p.tokens))
        first = p.start // BLOCK
        table = np.array(p.table[first : (p.start + len(p.tokens) - 1) // BLOCK + 1], np.int64)
        found.append(table[position // BLOCK - first] * BLOCK + position % BLOCK)
    return torch.from_numpy(np.concatenate(found))


def groups_of(
    pieces: Sequence[Piece], windows: set[int], device: Any = "cpu", which: Sequence[int] | None = None, *,
    fused: bool = False,
) -> list[Group]:  # fmt: skip
    """Returns the pieces of a pass by who attends together.

    Args:
        pieces: of the pass.
        windows: of the layers.
        device: of torch.
        which: of the pieces; None = all.
        fused: make no masks for long pieces under windows that hide nothing; torch has fused kernels for these.
    """
    begins = np.cumsum([0, *(len(p.tokens) for p in pieces)])
    alike: dict[int, list[int]] = {}
    for i in range(len(pieces)) if which is None else which:  # drafts that are checked are as short as steps
        count = len(pieces[i].tokens)
        alike.setdefault(count if count <= SHORT else -i - 1, []).append(i)
    return [
        _group([pieces[i] for i in those], [int(begins[i]) for i in those], windows, device, fused and kind < 0)
        for kind, those in alike.items()
    ]


def _group(
    pieces: Sequence[Piece], begins: Sequence[int], windows: set[int], device: Any, fused: bool = False
) -> Group:
    asking = len(pieces[0].tokens)
    each = [slots_of(p) for p in pieces]
    longest = max(len(slots) for slots in each)
    slots = torch.stack([torch.cat([x, x[:1].expand(longest - len(x))]) for x in each])
    at = torch.tensor([p.start for p in pieces])[:, None, None, None] + torch.arange(asking)[:, None]
    place = torch.arange(longest)
    seen = {w for w in windows if not fused or 0 < w < longest}
    masks = {w: ((place <= at) & (place > at - w) if w else place <= at).to(device) for w in seen}
    rows = torch.tensor(begins)[:, None] + torch.arange(asking)
    return Group(rows.to(device), slots.to(device), masks)
