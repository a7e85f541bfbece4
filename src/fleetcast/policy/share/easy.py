"""First come, first served, and gaps are filled behind a reservation: EASY backfilling (Lifka, JSSPP 1995).

The first job that finds no room is promised the earliest moment at which enough devices will be free. Those behind it
start where they end before that moment, or need only devices that it leaves over. So it is never delayed, as long as
no job runs longer than was known when others passed it.
"""

from __future__ import annotations

from fleetcast.policy.share.board import Board
from fleetcast.policy.share.rule import Rule, reserve


class Easy:
    """Backfills gangs behind a reservation for the first."""

    kind = "easy"

    def rule(self) -> Rule:
        """Returns the policy in numbers."""
        return Rule("arrival", backfill="reserve")

    def share(self, board: Board) -> None:
        """Starts what delays nobody in front."""
        reserve(board, board.jobs)
