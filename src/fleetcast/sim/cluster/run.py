"""What a world of jobs hands back: columns by job, spans by job and node, and the event record made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.base.record import Record
    from fleetcast.scenario.workload.jobs import Jobs
    from fleetcast.sim.cluster.nodes import Nodes


@dataclass(frozen=True)
class Run:
    """A trace of n jobs, played.

    Attributes:
        start: f8[n], s when each first ran.
        finish: f8[n], s.
        held: f8[n], device-seconds that it had.
        lost: f8[n], of these: restarting, or work that failures undid.
        waited: f8[n], s without devices.
        preempted: i4[n], how often it lost all its devices while it could have run.
        moved: i4[n], how often its devices changed while it ran.
        failed: i4[n], how often a failure stopped it.
        job, kind, devices: i4[s], of each span in which a job held a number of devices of one kind.
        begin, end: f8[s], s of spans.
        span, node, share: i4[p], the nodes of each span and how many devices it had there.
        decisions: how often the policy was asked.
        outages: how often a node or device went down.
    """

    start: NDArray[np.float64]
    finish: NDArray[np.float64]
    held: NDArray[np.float64]
    lost: NDArray[np.float64]
    waited: NDArray[np.float64]
    preempted: NDArray[np.int32]
    moved: NDArray[np.int32]
    failed: NDArray[np.int32]
    job: NDArray[np.int32]
    kind: NDArray[np.int32]
    devices: NDArray[np.int32]
    begin: NDArray[np.float64]
    end: NDArray[np.float64]
    span: NDArray[np.int32]
    node: NDArray[np.int32]
    share: NDArray[np.int32]
    decisions: int
    outages: int = 0

    def record(self, jobs: Jobs, nodes: Nodes) -> Record:
        """Returns the event record: a row for each span and node, ``items`` the job, ``count`` its devices there."""
        from fleetcast.base.record import Record

        time, model = self.begin[self.span], jobs.model[self.job[self.span]]
        size = np.array(nodes.size, float)
        return Record(
            time=time, duration=self.end[self.span] - time, resource=self.node, what=model.astype(np.int32),
            count=self.share.astype(np.int64), items=self.job[self.span].astype(np.int64),
            level=self.share / size[self.node], resources=nodes.names,
            whats=tuple(name or "job" for name in jobs.models),
        )  # fmt: skip

    def busy(self, kind: int | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns times (s, ascending) and how many devices (of a kind, or in all) are held from each on."""
        mine = slice(None) if kind is None else self.kind == kind
        return steps(self.begin[mine], self.end[mine], self.devices[mine])

    def queue(self, jobs: Jobs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns times (s, ascending) and how many devices jobs that have none ask for from each on."""
        turn = np.lexsort((self.begin, self.job))
        who, begin, end = self.job[turn], self.begin[turn], self.end[turn]
        first = np.r_[True, who[1:] != who[:-1]] if len(who) else np.zeros(0, bool)
        since = np.where(first, jobs.arrival[who], np.r_[0.0, end[:-1]] if len(who) else end)
        wait = begin > since
        return steps(since[wait], begin[wait], jobs.demand[who[wait]])


def steps(
    begin: NDArray[np.float64], end: NDArray[np.float64], height: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Returns the sum of spans as a step function: times, ascending, and the value from each on."""
    times, where = np.unique(np.r_[begin, end], return_inverse=True)
    change = np.bincount(where, np.r_[height, -height].astype(float), len(times))
    return times, np.cumsum(change)
