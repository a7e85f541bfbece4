"""The job that ends first goes first: shortest remaining time (Schrage, Operations Research 1968, proves it on one).

Running jobs are pre-empted for shorter ones. Remaining time is what the board says it will take on the devices that a
job asks for, with the scenario's errors of estimation. ``service`` multiplies it by the devices (Tiresias's SRSF).
"""

from __future__ import annotations

from fleetcast.policy.share.board import Board
from fleetcast.policy.share.rule import Rule, deal


class Srtf:
    """Shortest remaining time first, pre-emptive.

    Args:
        service: rank by remaining device-seconds instead of seconds.
        backfill: whether jobs may overtake one that finds no room.
    """

    kind = "srtf"

    def __init__(self, *, service: bool = False, backfill: bool = True) -> None:
        self.service = service
        self.backfill = backfill

    def rule(self) -> Rule:
        """Returns the policy in numbers."""
        return Rule(
            "service" if self.service else "remaining", preempt=True, backfill="free" if self.backfill else "none"
        )

    def share(self, board: Board) -> None:
        """Grants in order of remaining time."""
        deal(board, self.rule())
