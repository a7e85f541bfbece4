"""Whoever has had least goes first, in few queues: Tiresias's discretised 2D-LAS (Gu et al., NSDI 2019).

A job's attained service is its devices times the seconds it has held them. It begins in the first queue and falls into
the next when its service reaches that queue's limit; queues are served in order, jobs within one by arrival, so that
jobs of equal service do not take turns for ever. Nothing need be known of durations. The limits are ours: one and ten
hours of eight devices. Tiresias's promotion of jobs that have starved (off in the paper's results) is left out.
"""

from __future__ import annotations

from fleetcast.policy.share.board import Board
from fleetcast.policy.share.rule import Rule, deal, queue


class Las:
    """Least attained service, discretised, pre-emptive.

    Args:
        queues: device-seconds from which a job is in the next queue, ascending.
        backfill: whether jobs may overtake one that finds no room.
    """

    kind = "las"

    def __init__(self, *, queues: tuple[float, ...] = (28_800.0, 288_000.0), backfill: bool = True) -> None:
        if list(queues) != sorted(set(queues)) or (queues and queues[0] <= 0):
            raise ValueError("queues must ascend from above 0")
        self.queues = tuple(queues)
        self.backfill = backfill

    def rule(self) -> Rule:
        """Returns the policy in numbers."""
        return Rule("attained", preempt=True, backfill="free" if self.backfill else "none", queues=self.queues)

    def share(self, board: Board) -> None:
        """Grants queue by queue, and asks to be woken when a running job falls into the next."""
        rule = self.rule()
        deal(board, rule)
        for job in board.jobs:
            level = queue(rule, job.attained)
            if job.granted and level < len(self.queues):
                board.wake(board.now + (self.queues[level] - job.attained) / sum(job.granted.values()))
