"""The next device where it shortens a job most: Optimus (Peng et al., EuroSys 2018), on devices.

Each job first has its fewest; then one device after the other goes to the job of the largest

    gain = remaining / rate(n) - remaining / rate(n + 1)        seconds

while it is above 0; where one more does not help but several do (at most as many as it has), those are taken
together. The paper's jobs have workers and parameter servers on equal machines (`sim/cluster`'s slots play that);
here a job has devices of one kind, the one on which its first devices are fastest of those still free.
"""

from __future__ import annotations

import heapq

from fleetcast.policy.share.board import Board, Job
from fleetcast.policy.share.dealing import deal


class Optimus:
    """Adds devices by marginal gain."""

    kind = "optimus"

    def share(self, board: Board) -> None:
        """Decides anew on all jobs."""
        free = [kind.total for kind in board.kinds]
        has: dict[int, tuple[int, int]] = {}
        heap: list[tuple[float, int, int, int]] = []
        jobs: list[Job] = sorted(board.jobs, key=lambda job: (job.least, job.id))
        for at, job in enumerate(jobs):
            room = [kind for kind, left in enumerate(free) if left >= job.least]
            rates = {kind: board.rate(job, {kind: job.least}) for kind in room}
            kind = max(rates, key=lambda k: (rates[k], -k), default=-1)
            if kind >= 0 and rates[kind] > 0:
                free[kind] -= job.least
                has[at] = (kind, job.least)
        for at in has:
            self._offer(board, jobs, has, heap, at)
        while heap:
            _, _, more, at = heapq.heappop(heap)
            kind, n = has[at]
            if more <= free[kind]:
                free[kind] -= more
                has[at] = (kind, n + more)
                self._offer(board, jobs, has, heap, at)
        deal(board, {jobs[at].id: {kind: n} for at, (kind, n) in has.items()})

    def _offer(
        self, board: Board, jobs: list[Job], has: dict[int, tuple[int, int]], heap: list[tuple[float, int, int, int]],
        at: int,
    ) -> None:  # fmt: skip
        job, (kind, n) = jobs[at], has[at]
        now = board.rate(job, {kind: n})
        for more in range(1, min(job.most - n, n) + 1):  # measured speeds may fall before they rise
            then = board.rate(job, {kind: n + more})
            if then > now:
                gain = (job.remaining / now - job.remaining / then) / more
                heapq.heappush(heap, (-gain, job.id, more, at))
                return
