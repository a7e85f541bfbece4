"""The board that share policies play on in the world of jobs: nodes, who has what, and which grants are legal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.base.errors import PolicyError
from fleetcast.policy.place.gangs import View
from fleetcast.policy.share import DeviceKind, Job
from fleetcast.sim.cluster.pace import Pace, close

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fleetcast.cost.jobs import Lying
    from fleetcast.policy.place.gangs import Policy as Place
    from fleetcast.policy.share import Policy
    from fleetcast.scenario.workload.jobs import Jobs
    from fleetcast.sim.cluster.grids import Grids
    from fleetcast.sim.cluster.nodes import Nodes


@dataclass(frozen=True)
class Rules:
    """What a world is told besides jobs, nodes and policies.

    Attributes:
        round: s between decisions, 0 = at every event.
        restart: s that a job holds its devices before it goes on, each time but the first.
        checkpoint: s of running between two checkpoints that failures leave; inf = only pre-emption saves work.
        seed: of outages.
        grids: carbon intensity of each kind's devices; None = nobody knows it.
    """

    round: float = 0.0
    restart: float = 0.0
    checkpoint: float = inf
    seed: int = 0
    grids: Grids | None = None


@dataclass(slots=True, eq=False)
class Live:
    """A job that is there, as its world keeps it: ``left`` of its work at ``since``, ``takes`` s for all of it."""

    job: Job
    left: float = 1.0
    since: float = 0.0
    takes: float = inf
    phase: int = 0
    saved: float = 1.0  # left at the last checkpoint
    mark: float = 0.0  # when that was
    begin: float = -1.0  # of the span
    had: float = 0.0  # device-seconds before the span
    free: float = 0.0  # s since when it waits
    ran: bool = False
    width: int = 0
    nodes: dict[int, int] = field(default_factory=dict)
    given: dict[int, int] = field(default_factory=dict)
    factor: float = 1.0

    def now(self, at: float) -> float:
        """Share of its work that is left at a time."""
        if self.takes == inf or at <= self.since:
            return self.left
        return max(0.0, self.left - (at - self.since) / self.takes)


class FleetBoard:
    """A fleet with jobs on it, at one moment."""

    def __init__(self, jobs: Jobs, nodes: Nodes, pace: Pace, policy: Policy, place: Place, rules: Rules) -> None:
        self.trace, self.nodes, self.pace, self.policy, self.place, self.rules = jobs, nodes, pace, policy, place, rules
        self.now, self.round, self.restart = 0.0, rules.round or inf, rules.restart
        self.kinds: Sequence[DeviceKind] = nodes.kinds
        self.there: list[Job] = []
        self.jobs: Sequence[Job] = self.there
        self.live: dict[int, Live] = {}
        self.room = list(nodes.size)
        self.spare = [kind.total for kind in nodes.kinds]
        self.kind_of = [nodes.kind(node) for node in range(len(nodes.size))]
        self.known: dict[tuple[int, int, int, int], float] = {}
        self.alarm = inf  # only what the last decision asked for counts

    def free(self, kind: int) -> int:
        """Returns how many devices of a kind are not granted yet."""
        return self.spare[kind]

    def dominant(self, job: Job) -> float:
        """Returns the part of all devices of a kind that a job has been given, the largest."""
        return max((n / max(self.kinds[kind].total, 1) for kind, n in job.granted.items()), default=0.0)

    def rate(self, job: Job, devices: Mapping[int, int], servers: int = 0) -> float:
        """Returns the share of a job's work that devices would do in a second, as far as is known."""
        phase = self.live[job.id].phase if job.id in self.live else 0
        if len(devices) == 1:
            ((kind, n),) = devices.items()
            key = (job.id, kind, n, phase)
            if key not in self.known:
                self.known[key] = self._believed(job.id, close(self.nodes, devices), phase)
            return self.known[key]
        return self._believed(job.id, close(self.nodes, devices), phase)

    def _believed(self, job: int, lying: tuple[Lying, ...], phase: int) -> float:
        found = self.pace.rate(job, lying, phase) if lying else 0.0
        return found * float(self.pace.believed[job]) if len(self.pace.believed) else found

    def grant(self, job: Job, devices: int, kind: int = 0, servers: int = 0) -> bool:
        """Gives a job devices, on nodes that it had where they are free, else where the place policy says."""
        live = self._mine(job)
        if servers:
            said = "devices alone are shared here; jobs of workers and servers are played in slots"
            raise PolicyError(f"{self._name()} grants {servers} parameter servers to {self._called(job)}: {said}")
        if devices <= 0:
            raise PolicyError(f"{self._name()} grants {devices} devices to {self._called(job)}: must be above 0")
        if not 0 <= kind < len(self.kinds):
            raise PolicyError(f"{self._name()} grants devices of kind {kind}; there are {len(self.kinds)}")
        if sum(job.granted.values()) + devices > job.most:
            has = sum(job.granted.values())
            raise PolicyError(
                f"{self._name()} grants {devices} devices to {self._called(job)}, which has {has} and uses {job.most}"
            )
        if devices > self.spare[kind] or self.rate(job, {kind: max(job.least, devices)}) <= 0:  # or it cannot run there
            return False
        low, high = self.nodes.first[kind], self.nodes.first[kind + 1]
        chosen: dict[int, int] = {}
        left = devices
        for node, n in live.nodes.items():
            mine = min(left, n - live.given.get(node, 0), self.room[node])
            if low <= node < high and mine > 0:
                chosen[node] = mine
                left -= mine
        if left:
            rooms = [self.room[node] - chosen.get(node, 0) for node in range(low, high)]
            found = self.place.place(View(rooms, self.kinds[kind].node, self.nodes.near[low:high]), left)
            if found is None:
                return False
            if sum(found.values()) != left or any(not 0 < n <= rooms[i] for i, n in found.items()):
                raise PolicyError(f"{type(self.place).__name__} places {dict(found)} for {left} devices: not free")
            for i, n in found.items():
                chosen[low + i] = chosen.get(low + i, 0) + n
        self._take(live, chosen, kind)
        return True

    def keep(self, job: Job) -> bool:
        """Gives a job what it held, where it lay."""
        live = self._mine(job)
        if job.granted:
            raise PolicyError(f"{self._name()} keeps {self._called(job)}, which has been granted devices")
        if not live.nodes or any(self.room[node] < n for node, n in live.nodes.items()):
            return False
        for node, n in live.nodes.items():
            self._take(live, {node: n}, self.kind_of[node])
        return True

    def carbon(self, kind: int, begin: ArrayLike, end: ArrayLike) -> NDArray[np.float64]:
        """Returns the mean carbon intensity over spans of time, as forecasts have it."""
        if self.rules.grids is None:
            return np.zeros(np.broadcast(begin, end).shape)
        return self.rules.grids.forecast(kind, begin, end)

    def wake(self, at: float) -> None:
        """Asks for another decision at a time (s), where nothing else happens before."""
        if at > self.now and not self.rules.round:
            self.alarm = min(self.alarm, at)

    def _take(self, live: Live, chosen: Mapping[int, int], kind: int) -> None:
        for node, n in chosen.items():
            self.room[node] -= n
            live.given[node] = live.given.get(node, 0) + n
            live.job.granted[kind] = live.job.granted.get(kind, 0) + n
            self.spare[kind] -= n

    def _mine(self, job: Job) -> Live:
        live = self.live.get(job.id)
        if live is None or live.job is not job:
            raise PolicyError(f"{self._name()} grants devices to {self._called(job)}, which is not there (any more)")
        return live

    def _name(self) -> str:
        return f"{type(self.policy).__name__}.share"

    def _called(self, job: Job) -> str:
        return self.trace.name(job.id)
