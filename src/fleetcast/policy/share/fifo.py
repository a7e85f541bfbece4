"""Jobs in order of arrival, each all that it asks for; one that finds no room holds up those behind it.

With ``backfill`` those behind it may go where it cannot (without a reservation, so that a wide job may wait long).
"""

from __future__ import annotations

from fleetcast.policy.share.board import Board
from fleetcast.policy.share.rule import Rule, deal


class Fifo:
    """First come, first served, to the end.

    Args:
        backfill: whether jobs may overtake one that finds no room.
    """

    kind = "fifo"

    def __init__(self, *, backfill: bool = False) -> None:
        self.backfill = backfill

    def rule(self) -> Rule:
        """Returns the policy in numbers."""
        return Rule("arrival", backfill="free" if self.backfill else "none")

    def share(self, board: Board) -> None:
        """Keeps what runs and starts what has waited longest."""
        deal(board, self.rule())
