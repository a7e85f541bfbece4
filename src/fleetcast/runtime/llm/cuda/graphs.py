"""Decode steps captured as CUDA graphs: launching hundreds of kernels takes longer than a small batch's work.

A graph is captured for a batch size when a step of it first comes, and replayed from then on. Smaller batches are
padded: rows beyond it read and write a block of the cache that nobody holds.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm.cuda import Rows
from fleetcast.runtime.llm.paging import BLOCK, blocks_of
from fleetcast.runtime.llm.requests import Piece

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any

SIZES: Final = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256)
"""Batch sizes that are captured."""


def fitting(pieces: Sequence[Piece]) -> int:
    """Returns the captured batch size that a pass fits, or 0: it is no decode step, or has too many sequences."""
    if any(len(p.tokens) != 1 or p.emit != 1 for p in pieces):
        return 0
    return next((size for size in SIZES if size >= len(pieces)), 0)


class Static:
    """What a captured step reads: tokens, positions, slots, ends and tables, of the largest batch.

    Args:
        spare: a block of the cache that nobody holds.
        most: blocks of the longest sequence.
        device: of torch.
    """

    def __init__(self, spare: int, most: int, device: Any) -> None:
        self.spare = spare
        self.numbers = torch.zeros(4, SIZES[-1], dtype=torch.int64, device=device)
        self.tables = torch.full((SIZES[-1], most), spare, dtype=torch.int32, device=device)
        self.rows = torch.arange(SIZES[-1], device=device)

    def fill(self, pieces: Sequence[Piece], size: int) -> None:
        """Writes a step, padded to ``size`` sequences."""
        longest = max(blocks_of(p.start + 1) for p in pieces)
        numbers = np.zeros((4, size), np.int64)
        tables = np.full((size, longest), self.spare, np.int32)
        numbers[2], numbers[3] = self.spare * BLOCK, 1
        for i, p in enumerate(pieces):
            used = blocks_of(p.start + 1)
            tables[i, :used] = p.table[:used]
            numbers[:, i] = p.tokens[0], p.start, p.table[p.start // BLOCK] * BLOCK + p.start % BLOCK, p.start + 1
        self.numbers[:, :size].copy_(torch.from_numpy(numbers))
        self.tables[:size, :longest].copy_(torch.from_numpy(tables))

    def step(self, size: int) -> tuple[Tensor, Tensor, Tensor, Rows]:
        """Returns tokens, positions and slots of a step of ``size`` sequences, and who attends."""
        tokens, positions, slots, ends = self.numbers[:, :size]
        return tokens, positions, slots, Rows(self.rows[:size], self.tables[:size], ends)


class Graphs:
    """The decode steps of one model.

    Args:
        run: returns the logits of a step from tokens, positions, slots and who attends.
        static: what it reads.
    """

    def __init__(self, run: Callable[[Tensor, Tensor, Tensor, Rows], Tensor], static: Static) -> None:
        # weakly, so that a model that holds its graphs goes, with its memory, as soon as nobody holds it
        self.run, self.static = weakref.WeakMethod(run), static
        self.captured: dict[int, tuple[Any, Tensor]] = {}
        self.pool: Any = None

    def replay(self, pieces: Sequence[Piece], size: int) -> Tensor:
        """Returns (sequences, vocabulary) logits of a decode step; they hold until the next."""
        self.static.fill(pieces, size)
        if size not in self.captured:
            self.captured[size] = self._capture(size)
        graph, logits = self.captured[size]
        graph.replay()
        return logits[: len(pieces)]

    def _capture(self, size: int) -> tuple[Any, Tensor]:
        step, run = self.static.step(size), self.run()
        assert run is not None  # its model asks
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # compiles kernels and sets libraries up, which a capture may not
            for _ in range(2):
                run(*step)
        torch.cuda.current_stream().wait_stream(aside)
        graph, collects = torch.cuda.CUDAGraph(), gc.isenabled()
        gc.disable()  # another model's graphs, freed meanwhile, would end the capture
        try:
            with torch.cuda.graph(graph, pool=self.pool):
                logits = run(*step)
        finally:
            if collects:
                gc.enable()
        self.pool = self.pool if self.pool is not None else graph.pool()
        return graph, logits
