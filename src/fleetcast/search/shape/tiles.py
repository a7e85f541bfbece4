"""Which share of a device's multipliers a product keeps busy: tiles, waves of tiles over its units, aligned rows.

A product of m x k with k x n is cut into tiles of its m x n results; every unit takes one at a time. Tiles at the edges
and units of the last wave work on nothing (NVIDIA, "Matrix multiplication background user's guide": tile and wave
quantisation). Rows that are no whole cache lines are read in pieces ("Deep learning performance documentation": sizes
in multiples of 128 B are fastest on A100s, of 16 B still fast). Both recalled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

LINE = 64
"""Elements of 16 bits in 128 B."""
VECTOR = 8
"""Of 16 B."""
SHORT = 0.95
"""What a product reaches whose rows are whole 16 B, not whole lines; assumed."""
ODD = 0.6
"""Of rows that are neither; assumed: kernels then load element by element."""
HEADS = (32, 64, 96, 128, 160, 192, 256)
"""Head widths of FlashAttention's kernels; others are padded to the next."""


@dataclass(frozen=True)
class Tiling:
    """How a device's library cuts products.

    Attributes:
        units: that take a tile each.
        tiles: (rows, columns, share of the peak that kernels of this tile reach).
        line, vector: elements of rows that are read at full speed, and of those that are read well.
        source: where that is from.
    """

    units: int
    tiles: tuple[tuple[int, int, float], ...]
    line: int
    vector: int
    source: str


@dataclass(frozen=True)
class Fit:
    """How well a product fits.

    Attributes:
        share: of the peak, all losses together.
        tile: rows and columns of the tile that loses least.
        edges: share of the tiles' results that are used.
        waves: how many waves of tiles, not rounded.
        last: share of the waves' units that work.
        aligned: what rows' alignment leaves.
    """

    share: float
    tile: tuple[int, int]
    edges: float
    waves: float
    last: float
    aligned: float


def tiling(kind: str, units: int, vendor: str = "nvidia") -> Tiling:
    """Returns how a device cuts products of 16 bits, a processor those of 32.

    Tiles' own shares are assumed, in the order that NVIDIA's guide gives: larger ones read less for each result.
    """
    if kind == "cpu":
        return Tiling(1, ((1, 16, 1.0),), 16, 16, "vectors of 64 B; assumed: cores split rows evenly")
    largest = ((256, 256, 1.0),) if vendor == "amd" else ()
    tiles = (*largest, (256, 128, 1.0), (128, 256, 1.0), (128, 128, 0.96), (128, 64, 0.88), (64, 128, 0.88),
             (64, 64, 0.75))  # fmt: skip
    return Tiling(units, tiles, LINE, VECTOR, "NVIDIA's guides to matrix products; shares of tiles assumed")


def fit(m: float, n: float, k: float, how: Tiling, copies: float = 1.0) -> Fit:
    """Returns how well a product fits a device.

    Args:
        m: rows.
        n: columns.
        k: what is summed over.
        how: the device.
        copies: equal products that run as one, e.g. those of experts.
    """
    aligned = min(_aligned(n, how), _aligned(k, how))
    best: Fit | None = None
    for rows, columns, reached in how.tiles:
        count = ceil(m / rows) * ceil(n / columns)
        edges = m * n / (count * rows * columns)
        waves = count * copies / how.units
        last = waves / ceil(waves)
        found = Fit(reached * edges * last * aligned, (rows, columns), edges, waves, last, aligned)
        if best is None or found.share > best.share:
            best = found
    assert best is not None
    return best


def _aligned(size: float, how: Tiling) -> float:
    if size != int(size) or int(size) % how.vector:
        return ODD if how.vector < how.line else SHORT
    return 1.0 if int(size) % how.line == 0 else SHORT


def padded(width: int, widths: Sequence[int] = HEADS) -> float:
    """Returns the share of a head's width that is not padding in attention's kernels."""
    room = next((size for size in widths if size >= width), ceil(width / widths[-1]) * widths[-1])
    return width / room
