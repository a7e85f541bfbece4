"""What each worker does over time, in letters: a lane a worker, a letter a kernel, for the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fleetcast.base.record import Record

IDLE = "·"
LANES = 24
"""Most workers that are drawn."""
LONGEST = 20
"""Letters of a kernel in a legend."""


def letters(kernels: Sequence[str]) -> dict[str, str]:
    """Returns a letter for each kernel: its first that no other has."""
    taken: dict[str, str] = {}
    for name in kernels:
        wanted = [c.upper() for c in name if c.isalpha()] + [chr(c) for c in range(65, 91)] + list("0123456789")
        taken[name] = next((c for c in wanted if c not in taken.values()), "#")
    return taken


def short(kernel: str) -> str:
    """Returns a kernel's name for a legend: of a path its last part, of a long one both ends."""
    name = re.split(r"[:/]", kernel)[-1] or kernel
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[1 - LONGEST // 2 :]}"


def lanes(record: Record, workers: int, kernels: Sequence[str], columns: int) -> list[str]:
    """Returns a line of letters for each worker: of each column what fills most of it, a kernel or nothing.

    Args:
        record: a run's events; those of workers come first among its resources.
        workers: how many resources are workers.
        kernels: names among ``record.whats`` that are work.
        columns: letters of a line.
    """
    letter = letters(kernels)
    mine = record.resource < workers
    begin, last, who, what = (c[mine] for c in (record.time, record.duration, record.resource, record.what))
    end = float((begin + last).max()) if len(begin) else 1.0
    width = (end or 1.0) / columns
    fill = np.zeros((workers, len(record.whats), columns))
    first = np.clip((begin / width).astype(int), 0, columns - 1)
    final = np.clip(((begin + last) / width).astype(int), 0, columns - 1)
    for column in range(columns):
        inside = (first <= column) & (final >= column)
        held = np.minimum(begin + last, (column + 1) * width) - np.maximum(begin, column * width)
        np.add.at(fill[:, :, column], (who[inside], what[inside]), np.maximum(held[inside], 0.0))
    marks = np.array([letter.get(what, "#") for what in record.whats])
    idle = np.maximum(width - fill.sum(axis=1), 0.0)
    drawn = np.where(fill.max(axis=1) > idle, marks[fill.argmax(axis=1)], IDLE)
    return ["".join(lane) for lane in drawn.tolist()]
