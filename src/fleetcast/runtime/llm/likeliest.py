"""What ranks send instead of logits: of each row the likeliest tokens, and the logarithm of the sum of all.

Where every token may be drawn (a temperature without top-k), the row's logits are sent whole.
He et al., "Inference Performance Optimization for Large Language Models on CPUs", 2024 (arXiv 2407.07304), sec. 2.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm.requests import Piece
from fleetcast.runtime.llm.sampling import Candidates

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any


@dataclass(frozen=True)
class Wanted:
    """What is wanted of each row that a pass emits: how many of the likeliest tokens, 0 = all."""

    keep: tuple[int, ...]

    @property
    def most(self) -> int:
        """Tokens that every row is cut to where not all are wanted."""
        return max(self.keep, default=0)

    @property
    def cut(self) -> list[int]:
        """Rows of which the likeliest are enough."""
        return [i for i, k in enumerate(self.keep) if k]

    @property
    def whole(self) -> list[int]:
        """Rows that are wanted whole."""
        return [i for i, k in enumerate(self.keep) if not k]


def wanted(pieces: Sequence[Piece]) -> Wanted:
    """Returns what is wanted of the rows of a pass."""
    return Wanted(tuple(p.keep for p in pieces for _ in range(p.emit)))


def reduced(logits: Tensor, want: Wanted, first: int, width: int) -> tuple[Tensor, Tensor]:
    """Returns what a rank sends: numbers (fp32) and ids (int32), each flat, of a size that all ranks agree on.

    Args:
        logits: (rows, tokens) of the rank's own tokens.
        want: of each row.
        first: id of the rank's first token.
        width: tokens of the rank with the most.
    """
    logits = logits.float()
    most = min(want.most, width)
    numbers, ids = [], []
    if want.cut:
        mine = logits[want.cut]
        kept = min(most, mine.shape[1])
        values, places = mine.topk(kept, dim=1) if kept else (mine[:, :0], mine[:, :0].long())
        pad = (0, most - kept)
        numbers += [torch.nn.functional.pad(values, pad, value=-torch.inf), mine.logsumexp(1, keepdim=True)]
        ids.append(torch.nn.functional.pad(places + first, pad, value=-1))
    if want.whole:
        row = logits[want.whole]
        numbers.append(torch.nn.functional.pad(row, (0, width - row.shape[1]), value=-torch.inf))
    flat = [x.flatten() for x in numbers]
    return (
        torch.cat(flat) if flat else logits.new_zeros(0),
        torch.cat([x.flatten() for x in ids]).int() if ids else torch.zeros(0, dtype=torch.int32),
    )


def merged(
    numbers: Sequence[Tensor], ids: Sequence[Tensor], want: Wanted, vocab: int, width: int
) -> list[NDArray[np.float32] | Candidates]:
    """Returns the rows, from what every rank sent, in the order of ranks."""
    most, count = min(want.most, width), len(want.cut)
    rows: list[NDArray[np.float32] | Candidates | None] = [None] * len(want.keep)
    split = count * most
    if count:
        values = np.concatenate([x[:split].view(count, most).numpy() for x in numbers], axis=1).astype(np.float64)
        totals = np.stack([x[split : split + count].numpy() for x in numbers], axis=1).astype(np.float64)
        places = np.concatenate([x.view(count, most).numpy() for x in ids], axis=1).astype(np.int64)
        for row, value, place, total in zip(want.cut, values, places, totals, strict=True):
            best = np.lexsort((place, -value))
            best = best[place[best] >= 0][: want.keep[row]]
            peak = total.max()
            whole = float(peak + np.log(np.exp(total - peak).sum())) if np.isfinite(peak) else float("nan")
            rows[row] = Candidates(place[best], value[best], whole)
    if want.whole:
        begin = split + count
        parts = [x[begin:].view(len(want.whole), width).numpy() for x in numbers]
        for i, row in enumerate(want.whole):
            rows[row] = np.concatenate([part[i] for part in parts])[:vocab]
    return [row for row in rows if row is not None]
