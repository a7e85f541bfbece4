"""The board of a slot: any share policy deals workers and servers out on a run of `kernels.slots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fleetcast.base.errors import PolicyError
from fleetcast.kernels.slots import Slots
from fleetcast.policy.share import DeviceKind, Job, Policy
from fleetcast.scenario.workload.server_jobs import ServerJobs

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class SlotBoard:
    """The cluster and its jobs in one slot, begun.

    A device is a worker. Policies that know nothing of servers get one with each worker; a policy with ``servers`` says
    of each unit what it is. The first unit without room ends the slot: later grants are answered False.

    Args:
        run: the run.
        jobs: its list.
        alone: whether the policy says itself how many servers a job has.
        nodes: i4[N, 2], slots of cpu and gpu of each.
    """

    def __init__(self, run: Slots, jobs: ServerJobs, nodes: Any, *, alone: bool = False) -> None:
        self._run, self._list, self._alone, self._stopped = run, jobs, alone, False
        kinds, self.round, self.restart = jobs.kinds, jobs.seconds, 0.0  # a slot deals everything anew
        self.now = run.now() * jobs.seconds
        progress, _, _, _ = run.columns()
        self._speed, self._batches = kinds.speed, kinds.batches
        wide = max(1, int(kinds.takes[:, 1].max()))
        node = int(nodes[0, 1]) // wide if kinds.takes[:, 1].any() else int(nodes[0, 0])
        self.kinds: Sequence[DeviceKind] = (DeviceKind("worker", int(nodes[:, 1].sum()) // wide, max(1, node)),)
        room = np.array([_pairs(nodes, row) for row in kinds.takes])
        self.jobs: Sequence[Job] = [
            Job(
                id=int(i), name=f"job {i}", arrival=float(jobs.arrival[i]) * jobs.seconds, least=1,
                demand=max(1, min(kinds.most, int(room[jobs.kind[i]]))),
                most=kinds.most, model=kinds.models[jobs.kind[i]],
                remaining=max(0.0, 1.0 - float(progress[i] / jobs.epochs[i])),
            )
            for i in run.there()
        ]  # fmt: skip
        self._there = {job.id for job in self.jobs}

    def free(self, kind: int) -> int:
        """Returns how many more workers there may be room for; what they take of cpu decides placing."""
        return self.kinds[kind].total - sum(sum(job.granted.values()) for job in self.jobs)

    def dominant(self, job: Job) -> float:
        """Returns a job's largest part of all cpu or gpu slots."""
        return float(self._run.dominant(job.id))

    def rate(self, job: Job, devices: Mapping[int, int], servers: int = 0) -> float:
        """Returns what share of a job's epochs workers would train in a second; without servers, as many as workers."""
        workers = sum(devices.values())
        count = servers if servers or self._alone else workers
        most = self._list.kinds.most + 1
        kind = self._list.kind[job.id]
        steps = self._speed[kind, min(count, most), min(workers, most)]
        return float(steps / self._batches[kind] / self._list.epochs[job.id])

    def grant(self, job: Job, devices: int, kind: int = 0, servers: int = 0) -> bool:
        """Places units one after another, pairs first; all or none.

        Raises:
            PolicyError: negative, nothing, above what the job can use, or the job is not there.
        """
        if not self._alone:
            servers = max(servers, devices)
        most, has = self._list.kinds.most, sum(job.granted.values())
        if job.id not in self._there or kind != 0:
            raise PolicyError(f"{job.name} is not there, or there is no kind {kind} of device")
        if min(devices, servers) < 0 or devices + servers == 0 or has + devices > most or job.servers + servers > most:
            raise PolicyError(
                f"{job.name} has {has} workers and {job.servers} servers; it cannot get {devices} and {servers}"
            )
        before = self._run.decisions().tolist() if devices + servers > 2 else []
        units = [(int(i < devices), int(i < servers)) for i in range(max(devices, servers))]
        for i, unit in enumerate(units):
            if self._stopped or not self._run.place(job.id, *unit):
                self._stopped = True
                if i:  # all or nothing: the slot as it was
                    self._run.begin()
                    for placed in before:
                        self._run.place(*placed)
                return False
        job.granted[0] = has + devices
        job.servers += servers
        return True

    def wake(self, when: float) -> None:
        """Nothing: the next slot comes anyway."""

    def carbon(self, kind: int, begin: ArrayLike, end: ArrayLike) -> NDArray[np.float64]:
        """Returns 0: nothing is known of a grid."""
        return np.zeros(np.broadcast(begin, end).shape)

    def keep(self, job: Job) -> bool:
        """Returns False: slots are dealt from nothing."""
        return False


def _pairs(nodes: Any, takes: Any) -> int:
    """Returns how many workers, each with a server, empty nodes hold."""
    with np.errstate(divide="ignore"):
        each = [nodes[:, i] // (takes[i] + takes[i + 2]) for i in (0, 1) if takes[i] + takes[i + 2]]
    return int(np.min(each, axis=0).sum()) if each else 1 << 30


def deal(run: Slots, jobs: ServerJobs, nodes: Any, policy: Policy) -> None:
    """Lets a policy deal a begun slot out."""
    policy.share(SlotBoard(run, jobs, nodes, alone=getattr(policy, "servers", False)))
