"""Triton kernels of a decode step: attention over the paged cache, and the norms, gates and rotations between products.

They are to CUDA what `kernels.decoder` is to the processor, and round where torch's own operations do. Attention of a
long context is shared out over several programs and put together afterwards: Dao, Haziza, Massa, Sizov,
"Flash-Decoding for long-context inference", 2023. The cache's blocks are read where they lie (Kwon et al., SOSP 2023).
"""

# Triton compiles these functions; their arguments have no types that a checker knows.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc,untyped-decorator,no-any-return,import-not-found"
# ruff: noqa: ANN001, ANN201, ANN202

import triton
import triton.language as tl


@triton.jit
def norm(x, weight, out, width, epsilon, SIZE: tl.constexpr):
    """Writes the RMS norm of each row; a program a row."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, SIZE)
    inside = at < width
    wide = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
    factor = 1.0 / tl.sqrt(tl.sum(wide * wide, 0) / width + epsilon)
    by = tl.load(weight + at, mask=inside, other=0.0)
    found = (wide * factor).to(by.dtype).to(tl.float32) * by.to(tl.float32)
    tl.store(out + row * width + at, found.to(out.dtype.element_ty), mask=inside)


@triton.jit
def gate(x, out, width, GELU: tl.constexpr, SIZE: tl.constexpr):
    """Writes act(first half of each row) times the second half; a program ``SIZE`` elements of a row."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    inside = at < width
    first = tl.load(x + row * 2 * width + at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(x + row * 2 * width + width + at, mask=inside, other=0.0).to(tl.float32)
    if GELU:
        inner = 0.7978845608028654 * (first + 0.044715 * first * first * first)
        active = first * tl.sigmoid(2.0 * inner)
    else:
        active = first * tl.sigmoid(first)
    active = active.to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + row * width + at, (active * second).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _normed(wide, weight, at, inside, width, epsilon, NORMED: tl.constexpr):
    if NORMED:
        factor = 1.0 / tl.sqrt(tl.sum(wide * wide, 0) / width + epsilon)
        by = tl.load(weight + at, mask=inside, other=0.0)
        wide = (wide * factor).to(by.dtype).to(tl.float32) * by.to(tl.float32)
    return wide


@triton.jit
def place(
    qkv, q, keys, values, key_scales, value_scales, q_norm, k_norm, cosine, sine, slots, heads, kv_heads, width, half,
    epsilon, NORMED: tl.constexpr, TURNS: tl.constexpr, QUANT: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Writes queries, normed and turned, and stores keys and values in the cache; a program a token and head."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    at = tl.arange(0, SIZE)
    inside = at < width
    source = qkv + (token * (heads + 2 * kv_heads) + head) * width
    kind = qkv.dtype.element_ty
    wide = tl.load(source + at, mask=inside, other=0.0).to(tl.float32)
    if head < heads + kv_heads:
        weight = q_norm if head < heads else k_norm
        partner = tl.where(at < half, at + half, tl.where(at < 2 * half, at - half, at))
        other = tl.load(source + partner, mask=inside, other=0.0).to(tl.float32)
        if NORMED:
            other = _normed(other, weight, partner, inside, width, epsilon, NORMED).to(kind).to(tl.float32)
            wide = _normed(wide, weight, at, inside, width, epsilon, NORMED).to(kind).to(tl.float32)
        if TURNS:
            pair = tl.where(at < half, at, at - half)
            turns = at < 2 * half
            by_cos = tl.load(cosine + token * half + pair, mask=turns, other=1.0)
            by_sin = tl.load(sine + token * half + pair, mask=turns, other=0.0)
            wide = wide * by_cos + tl.where(at < half, -other, other) * by_sin
    wide = wide.to(kind).to(tl.float32)
    if head < heads:
        tl.store(q + (token * heads + head) * width + at, wide.to(kind), mask=inside)
    else:
        is_key = head < heads + kv_heads
        mine = head - heads - tl.where(is_key, 0, kv_heads)
        cell = tl.load(slots + token) * kv_heads + mine
        target = keys if is_key else values
        if QUANT:
            most = tl.max(tl.abs(wide), 0)
            factor = tl.where(most > 0, 127.0 / most, 1.0)
            whole = (wide * factor + 12582912.0) - 12582912.0  # rounds to even
            tl.store(target + cell * width + at, whole.to(tl.int8), mask=inside)
            tl.store((key_scales if is_key else value_scales) + cell, tl.where(most > 0, most / 127.0, 1.0))
        else:
            tl.store(target + cell * width + at, wide.to(target.dtype.element_ty), mask=inside)


@triton.jit
def attend(
    q, keys, values, key_scales, value_scales, tables, ends, rows, partial, peaks, sums, stride, kv_heads, width,
    window, scale, cap, GROUP: tl.constexpr, ROWS: tl.constexpr, SIZE: tl.constexpr, TILE: tl.constexpr,
    BLOCK: tl.constexpr, SPLITS: tl.constexpr, CAPPED: tl.constexpr, QUANT: tl.constexpr,
):  # fmt: skip
    """Writes the part of attention that one program reads: a row of the pass, a key head, a share of the context."""
    n = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1)
    s = tl.program_id(2)
    kind = q.dtype.element_ty
    end = tl.load(ends + n).to(tl.int32)
    row = tl.load(rows + n).to(tl.int64)
    least = tl.where(window > 0, tl.maximum(end - window, 0), 0)
    begin = least // TILE * TILE
    share = tl.cdiv(tl.cdiv(end - begin, TILE), SPLITS) * TILE
    first = begin + s * share
    last = tl.minimum(end, first + share)
    g = tl.arange(0, ROWS)
    at = tl.arange(0, SIZE)
    asks = (g < GROUP)[:, None] & (at < width)[None, :]
    head = h * GROUP + g
    asked = tl.load(q + (row * kv_heads * GROUP + head)[:, None] * width + at[None, :], mask=asks, other=0.0)
    peak = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, SIZE], tl.float32)
    for begun in range(first, last, TILE):
        position = begun + tl.arange(0, TILE)
        there = position < last
        seen = there & (position >= least)
        block = tl.load(tables + n * stride + position // BLOCK, mask=there, other=0).to(tl.int64)
        cell = (block * BLOCK + position % BLOCK) * kv_heads + h
        where = cell[:, None] * width + at[None, :]
        some = seen[:, None] & (at < width)[None, :]
        if QUANT:
            by = tl.load(key_scales + cell, mask=seen, other=0.0)
            key = (tl.load(keys + where, mask=some, other=0).to(tl.float32) * by[:, None]).to(kind)
            by = tl.load(value_scales + cell, mask=seen, other=0.0)
            value = (tl.load(values + where, mask=some, other=0).to(tl.float32) * by[:, None]).to(kind)
        else:
            key = tl.load(keys + where, mask=some, other=0.0).to(kind)
            value = tl.load(values + where, mask=some, other=0.0).to(kind)
        scores = tl.dot(asked, tl.trans(key), input_precision="ieee") * scale
        if CAPPED:
            scores = (2.0 * tl.sigmoid(2.0 * scores / cap) - 1.0) * cap
        scores = tl.where(seen[None, :], scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        weight = tl.exp(scores - base[:, None])
        fade = tl.exp(peak - base)
        total = total * fade + tl.sum(weight, 1)
        mixed = mixed * fade[:, None] + tl.dot(weight.to(kind), value, input_precision="ieee")
        peak = higher
    out = ((n * kv_heads + h) * SPLITS + s) * GROUP + g
    tl.store(partial + out[:, None] * width + at[None, :], mixed, mask=asks)
    tl.store(peaks + out, peak, mask=g < GROUP)
    tl.store(sums + out, total, mask=g < GROUP)


@triton.jit
def gather(
    partial, peaks, sums, rows, out, kv_heads, width, GROUP: tl.constexpr, SIZE: tl.constexpr, SPLITS: tl.constexpr
):
    """Writes what the programs of one row and head found together."""
    n = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    row = tl.load(rows + n).to(tl.int64)
    s = tl.arange(0, SPLITS)
    at = tl.arange(0, SIZE)
    inside = at < width
    part = ((n * kv_heads + head // GROUP) * SPLITS + s) * GROUP + head % GROUP
    peak = tl.load(peaks + part)
    weight = tl.exp(peak - tl.max(peak, 0))  # a share without context has a peak of minus infinity, so no weight
    total = tl.sum(tl.load(sums + part) * weight, 0)
    each = tl.load(partial + part[:, None] * width + at[None, :], mask=inside[None, :], other=0.0)
    mixed = tl.sum(each * weight[:, None], 0) / total
    tl.store(out + (row * kv_heads * GROUP + head) * width + at, mixed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def multiply(
    x, weight, scale, out, rows, outputs, inputs, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    PAIRS: tl.constexpr,
):  # fmt: skip
    """Writes few rows times a matrix of whole numbers; a program ``COLUMNS`` outputs, widened as they are read.

    With ``PAIRS`` two weights share a byte, as `linear.Int4` has them, else it is as `linear.Int8` has it.
    """
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.arange(0, ROWS)
    at = tl.arange(0, DEPTH)
    mine = column < outputs
    kind = x.dtype.element_ty
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    where = column.to(tl.int64)[:, None]
    if PAIRS:
        size = inputs // 2
        for begin in range(0, size, DEPTH):
            byte = begin + at
            group = byte // 16
            some = mine[:, None] & (byte < size)[None, :]
            both = tl.load(weight + where * size + byte[None, :], mask=some, other=0)
            by = scale + (where * (inputs // 32) + group[None, :]) * 2
            step = tl.load(by, mask=some, other=0.0).to(tl.float32)
            middle = tl.load(by + 1, mask=some, other=0.0).to(tl.float32)
            low = (((both & 15).to(tl.float32) - 8.0) * step + middle).to(kind)
            high = (((both >> 4).to(tl.float32) - 8.0) * step + middle).to(kind)
            first = x + row[:, None] * inputs + (group * 32 + byte % 16)[None, :]
            there = (row < rows)[:, None] & (byte < size)[None, :]
            part = tl.load(first, mask=there, other=0.0)
            total += tl.dot(part, tl.trans(low), input_precision="ieee")
            part = tl.load(first + 16, mask=there, other=0.0)
            total += tl.dot(part, tl.trans(high), input_precision="ieee")
    else:
        for begin in range(0, inputs, DEPTH):
            depth = begin + at
            some = mine[:, None] & (depth < inputs)[None, :]
            wide = tl.load(weight + where * inputs + depth[None, :], mask=some, other=0).to(kind)
            there = (row < rows)[:, None] & (depth < inputs)[None, :]
            part = tl.load(x + row[:, None] * inputs + depth[None, :], mask=there, other=0.0)
            total += tl.dot(part, tl.trans(wide), input_precision="ieee")
        total = total * tl.load(scale + column, mask=mine, other=0.0)[None, :]
    target = out + row[:, None] * outputs + column[None, :]
    tl.store(target, total.to(kind), mask=(row < rows)[:, None] & mine[None, :])
