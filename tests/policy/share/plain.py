"""A world of jobs in rounds, written for reading: devices are counted, not placed. What share policies are tried on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleetcast.cost.jobs import Speeds, closest
from fleetcast.policy.share import DeviceKind, Job, Policy


@dataclass
class Counting:
    """A board of counts."""

    kinds: Sequence[DeviceKind]
    speeds: Speeds
    work: dict[int, float]
    models: dict[int, int]
    round: float = 60.0
    now: float = 0.0
    jobs: list[Job] = field(default_factory=list)
    asked: int = 0

    def free(self, kind: int) -> int:
        return self.kinds[kind].total - sum(job.granted.get(kind, 0) for job in self.jobs)

    def rate(self, job: Job, devices: Mapping[int, int], servers: int = 0) -> float:
        self.asked += 1
        lying = tuple(closest(k, n, self.kinds[k].node) for k, n in sorted(devices.items()) if n)
        phases = self.speeds.phases(self.models[job.id])
        at = max(i for i, start in enumerate(phases) if start <= 1.0 - job.remaining + 1e-12)
        return self.speeds.rate(self.models[job.id], lying, at) / self.work[job.id] if lying else 0.0

    def grant(self, job: Job, devices: int, kind: int = 0, servers: int = 0) -> bool:
        assert job in self.jobs and devices > 0
        assert sum(job.granted.values()) + devices <= job.most
        if devices > self.free(kind):
            return False
        job.granted[kind] = job.granted.get(kind, 0) + devices
        return True

    def keep(self, job: Job) -> bool:
        assert not job.granted
        if any(n > self.free(kind) for kind, n in job.held.items()):
            return False
        job.granted = dict(job.held)
        return True


def play(board: Counting, jobs: Sequence[Job], policy: Policy, restart: float = 0.0) -> dict[int, float]:
    """Returns when each job ends; a job whose devices change loses ``restart`` seconds of the round, or of its next."""
    waiting, ends, lost = list(jobs), {}, {}
    board.now = waiting[0].arrival
    board.used = 0.0
    while waiting or board.jobs:
        if not board.jobs and waiting[0].arrival > board.now:
            board.now += board.round * -(-(waiting[0].arrival - board.now) // board.round)
        while waiting and waiting[0].arrival <= board.now:
            board.jobs.append(waiting.pop(0))
        for job in board.jobs:
            job.held, job.granted = dict(job.granted), {}
        policy.share(board)
        for kind in range(len(board.kinds)):
            assert board.free(kind) >= 0
        for job in list(board.jobs):
            if not job.granted:
                continue
            if job.granted != job.held:
                lost[job.id] = restart
            begin = min(lost.get(job.id, 0.0), board.round)
            lost[job.id] = lost.get(job.id, 0.0) - begin
            left = board.round - begin
            job.attained += sum(job.granted.values()) * board.round
            while left > 1e-9 and job.remaining > 1e-12:  # phase by phase
                rate = board.rate(job, job.granted)
                assert rate > 0
                starts = [s for s in board.speeds.phases(board.models[job.id]) if s > 1.0 - job.remaining + 1e-12]
                upto = min([*starts, 1.0]) - (1.0 - job.remaining)
                span = min(left, upto / rate)
                job.remaining = job.remaining - span * rate if span < upto / rate else job.remaining - upto
                left -= span
            if job.remaining < 1e-9:
                ends[job.id] = board.now + board.round - left
                board.jobs.remove(job)
        board.used += sum(sum(job.granted.values()) for job in board.jobs)
        board.now += board.round
    return ends
