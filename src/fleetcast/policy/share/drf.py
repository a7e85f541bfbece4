"""Dominant resource fairness: the smallest dominant share goes first (Ghodsi et al., NSDI 2011).

A dominant share is the largest part of any resource of the fleet that a user, or a job where the trace names no users,
has, over its weight. Progressive filling: again and again, the smallest takes its next unit (a gang its fewest devices,
then an elastic job one more) until what it asks for does not fit; then the others go on. ``preempt`` fills from nothing
at each decision, so that shares are fair at every moment, at the price of restarts; without it running jobs keep what
they have and count.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleetcast.policy.share.board import Board, Job
from fleetcast.policy.share.rule import Rule, quickest


class Drf:
    """Deals units to the smallest dominant share.

    Args:
        preempt: whether what runs is dealt anew.
    """

    kind = "drf"

    def __init__(self, *, preempt: bool = False) -> None:
        self.preempt = preempt

    def rule(self) -> Rule | None:
        """Returns the policy in numbers; None where what runs is dealt anew, which no rule says."""
        return None if self.preempt else Rule("share", backfill="free")

    def share(self, board: Board) -> None:
        """Fills progressively."""
        total = sum(kind.total for kind in board.kinds)
        unit = 1.0 / max(total, 1)
        has: dict[str, float] = {}
        queues: dict[str, list[Job]] = {}
        for job in board.jobs:
            who = job.user or f"#{job.id}"
            queues.setdefault(who, []).append(job)
            if job.held and not self.preempt and board.keep(job):
                has[who] = has.get(who, 0.0) + sum(job.granted.values()) * (job.unit or unit) / job.weight
        heap = [(has.get(who, 0.0), jobs[0].id, who, 0) for who, jobs in queues.items()]
        heapq.heapify(heap)
        while heap:
            share, first, who, at = heapq.heappop(heap)
            job = queues[who][at]
            got = sum(job.granted.values())
            if got < job.most and (got == 0 or job.least < job.most):
                n = 1 if got else (job.least if job.least < job.demand else job.demand)
                if not self._grant(board, job, n, anew=not got):
                    continue  # this user has come to what does not fit; others go on
                heapq.heappush(heap, (share + n * (job.unit or unit) / job.weight, first, who, at))
            elif at + 1 < len(queues[who]):
                heapq.heappush(heap, (share, queues[who][at + 1].id, who, at + 1))

    def _grant(self, board: Board, job: Job, n: int, *, anew: bool) -> bool:
        if anew and job.held and sum(job.held.values()) == n and board.keep(job):
            return True
        kinds = (
            list(job.granted) if job.granted else [*job.held, *(k for k in quickest(board, job) if k not in job.held)]
        )
        return any(board.grant(job, n, kind) for kind in kinds)


def fill(capacity: ArrayLike, demands: ArrayLike, weights: Sequence[float] = ()) -> NDArray[np.int64]:
    """Returns how many tasks each user gets by progressive filling: the algorithm alone, on any resources.

    Args:
        capacity: f8[r], of each resource.
        demands: f8[n, r], of one task of each user.
        weights: of users; () = 1 each.
    """
    free, need = np.array(capacity, float), np.array(demands, float)
    dominant = (need / free).max(axis=1) / (np.asarray(weights, float) if len(weights) else 1.0)
    count = np.zeros(len(need), np.int64)
    open_ = np.ones(len(need), bool)
    while open_.any():
        user = int(np.argmin(np.where(open_, count * dominant, np.inf)))
        if (need[user] <= free + 1e-12).all():
            free -= need[user]
            count[user] += 1
        else:
            open_[user] = False
    return count
