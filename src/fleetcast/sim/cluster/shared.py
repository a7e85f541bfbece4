"""Jobs beside tenants on one fleet and under one breaker.

Tenants take the devices that they need before jobs do, from the last nodes of their kind on; a job that must leave
stops where it is, waits, and restarts. The row's power is that of all: tenants at what their own worlds say, a job's
devices at their busy power, the rest idle. A power policy reads it at every tick and every change and sets two clocks:
jobs and functions are of low priority, services of high. A slower clock makes jobs slower and draws less, by the
devices' own sweep; a service that is slowed needs more replicas. Above the budget the brake slows all until the next
tick.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from typing import TYPE_CHECKING

from fleetcast.policy.power import View
from fleetcast.sim.cluster.board import Live, Rules
from fleetcast.sim.cluster.world import World

if TYPE_CHECKING:
    from fleetcast.policy.place.gangs import Policy as Place
    from fleetcast.policy.power import Policy as Power
    from fleetcast.policy.share import Policy
    from fleetcast.scenario.fleet.devices import ClockSweep
    from fleetcast.scenario.workload.jobs import Jobs
    from fleetcast.sim.cluster.nodes import Nodes
    from fleetcast.sim.cluster.pace import Pace
    from fleetcast.sim.cluster.run import Run
    from fleetcast.sim.cluster.tenants import Tenant

BRAKE = 0.2043
"""Share of the top clock under the breaker's brake: 288 of 1410 MHz."""


@dataclass(frozen=True)
class Row:
    """Power of a fleet's devices and the breaker above them.

    Attributes:
        idle: of each kind, W of a device without work.
        busy: of each kind, W of one that works at the top clock.
        sweeps: of each kind, how rate and power follow the clock; None = both in proportion.
        budget: W; inf = none.
        policy: sets clocks.
        tick: s between two readings.
    """

    idle: tuple[float, ...]
    busy: tuple[float, ...]
    sweeps: tuple[ClockSweep | None, ...]
    budget: float = inf
    policy: Power | None = None
    tick: float = 300.0

    def slowed(self, kind: int, clock: float) -> tuple[float, float]:
        """Returns which shares of its rate and of its power above idle a device has at a share of its top clock."""
        sweep = self.sweeps[kind]
        if sweep is None:
            return clock, clock
        top = sweep.points[-1].clock
        point = sweep.at(clock * top)
        low = self.idle[kind] / self.busy[kind]
        return point.rate, max(0.0, (point.power - low) / (1.0 - low))


@dataclass
class Account:
    """What the row went through; columns grow while it runs.

    Attributes:
        times: s of readings; ``watts``: drawn from each on.
        watts: see ``times``.
        joules: in all; of tenants by name, and of "jobs".
        brakes: how often the brake acted.
        slow: s in which low priority was below its top clock; ``high``: high priority.
        high: see ``slow``.
        short: device-seconds that tenants wanted and did not get, by name.
        evicted: jobs that had to leave for a tenant.
    """

    times: list[float] = field(default_factory=list)
    watts: list[float] = field(default_factory=list)
    joules: dict[str, float] = field(default_factory=dict)
    brakes: int = 0
    slow: float = 0.0
    high: float = 0.0
    short: dict[str, float] = field(default_factory=dict)
    evicted: int = 0

    @property
    def energy(self) -> float:
        """J of all."""
        return sum(self.joules.values())

    def peak(self, until: float = inf) -> float:
        """W at most, before a time (s)."""
        return max((w for t, w in zip(self.times, self.watts, strict=True) if t <= until), default=0.0)


class Shared(World):
    """A world of jobs that tenants live in too."""

    def __init__(
        self, jobs: Jobs, nodes: Nodes, pace: Pace, policy: Policy, place: Place, rules: Rules, row: Row,
        tenants: Sequence[Tenant],
    ) -> None:  # fmt: skip
        super().__init__(jobs, nodes, pace, policy, place, rules)
        self.row, self.tenants, self.account = row, tuple(tenants), Account()
        self.taken = [0] * len(nodes.size)
        self.low = self.high = 1.0
        self.drawn: dict[str, float] = {}
        self.lacking: dict[str, int] = {}
        self.read = float(jobs.arrival[0]) if len(jobs) else 0.0
        self.changes = sorted({float(t) for tenant in tenants for t in tenant.times})

    def _decide(self) -> None:
        self.catch_up()
        self._make_way()
        super()._decide()
        self._power()
        if not self.rules.round:
            later = bisect_right(self.changes, self.now)
            change = self.changes[later] if later < len(self.changes) else inf
            tick = self.row.tick * (int(self.now / self.row.tick + 1e-9) + 1) if self.row.budget < inf else inf
            self.alarm = min(self.alarm, change, tick)

    def catch_up(self) -> None:
        """Adds up what has been drawn until now; tenants change between decisions where there are no jobs."""
        now = self.now
        first, last = bisect_right(self.changes, self.read), bisect_left(self.changes, now)
        for change in self.changes[first:last]:
            self.now = change
            self._add()
            self._make_way()
            self._note(self._reading())
        self.now = now
        self._add()

    def _add(self) -> None:
        spent = self.now - self.read
        for name, watts in self.drawn.items():
            self.account.joules[name] = self.account.joules.get(name, 0.0) + watts * spent
        for name, devices in self.lacking.items():
            self.account.short[name] = self.account.short.get(name, 0.0) + devices * spent
        self.account.slow += spent * (self.low < 1.0)
        self.account.high += spent * (self.high < 1.0)
        self.read = self.now

    def wanted(self, tenant: Tenant) -> tuple[int, float]:
        """Returns devices and watts of a tenant now; a service on a slower clock needs more."""
        devices, watts = tenant.at(self.now)
        clock = self.low if tenant.low else self.high
        if tenant.low or clock >= 1.0:
            return devices, watts
        rate = self.row.slowed(tenant.kind, clock)[0]
        return ceil(devices / rate - 1e-9), watts / rate

    def _make_way(self) -> None:
        """Gives tenants their devices, from the last nodes of a kind on; jobs that lie there stop."""
        taken = [0] * len(self.taken)
        self.lacking = {}
        for tenant in self.tenants:
            left = self.wanted(tenant)[0]
            for node in range(self.nodes.first[tenant.kind + 1] - 1, self.nodes.first[tenant.kind] - 1, -1):
                mine = min(left, self.up[node] + self.taken[node] - taken[node])
                taken[node] += mine
                left -= mine
                if not left:
                    break
            self.lacking[tenant.name] = left
        for node, (old, new) in enumerate(zip(self.taken, taken, strict=True)):
            self.up[node] += old - new
        self.taken = taken
        for node, up in enumerate(self.up):
            on = [live for live in self.live.values() if node in live.nodes]
            for live in sorted(on, key=lambda live: -live.job.id):
                if sum(other.nodes.get(node, 0) for other in on) <= up:
                    break
                self.preempted[live.job.id] += 1
                self.account.evicted += 1
                self._stop(live, self.now)

    def _power(self) -> None:
        """Reads the row, asks the policy, and brakes where that is not enough."""
        row = self.row
        if row.policy is not None and row.budget < inf:
            # the reading is of the clocks in force
            decision = row.policy.cap(View(self._reading() / row.budget, self.low, self.high))
            self._clock(decision.low, decision.high)
        watts = self._reading()
        if watts > row.budget * (1 + 1e-9):
            self.account.brakes += 1
            self._clock(BRAKE, BRAKE)
            watts = self._reading()
        self._note(watts)

    def _note(self, watts: float) -> None:
        self.account.times.append(self.now)
        self.account.watts.append(watts)

    def _reading(self) -> float:
        """W of all, by name in ``drawn``."""
        row = self.row
        busy = [0] * len(self.kinds)
        for live in self.live.values():
            for node, n in live.nodes.items():
                busy[self.kind_of[node]] += n
        drawn: dict[str, float] = {}
        idle = 0.0
        held = [0] * len(self.kinds)
        for tenant in self.tenants:
            devices, watts = self.wanted(tenant)
            got = devices - self.lacking.get(tenant.name, 0)
            held[tenant.kind] += got
            floor = got * row.idle[tenant.kind]
            above = max(0.0, watts * (got / devices if devices else 0.0) - floor)
            clock = self.low if tenant.low else self.high
            drawn[tenant.name] = floor + above * row.slowed(tenant.kind, clock)[1]
        jobs = 0.0
        for kind, n in enumerate(busy):
            jobs += n * (row.idle[kind] + (row.busy[kind] - row.idle[kind]) * row.slowed(kind, self.low)[1])
            total = sum(self.up[self.nodes.first[kind] : self.nodes.first[kind + 1]])
            idle += (total - n) * row.idle[kind]
        self.drawn = drawn | {"jobs": jobs, "idle": idle}
        return sum(self.drawn.values())

    def _clock(self, low: float, high: float) -> None:
        """Sets the clocks; jobs go on from where they are."""
        if low != self.low:
            self.low = low
            for live in self.live.values():
                if live.nodes:
                    self._checkpoint(live)
                    live.left, live.since = live.now(self.now), max(self.now, live.since)
                    live.takes = self._takes(live)
        self.high = high

    def _takes(self, live: Live) -> float:
        takes = super()._takes(live)
        slowest = min((self.row.slowed(self.kind_of[node], self.low)[0] for node in live.nodes), default=1.0)
        return takes / slowest


def play(
    jobs: Jobs, nodes: Nodes, pace: Pace, policy: Policy, place: Place, row: Row, tenants: Sequence[Tenant],
    rules: Rules = Rules(),  # noqa: B008
) -> tuple[Run, Account]:  # fmt: skip
    """Returns what happens to jobs beside tenants, and what the row went through."""
    world = Shared(jobs, nodes, pace, policy, place, rules, row, tenants)
    run = world.run()
    world.catch_up()
    return run, world.account
