"""What a CUDA device runs in place of torch's own operations: Triton kernels on tensors, where Triton is installed.

Every caller has torch's own operations to fall back on, which compute the same to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm.paging import BLOCK, blocks_of
from fleetcast.runtime.llm.requests import Piece

if TYPE_CHECKING:
    from fleetcast.runtime.llm.cache import Cache
try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None
kernels: Any
try:
    from fleetcast.runtime.llm.cuda import kernels
except ImportError:
    kernels = None

Tensor = Any

WHERE: Final = {"cuda"}
"""Kinds of device whose tensors the kernels take."""
SHORT: Final = 17
"""Most tokens of a piece whose rows attend each for itself: the longest draft that is checked, and the one before."""
TILE: Final = 64
"""Tokens of context that a program reads at once."""
PROGRAMS: Final = 512
"""Programs that keep a large device busy: of attention, so many are aimed at."""
MOST_SPLITS: Final = 32
FEW: Final = 64
"""Rows up to which matrices of whole numbers are widened as they are read; more are multiplied by torch."""


def ready(x: Tensor) -> bool:
    """Whether the kernels are there and can take a tensor."""
    known = x.dtype in (torch.float32, torch.bfloat16)
    return kernels is not None and x.device.type in WHERE and known and x.is_contiguous()


@dataclass(frozen=True)
class Rows:
    """Rows of a pass that attend each for itself.

    Attributes:
        rows: (n,) int64, of the pass.
        tables: (n, most) int32, cache blocks of each row's sequence.
        ends: (n,) int64, tokens of it that the row may see: those before it and itself.
    """

    rows: Tensor
    tables: Tensor
    ends: Tensor


def rows_of(pieces: Sequence[Piece], device: Any) -> tuple[Rows | None, list[int]]:
    """Returns the rows of short pieces, None where there are none, and which pieces are longer."""
    begins = np.cumsum([0, *(len(p.tokens) for p in pieces)])
    short = [i for i, p in enumerate(pieces) if len(p.tokens) <= SHORT]
    if not short:
        return None, list(range(len(pieces)))
    rows = np.concatenate([np.arange(begins[i], begins[i + 1]) for i in short])
    ends = np.concatenate([np.arange(pieces[i].start + 1, pieces[i].start + len(pieces[i].tokens) + 1) for i in short])
    tables = np.zeros((len(rows), max(blocks_of(int(end)) for end in ends)), np.int32)
    at = 0
    for i in short:
        p = pieces[i]
        used = blocks_of(p.start + len(p.tokens))
        tables[at : at + len(p.tokens), :used] = p.table[:used]
        at += len(p.tokens)
    moved = (torch.from_numpy(x).to(device) for x in (rows.astype(np.int64), tables, ends.astype(np.int64)))
    return Rows(*moved), [i for i, p in enumerate(pieces) if len(p.tokens) > SHORT]


def norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Returns the RMS norm of ``x`` over its last axis."""
    out = torch.empty_like(x)
    width = x.shape[-1]
    size = power(width)
    kernels.norm[(x.numel() // width,)](x, weight, out, width, epsilon, SIZE=size, num_warps=8 if size > 2048 else 4)
    return out


def gate(x: Tensor, gelu: bool) -> Tensor:
    """Returns act(first half of each row) times the second half; act is silu, or gelu by tanh."""
    rows, width = x.shape[0], x.shape[1] // 2
    out = x.new_empty(rows, width)
    kernels.gate[(rows, -(-width // 1024))](x, out, width, GELU=gelu, SIZE=1024)
    return out


def place(
    qkv: Tensor, cache: Cache, layer: int, slots: Tensor, turns: tuple[Tensor, Tensor] | None,
    norms: tuple[Tensor, Tensor, float] | None,
) -> Tensor:  # fmt: skip
    """Returns the queries (tokens, heads, width), normed and turned, after storing keys and values in the cache.

    The arguments are those of `attention.place`.
    """
    _, _, kv_heads, width = cache.keys.shape
    heads = qkv.shape[1] // width - 2 * kv_heads
    q = qkv.new_empty(len(qkv), heads, width)
    scales = (q, q) if cache.scales is None else (cache.scales[0, layer], cache.scales[1, layer])
    cosine, sine = turns if turns is not None else (q, q)
    q_norm, k_norm, epsilon = norms if norms is not None else (q, q, 0.0)
    half = cosine.shape[1] if turns is not None else 0
    kernels.place[(len(qkv), heads + 2 * kv_heads)](
        qkv, q, cache.keys[layer], cache.values[layer], *scales, q_norm, k_norm, cosine, sine, slots, heads, kv_heads,
        width, half, epsilon, NORMED=norms is not None, TURNS=turns is not None, QUANT=cache.scales is not None,
        SIZE=power(width), num_warps=1,
    )  # fmt: skip
    return q


def attend(
    q: Tensor, out: Tensor, cache: Cache, layer: int, those: Rows, window: int, *, scale: float, cap: float = 0.0
) -> None:
    """Writes what the rows of a pass attend to into ``out``; both it and ``q`` are (tokens, heads, width)."""
    n, (_, heads, width), kv_heads = len(those.rows), q.shape, cache.keys.shape[2]
    group, size = heads // kv_heads, max(16, power(width))
    splits = min(MOST_SPLITS, power(max(1, PROGRAMS // (n * kv_heads))))
    partial = torch.empty(n, kv_heads, splits, group, width, dtype=torch.float32, device=q.device)
    peaks, sums = torch.empty(2, n, kv_heads, splits, group, dtype=torch.float32, device=q.device)
    scales = (sums, sums) if cache.scales is None else (cache.scales[0, layer], cache.scales[1, layer])
    kernels.attend[(n, kv_heads, splits)](
        q, cache.keys[layer], cache.values[layer], *scales, those.tables, those.ends, those.rows, partial, peaks, sums,
        those.tables.stride(0), kv_heads, width, window, scale, cap, GROUP=group, ROWS=max(16, power(group)),
        SIZE=size, TILE=TILE if q.dtype == torch.bfloat16 else 32, BLOCK=BLOCK, SPLITS=splits, CAPPED=cap > 0.0,
        QUANT=cache.scales is not None, num_warps=4, num_stages=2,
    )  # fmt: skip
    kernels.gather[(n, heads)](
        partial, peaks, sums, those.rows, out, kv_heads, width, GROUP=group, SIZE=size, SPLITS=splits, num_warps=1
    )


def multiply(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Returns ``x`` (rows, inputs), `FEW` at most, times a matrix of `linear.Int8`, or where uint8 `linear.Int4`."""
    (rows, inputs), outputs, pairs = x.shape, len(weight), weight.dtype == torch.uint8
    out = x.new_empty(rows, outputs)
    columns = 32
    kernels.multiply[(-(-outputs // columns),)](
        x, weight, scale, out, rows, outputs, inputs, ROWS=max(16, power(rows)), COLUMNS=columns,
        DEPTH=128 if pairs or rows > 16 else 256, PAIRS=pairs, num_warps=4, num_stages=3,
    )  # fmt: skip
    return out


def power(count: int) -> int:
    """Returns the least power of two that is at least ``count``."""
    return 1 << (count - 1).bit_length()
