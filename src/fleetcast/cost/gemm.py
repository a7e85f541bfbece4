"""Time of a product of ``m`` tokens with an ``n x k`` weight: a calibrated roofline.

    t = launch + depth*log2(k/512) + softmax_p(compute, memory) [+ quantise]

compute = 2 k area / (compute * peak), where ``area`` is m*n rounded up by ``pad`` to the kernel's
row tile and by ``wave`` to whole waves of tiles over the chip's units; memory = (weights +
activations + output) / (memory * bandwidth). The quantisation of activations at run time is a pass
of ``quant`` bytes per element over ``m`` rows of ``k + quant_row``. Libraries that choose tiles per
shape (cuBLAS) fit with pad = wave = 0; fixed-tile 8-bit kernels do not: 257 rows cost as much as
512, which the tables show and a smooth curve misses by 40 %.

Processors have no such closed form: their libraries take another kernel for one row, for a few and for many. There the
time was measured at some numbers of rows, in units of one reading of the weights, and is linear in between:

    t = calls(m) + weights / bandwidth * passes(m)

with passes of their own where the weights come from memory and where the last cache still holds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fleetcast.cost.roofline import Array, Silicon, format_of, peak, soft_max

_DEPTH = 512.0  # k at which ``launch`` is quoted
_COLUMN_TILE = 128.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """Fitted coefficients of one device and number format.

    Attributes:
        launch: s, fixed time of a product with k = 512.
        depth: s per doubling of k.
        compute: fraction of the peak FLOP/s reached by large products.
        memory: fraction of the memory bandwidth reached.
        sharp: how well the two roofs overlap (1 adds, 8 is almost the larger).
        pad: 0..1, share of the last row tile's padding that is computed.
        wave: 0..1, share of the last wave's idle units that is waited for.
        tile: rows of the largest tile.
        quant: bytes moved per quantised activation element, at full bandwidth.
        quant_row: elements that every row costs on top of its k.
        rows: tokens at which passes were measured, growing; none = the closed form.
        calls: s, fixed time of a product with so many rows, in place of ``launch``.
        passes: time of a product over that of reading its weights at the full bandwidth, at each of ``rows``; linear
            in between, and beyond the last as between the last two.
        kept: the same where the last cache holds the weights; none = as ``passes``.
        footprint: bytes of weights that an iteration reads, growing, at which ``held`` was measured.
        held: share of them that the last cache still holds then, from 1 down to 0.
    """

    launch: float
    depth: float = 0.0
    compute: float
    memory: float
    sharp: int = 4
    pad: float = 0.0
    wave: float = 0.0
    tile: int = 128
    quant: float = 0.0
    quant_row: float = 0.0
    rows: Sequence[float] = ()
    calls: Sequence[float] = ()
    passes: Sequence[float] = ()
    kept: Sequence[float] = ()
    footprint: Sequence[float] = ()
    held: Sequence[float] = ()

    def resident(self, size: float) -> float:
        """Returns the share of ``size`` bytes of weights, read over and over, that the last cache holds."""
        return float(np.interp(np.log(max(size, 1.0)), np.log(self.footprint), self.held)) if self.footprint else 0.0


def gemm_time(
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    dtype: str,
    chip: Silicon,
    c: Gemm,
    *,
    quantise: bool = True,
    resident: float = 0.0,
) -> Array:
    """Returns seconds of one product on one device.

    Args:
        m: tokens, array of any shape; 0 tokens take no time.
        n: output features on this device, scalar or array that broadcasts with ``m``.
        k: input features on this device, likewise.
        dtype: number format of weights and activations, e.g. "bf16", "fp8", "int4".
        chip: the device.
        c: its coefficients for that format.
        quantise: count the run-time quantisation of the activations, where the format has one.
        resident: share of the weights that the last cache holds; matters where it was measured.
    """
    tokens, columns, depth = (np.asarray(x, dtype=np.float64) for x in (m, n, k))
    form = format_of(dtype)
    if c.rows:
        reading = columns * depth * (form.weight / chip.bandwidth)
        return np.where(tokens > 0, call_time(tokens, c) + reading * _passes(tokens, c, resident), 0.0)
    area = tokens * columns
    if c.pad > 0.0 or c.wave > 0.0:
        tile = _row_tile(tokens, c.tile)
        rows = np.ceil(tokens / tile) * tile
        unit = tile * (_COLUMN_TILE * chip.units)
        waves = rows * (np.ceil(columns / _COLUMN_TILE) * _COLUMN_TILE) / unit
        area = area + c.pad * columns * (rows - tokens) + c.wave * (np.ceil(waves) - waves) * unit
    compute = area * (2.0 * depth / (peak(chip, dtype) * c.compute))
    weights, row = columns * depth * form.weight, depth * form.activation + 2.0 * columns
    memory = (weights + tokens * row) / (chip.bandwidth * c.memory)
    fixed = c.launch + c.depth * np.maximum(0.0, np.log2(depth / _DEPTH))
    time = fixed + soft_max(compute, memory, c.sharp)
    if quantise and form.quantised:
        time = time + quantise_time(tokens, depth, chip, c)
    return np.where(tokens > 0, time, 0.0)


def quantise_time(m: ArrayLike, k: ArrayLike, chip: Silicon, c: Gemm) -> Array:
    """Returns seconds to quantise ``m`` rows of ``k`` activations, launch not counted."""
    width = np.asarray(k, dtype=np.float64) + c.quant_row
    return np.asarray(np.asarray(m, dtype=np.float64) * (width * (c.quant / chip.bandwidth)))


def call_time(m: ArrayLike, c: Gemm) -> Array:
    """Returns the fixed seconds of a product of ``m`` rows, where rows were measured."""
    rows = np.asarray(m, dtype=np.float64)
    return np.asarray(np.interp(rows, c.rows, c.calls) if c.calls else np.full_like(rows, c.launch))


def _passes(tokens: Array, c: Gemm, resident: float) -> Array:
    """Returns the measured passes at ``tokens`` rows, those from memory and from the cache by their shares."""
    passes = np.asarray(c.passes, dtype=np.float64)
    if c.kept:
        passes = passes + resident * (np.asarray(c.kept, dtype=np.float64) - passes)
    found = np.interp(tokens, c.rows, passes)
    if len(passes) > 1:
        slope = (passes[-1] - passes[-2]) / (c.rows[-1] - c.rows[-2])
        found = found + slope * np.maximum(0.0, tokens - c.rows[-1])
    return np.asarray(found)


def _row_tile(tokens: Array, largest: int) -> Array:
    tile = np.where(tokens <= 64, 64.0, np.where(tokens <= 128, 128.0, float(largest)))
    return np.minimum(tile, float(largest))
