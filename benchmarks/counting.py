"""A world of jobs in rounds, written for reading: devices are counted, not placed. Share policies are measured on it.

`sim/cluster` places devices on nodes and jumps from event to event; this asks at each round, and takes devices to lie
as close together as their number allows. With nodes of one device, as in Gavel's simulator, nothing can lie otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleetcast.cost.jobs import Speeds, closest, work
from fleetcast.policy.share import DeviceKind, Job, Policy
from fleetcast.scenario.workload.jobs import Jobs

CLOSE = 1e-12


@dataclass
class Counting:
    """A board of counts.

    Attributes:
        kinds: of devices.
        speeds: the table.
        work: f8[jobs], in its units.
        model: i4[jobs].
        round: s.
        now: s.
        restart: s that a start costs; here whoever plays the board counts it.
        jobs: that are there.
    """

    kinds: Sequence[DeviceKind]
    speeds: Speeds
    work: NDArray[np.float64]
    model: NDArray[np.int32]
    round: float = 60.0
    now: float = 0.0
    restart: float = 0.0
    jobs: Sequence[Job] = field(default_factory=list)

    def free(self, kind: int) -> int:
        """Returns devices not granted."""
        return self.kinds[kind].total - sum(job.granted.get(kind, 0) for job in self.jobs)

    def phase(self, job: Job) -> int:
        """Returns in which phase of its learning a job is."""
        return sum(start <= 1.0 - job.remaining + CLOSE for start in self.speeds.phases(int(self.model[job.id]))) - 1

    def rate(self, job: Job, devices: Mapping[int, int], servers: int = 0) -> float:
        """Returns the share of the job's work that is done in a second."""
        lying = tuple(closest(k, n, self.kinds[k].node) for k, n in sorted(devices.items()) if n)
        if not lying:
            return 0.0
        return self.speeds.rate(int(self.model[job.id]), lying, self.phase(job)) / float(self.work[job.id])

    def grant(self, job: Job, devices: int, kind: int = 0, servers: int = 0) -> bool:
        """Counts devices to a job if they are there."""
        if devices < 1 or sum(job.granted.values()) + devices > job.most:
            raise ValueError(f"{job.name}: {devices} devices beside {job.granted}, of at most {job.most}")
        if devices > self.free(kind):
            return False
        job.granted[kind] = job.granted.get(kind, 0) + devices
        return True

    def carbon(self, kind: int, begin: ArrayLike, end: ArrayLike) -> NDArray[np.float64]:
        """Nothing is known of grids here."""
        return np.zeros(np.broadcast(begin, end).shape)

    def keep(self, job: Job) -> bool:
        """Counts to a job what it had if that is there."""
        if any(n > self.free(kind) for kind, n in job.held.items()):
            return False
        job.granted = dict(job.held)
        return True

    def dominant(self, job: Job) -> float:
        """Returns the part of all devices of a kind that a job has, the largest."""
        return max((n / self.kinds[kind].total for kind, n in job.granted.items()), default=0.0)

    def wake(self, at: float) -> None:
        """Does nothing: rounds decide."""


@dataclass(frozen=True)
class Played:
    """What came out.

    Attributes:
        jct: f8[jobs], s from arrival to end.
        makespan: s from the first arrival to the last end.
        utilisation: device-seconds granted over those there, by rounds.
        rounds: played.
        cpu: s that they took.
    """

    jct: NDArray[np.float64]
    makespan: float
    utilisation: float
    rounds: int
    cpu: float


def play(
    jobs: Jobs, kinds: Sequence[DeviceKind], speeds: Speeds, policy: Policy, *, length: float, restart: float = 0.0,
    rigid: bool = False, first: bool = False,
) -> Played:  # fmt: skip
    """Plays a policy to the end of all jobs.

    Args:
        jobs: of the trace, whose models are those of the table.
        kinds: of devices.
        speeds: the table.
        policy: that shares.
        length: of a round, s.
        restart: s that a job loses when what it has changes.
        rigid: whether jobs have what they demand or nothing, where they demand more than any kind has, all of one.
        first: whether only a job's first devices cost a restart.
    """
    model = np.array([speeds.models.index(jobs.models[m]) for m in jobs.model], np.int32)
    board = Counting(kinds, speeds, work(speeds, jobs_of(jobs, model, speeds), 0, kinds[0].node), model, length)
    largest = max(kind.total for kind in kinds)
    waiting = []
    for i in range(len(jobs)):
        demand = min(int(jobs.demand[i]), largest)
        least, most = (demand, demand) if rigid else (int(jobs.least[i]), int(jobs.most[i]))
        weight = float(jobs.weight[i])
        waiting.append(Job(i, str(i), float(jobs.arrival[i]), demand, least, most, model=str(model[i]), weight=weight))
    start, granted, rounds, began = waiting[0].arrival, 0.0, 0, time.process_time()
    ends, lost, there = np.zeros(len(jobs)), np.zeros(len(jobs)), list[Job]()
    board.now = start
    board.jobs = there
    waiting.reverse()
    while waiting or there:
        while waiting and waiting[-1].arrival <= board.now:
            there.append(waiting.pop())
        for job in there:
            job.held, job.granted = dict(job.granted), {}
        policy.share(board)
        for job in list(there):
            if not job.granted:
                continue
            if job.granted != job.held and not (first and job.attained):
                lost[job.id] = restart
            devices = sum(job.granted.values())
            granted += devices * length
            job.attained += devices * length
            left = _run(board, job, lost, length)
            if job.remaining <= 0.0:
                ends[job.id] = board.now + length - left
                there.remove(job)
        board.now += length
        rounds += 1
    jct = ends - jobs.arrival
    span = float(ends.max()) - start
    total = sum(kind.total for kind in kinds)
    return Played(jct, span, granted / (total * (board.now - start)), rounds, time.process_time() - began)


def jobs_of(jobs: Jobs, model: NDArray[np.int32], speeds: Speeds) -> Jobs:
    """Returns the same jobs with models numbered as the table numbers them."""
    return Jobs(
        jobs.arrival, jobs.demand, jobs.least, jobs.most, jobs.seconds, model, jobs.priority, jobs.weight, jobs.names,
        speeds.models, jobs.source, jobs.units,
    )  # fmt: skip


def _run(board: Counting, job: Job, lost: NDArray[np.float64], length: float) -> float:
    """Lets a job work for a round, phase by phase; returns what is left of the round when it ends."""
    begin = min(float(lost[job.id]), length)
    lost[job.id] -= begin
    left = length - begin
    while left > 0.0 and job.remaining > 0.0:
        rate = board.rate(job, job.granted)
        if rate <= 0.0:
            raise ValueError(f"{job.name} cannot run on {job.granted}")
        starts = board.speeds.phases(int(board.model[job.id]))
        at = board.phase(job)
        upto = starts[at + 1] if at + 1 < len(starts) else 1.0
        need = (upto - (1.0 - job.remaining)) / rate
        if need > left:
            job.remaining -= left * rate
            return 0.0
        left -= need
        job.remaining = 1.0 - upto
    return left
