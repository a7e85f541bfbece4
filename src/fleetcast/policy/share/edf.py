"""The job whose deadline comes first goes first, at once: earliest deadline first (Liu and Layland, JACM 1973).

What runs stays. It is the null of `green`, which knows the same deadlines and waits.
"""

from __future__ import annotations

from fleetcast.policy.share.board import Board
from fleetcast.policy.share.rule import quickest


class Edf:
    """Earliest deadline first, started as soon as there is room; others fill gaps."""

    kind = "edf"

    def share(self, board: Board) -> None:
        """Keeps what runs and starts what must end first, where it is quickest."""
        for job in board.jobs:
            if job.held:
                board.keep(job)
        for job in sorted(board.jobs, key=lambda job: (job.deadline, job.id)):
            if not job.granted:
                any(board.free(k) >= job.demand and board.grant(job, job.demand, k) for k in quickest(board, job))
