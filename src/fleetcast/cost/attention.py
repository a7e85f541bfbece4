"""Time of attention on one device: decode affine in the context with a floor, prefill by pairs.

Decode, for a rank with ``n`` sequences of total context X: ``max(floor[n], base[n] + slope * X)``.
The slope is what the keys and values of one token cost to read (or to multiply, where many query
heads share them); the floor is the launch plus scheduling one block per sequence and key head.
Prefill: ``base + pair * pairs + query * new tokens + context * (cached + new tokens)``.

The tables repeat one input, so small caches stay in the second-level cache: the fit keeps rows
whose keys and values exceed 1.5 times that cache, and near-empty ones for the floor. A server reads
its cache cold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fleetcast.cost.roofline import Array, Silicon, format_of, peak


@dataclass(frozen=True, slots=True, kw_only=True)
class Decode:
    """Fitted coefficients of decode attention.

    Attributes:
        launch: s, floor of the kernels.
        head: s per sequence and key head of width 128 that must be scheduled; grows with the width's root.
        base: s, intercept once the cache is read from memory.
        memory: fraction of the memory bandwidth reached.
        compute: fraction of the peak FLOP/s reached.
        each: s that every sequence adds to the intercept.
        adds: share of the shorter of reading and multiplying that adds to the longer: 0 where they overlap, 1 where
            one follows the other.
    """

    launch: float
    head: float
    base: float
    memory: float
    compute: float
    each: float = 0.0
    adds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """Fitted coefficients of prefill attention.

    Attributes:
        launch: s.
        compute: fraction of the peak FLOP/s reached, head width 128 and above.
        narrow: the same for head width 64 and below.
        token: passes over queries, keys, values and outputs at full bandwidth.
        window: keys beyond its window that a query block computes.
    """

    launch: float
    compute: float
    narrow: float
    token: float
    window: float = 0.0


def decode_head(kv_heads: ArrayLike, head_dim: ArrayLike, c: Decode) -> Array:
    """Returns seconds by which each sequence raises the floor of decode attention."""
    # Half a block's scheduling grows with its width: 64 and 128 wide heads differ by a factor of 1.4 in the tables.
    wide = np.sqrt(np.asarray(head_dim, dtype=np.float64) / 128.0)
    return np.asarray(c.head * np.asarray(kv_heads, dtype=np.float64) * wide)


def decode_floor(n: ArrayLike, kv_heads: ArrayLike, head_dim: ArrayLike, c: Decode) -> Array:
    """Returns seconds that decode attention of ``n`` sequences (array) takes at least."""
    count = np.asarray(n, dtype=np.float64)
    return np.where(count > 0, c.launch + count * decode_head(kv_heads, head_dim, c), 0.0)


def decode_base(n: ArrayLike, c: Decode) -> Array:
    """Returns the intercept (s) of decode attention over total context, for ``n`` sequences (array)."""
    return np.where(np.asarray(n) > 0, c.base, 0.0)


def decode_slope(
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    kv_dtype: str,
    chip: Silicon,
    c: Decode,
) -> Array:
    """Returns seconds per token of context of one layer's decode attention on one device.

    Args:
        heads: query heads on this device.
        kv_heads: key-value heads on this device.
        head_dim: width of a head.
        kv_dtype: number format of the cache.
        chip: the device.
        c: its coefficients.
    """
    q, kv, width = (np.asarray(x, dtype=np.float64) for x in (heads, kv_heads, head_dim))
    size = 2.0 * kv * width * format_of(kv_dtype).weight
    read = size / (chip.bandwidth * c.memory)
    multiply = 4.0 * q * width / (peak(chip, "bf16") * c.compute)
    return np.asarray(np.maximum(read, multiply) + c.adds * np.minimum(read, multiply))


def latent_slope(heads: ArrayLike, rank: float, rope: float, kv_dtype: str, chip: Silicon, c: Decode) -> Array:
    """Returns seconds per token of context of one layer of latent (MLA) decode attention.

    Every query head attends to one shared latent of ``rank + rope`` elements, whose first ``rank``
    are also the value (DeepSeek-V2, 2024): read once, multiplied for each head.

    Args:
        heads: query heads on this device.
        rank: width of the compressed keys and values, 512 in DeepSeek.
        rope: width of the rotary part, 64 in DeepSeek.
        kv_dtype: number format of the cache.
        chip: the device.
        c: coefficients of family "latent_decode".
    """
    read = (rank + rope) * format_of(kv_dtype).weight / (chip.bandwidth * c.memory)
    q = np.asarray(heads, dtype=np.float64)
    multiply = 2.0 * q * (2.0 * rank + rope) / (peak(chip, "bf16") * c.compute)
    return np.asarray(np.maximum(read, multiply))


def decode_time(
    n: ArrayLike,
    context: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    kv_dtype: str,
    chip: Silicon,
    c: Decode,
) -> Array:
    """Returns seconds of one layer's decode attention, ``n`` sequences of total ``context``."""
    slope = decode_slope(heads, kv_heads, head_dim, kv_dtype, chip, c)
    affine = decode_base(n, c) + slope * np.asarray(context, dtype=np.float64)
    return np.maximum(decode_floor(n, kv_heads, head_dim, c), affine)


def prefill_pair(heads: ArrayLike, head_dim: ArrayLike, chip: Silicon, c: Prefill) -> Array:
    """Returns seconds per (new token, attended token) pair of one layer on one device."""
    width = np.asarray(head_dim, dtype=np.float64)
    share = np.where(width <= 64, c.narrow, c.compute) * peak(chip, "bf16")
    return np.asarray(4.0 * np.asarray(heads, dtype=np.float64) * width / share)


def prefill_token(heads: ArrayLike, head_dim: ArrayLike, chip: Silicon, c: Prefill) -> Array:
    """Returns seconds per token of one layer on one device for two 16-bit tensors of ``heads`` heads.

    With the query heads: query and output of a new token. With the key-value heads: key and value of a token of
    context, cached or new.
    """
    width = np.asarray(heads, dtype=np.float64) * np.asarray(head_dim, dtype=np.float64)
    return np.asarray(width * (4.0 * c.token / chip.bandwidth))


def pairs(new: ArrayLike, cached: ArrayLike, window: ArrayLike = 0.0) -> Array:
    """Returns attended pairs of ``new`` tokens after ``cached`` ones under a causal mask.

    Args:
        new: new tokens per sequence.
        cached: tokens before them.
        window: how many tokens back a token sees, itself included; 0 = all.
    """
    q, c = np.asarray(new, dtype=np.float64), np.asarray(cached, dtype=np.float64)
    w = np.asarray(window, dtype=np.float64)
    w = np.where(w > 0, w, np.inf)
    short = np.clip(w - c, 0.0, q)  # new tokens that still see everything before them
    rest = np.where(q > short, (q - short) * np.where(np.isinf(w), 0.0, w), 0.0)
    return np.asarray(short * c + short * (short + 1.0) / 2.0 + rest)


def prefill_time(
    new: ArrayLike,
    cached: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    chip: Silicon,
    c: Prefill,
    window: ArrayLike = 0.0,
) -> Array:
    """Returns seconds of one layer's prefill attention of one sequence, its launch included."""
    seen = np.asarray(window, dtype=np.float64)
    wide = np.where(seen > 0, seen + c.window, 0.0)
    work = prefill_pair(heads, head_dim, chip, c) * pairs(new, cached, wide)
    fresh = np.asarray(new, dtype=np.float64)
    queries = prefill_token(heads, head_dim, chip, c) * fresh
    keys = prefill_token(kv_heads, head_dim, chip, c) * (fresh + np.asarray(cached, dtype=np.float64))
    return np.asarray(c.launch + work + queries + keys)
