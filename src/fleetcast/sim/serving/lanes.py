"""Requests on their way and the lanes that hold them, as plain objects: the state of the reference world."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fleetcast.sim.serving.prefixes import PrefixCache

Floats = NDArray[np.float64]
EXACT, STRIDE = 1024, 64


def at(table: Floats, tokens: int) -> float:
    """Returns a table's value at a token count: exact to 1,024, linear between knots and beyond the last."""
    if tokens <= EXACT:
        return float(table[tokens])
    knot = min((tokens - EXACT) // STRIDE, len(table) - 2 - EXACT)
    low, high = float(table[EXACT + knot]), float(table[EXACT + knot + 1])
    return low + (high - low) * ((tokens - EXACT - knot * STRIDE) / STRIDE)


@dataclass
class Request:
    """One request on its way: what it needs, what has come out, what is cached."""

    id: int
    arrival: float
    prompt: int
    output: int
    key: float = 0.0
    emitted: int = 0
    prefilled: int = 0
    admitted: int = -1
    swapped: bool = False
    leaves: bool = False
    carried: bool = False
    joined: float = 0.0
    first: float = -1.0
    finish: float = -1.0


@dataclass
class Lane:
    """One scheduler's state as plain lists."""

    waiting: list[Request] = field(default_factory=list)
    resumed: list[Request] = field(default_factory=list)
    partial: list[Request] = field(default_factory=list)
    running: list[Request] = field(default_factory=list)
    chosen: list[tuple[Request, int]] = field(default_factory=list)
    decodes: bool = False
    extra: float = 0.0
    fetch: float = 0.0
    cache: PrefixCache | None = None

    @property
    def load(self) -> int:
        """Requests here, waiting or running."""
        return len(self.waiting) + len(self.resumed) + len(self.partial) + len(self.running)
