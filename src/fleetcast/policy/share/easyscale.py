"""Elastic jobs of fixed workers: EasyScale's inter-job schedule (Li et al., SC 2023).

    1. Running jobs keep their devices, but for a kind that does nothing for them any more.
    2. Jobs that wait start in order of arrival, each on the single device that is slowest for it (its smallest
    proposal). 3. Running jobs propose to grow by k devices of one kind, to at most twice what they have, for each
    kind the one of best
           gain = (speed after / speed before - 1) / k
       and with no more than ``waste`` of their devices' work lost; the best gains of all jobs are granted, one a job
       a round.

How fast a job's virtual workers run on any devices (the intra-job schedule) is `cost.jobs.Virtual`, behind
``board.rate``. Waste is read off rates: 1 - rate / sum of the rates of its devices alone. Published: proposals that
fall below 2. take what is left in a fixed order; ours in order of gain, then arrival, which is the same up to ties.
"""

from __future__ import annotations

from collections.abc import Mapping

from fleetcast.policy.share.board import Board, Job


class EasyScale:
    """Grows jobs where a device speeds them up most.

    Args:
        mixed: whether one job may have devices of several kinds; without it a job stays on the kind it started on,
            the fastest
            that is free (EasyScale's "homo").
        waste: largest share of its devices' work that a job may lose.
    """

    kind = "easyscale"

    def __init__(self, *, mixed: bool = True, waste: float = 0.3) -> None:
        self.mixed = mixed
        self.waste = waste

    def share(self, board: Board) -> None:
        """Keeps, starts and grows jobs."""
        alone: dict[int, list[float]] = {}
        for job in board.jobs:
            if job.held and not self._shed(board, job):
                board.keep(job)
        kinds = range(len(board.kinds))
        started = set()
        for job in board.jobs:
            if job.granted:
                continue
            if not any(board.free(kind) for kind in kinds):
                break
            speeds = [board.rate(job, {kind: job.least}) for kind in kinds]
            free = [kind for kind in kinds if speeds[kind] > 0 and board.free(kind) >= job.least]
            best = sorted(free, key=lambda k: (speeds[k] if self.mixed else -speeds[k], k))
            if any(board.grant(job, job.least, kind) for kind in best):
                started.add(job.id)
        offers = []
        for job in board.jobs:
            if job.granted and job.id not in started:
                alone[job.id] = [board.rate(job, {kind: 1}) for kind in kinds]
                offers += self._offers(board, job, alone[job.id])
        grown = set()
        for _, number, kind, more, job in sorted(offers, key=lambda offer: offer[:4]):
            if number not in grown and more <= board.free(kind) and board.grant(job, more, kind):
                grown.add(number)

    def _shed(self, board: Board, job: Job) -> bool:
        """Gives a job anew what it had without a kind that does nothing for it; whether there was one."""
        now = board.rate(job, job.held)
        for kind in job.held:
            less = {k: n for k, n in job.held.items() if k != kind}
            if less and board.rate(job, less) >= now:
                return all(board.grant(job, n, k) for k, n in less.items())
        return False

    def _offers(self, board: Board, job: Job, alone: list[float]) -> list[tuple[float, int, int, int, Job]]:
        has: Mapping[int, int] = dict(job.granted)
        count = sum(has.values())
        now = board.rate(job, has)
        room = min(count, job.most - count)
        offers = []
        for kind in range(len(board.kinds)):
            if alone[kind] <= 0 or (not self.mixed and kind not in has):
                continue
            best = (0.0, 0)
            for more in range(1, min(room, board.free(kind)) + 1):
                devices = {**has, kind: has.get(kind, 0) + more}
                then = board.rate(job, devices)
                whole = sum(n * alone[k] for k, n in devices.items())
                gain = (then / now - 1.0) / more
                if gain > best[0] and then >= (1.0 - self.waste) * whole:
                    best = (gain, more)
            if best[1]:
                offers.append((-best[0], job.id, kind, best[1], job))
        return offers
