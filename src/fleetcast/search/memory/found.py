"""What an exact search answers."""

from __future__ import annotations

from dataclasses import dataclass

from fleetcast.cost.pebbling.game import Move


@dataclass(frozen=True)
class Exact:
    """The least cost.

    Attributes:
        cost: of ``moves``.
        least: no schedule costs less; equal to ``cost`` where ``proven``.
        proven: False where states ran out.
        moves: a schedule of that cost.
        states: how many were opened.
    """

    cost: float
    least: float
    proven: bool
    moves: list[Move]
    states: int
