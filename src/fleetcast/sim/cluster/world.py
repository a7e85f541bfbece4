"""Many jobs under a share policy, event by event: the world that plays any policy, written for reading.

Between two events every job's speed is constant, so its progress is a straight line and nothing is stepped: a job
remembers where its line began and is asked where it is now. Events are arrivals, ends, nodes that go down or come back,
moments at which a policy wanted to be woken, phases of a job's speed, and rounds where there are any: then only
rounds decide.

A decision deals the whole fleet out from nothing. A job whose nodes are the same afterwards has not noticed; one whose
devices changed restarts: it holds them for ``restart`` seconds before it goes on. A failure takes a job back to its
last checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from math import ceil, floor, inf
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.base.errors import Infeasible, PolicyError
from fleetcast.cost.jobs import Lying
from fleetcast.policy.share import Job
from fleetcast.sim.cluster.board import FleetBoard, Live, Rules
from fleetcast.sim.cluster.run import Run

if TYPE_CHECKING:
    from fleetcast.policy.place.gangs import Policy as Place
    from fleetcast.policy.share import Policy
    from fleetcast.scenario.fleet.failures import Outages
    from fleetcast.scenario.workload.jobs import Jobs
    from fleetcast.sim.cluster.nodes import Nodes
    from fleetcast.sim.cluster.pace import Pace

ENDLESS = 10_000
"""Failures of one job after which it is taken never to end."""
PATIENCE = 1_000
"""Rounds in which nothing runs and nothing will arrive after which a policy is taken to be stuck."""
OUTAGE, BACK, ARRIVAL, WAKE = range(4)


class World(FleetBoard):
    """A fleet with jobs on it, from the first event to the last."""

    def __init__(self, jobs: Jobs, nodes: Nodes, pace: Pace, policy: Policy, place: Place, rules: Rules) -> None:
        super().__init__(jobs, nodes, pace, policy, place, rules)
        self.up = list(nodes.size)
        self.coming: list[tuple[float, int, int, int]] = []
        self.flows: list[tuple[int, int, int, Outages, Iterator[tuple[float, float]]]] = []
        n = len(jobs)
        self.start, self.finish = np.full(n, np.nan), np.full(n, np.nan)
        self.held, self.lost, self.waited = np.zeros(n), np.zeros(n), np.zeros(n)
        self.preempted, self.moved, self.failed = (np.zeros(n, np.int32) for _ in range(3))
        self.spans: list[tuple[int, int, int, float, float]] = []
        self.places: list[tuple[int, int, int]] = []
        self.decisions = self.downs = 0

    def run(self) -> Run:
        """Plays the trace to its end.

        Raises:
            PolicyError: an illegal decision, or jobs that wait for ever.
            Infeasible: a job that failures never let end.
        """
        self._outages()
        for i, at in enumerate(self.trace.arrival.tolist()):
            self.coming.append((at, ARRIVAL, i, 0))
        self.coming.sort()
        left, rounds, last, idle = len(self.trace), self.rules.round, -1.0, 0
        while left:
            ends = min(((live.since + live.left * live.takes, i) for i, live in self.live.items() if live.nodes),
                       default=(inf, -1))[0]  # fmt: skip
            turns = min((self._turn(live) for live in self.live.values() if live.nodes), default=inf)
            tick = inf
            if rounds and (self.live or not self.coming):
                tick = rounds * max(ceil(self.now / rounds), floor(last / rounds + 0.5) + 1) if last >= 0 else (
                    rounds * ceil(self.now / rounds))  # fmt: skip
            at = min(ends, turns, tick, self.alarm, self.coming[0][0] if self.coming else inf)
            if at == inf:
                self._stuck(left)
            self.now = at
            changed = self._end(at)
            left -= changed
            self._phase(at)
            while self.coming and self.coming[0][0] <= at:
                _, what, who, which = heappop(self.coming)
                changed += 1
                if what == ARRIVAL:
                    self._arrive(who)
                elif what in (OUTAGE, BACK):
                    self._down(who, which, what == OUTAGE)
            if self.alarm <= at:
                self.alarm = inf
                changed += 1
            if rounds and tick <= at:
                last = at
                self._decide()
                idle = 0 if self.coming or any(live.nodes for live in self.live.values()) else idle + 1
                if idle > PATIENCE:
                    self._stuck(left)
            elif not rounds and changed and self.live:
                self._decide()
        return self._done()

    def _stuck(self, left: int) -> None:
        waiting = ", ".join(self._called(job) for job in self.jobs[:3])
        raise PolicyError(f"{self._name()} leaves {left:,} jobs waiting for ever, {waiting} among them")

    def _turn(self, live: Live) -> float:
        """When a job's speed changes with its progress."""
        phases = self.pace.phases(live.job.id)
        if live.phase + 1 >= len(phases):
            return inf
        return live.since + (live.left - (1.0 - phases[live.phase + 1])) * live.takes

    def _phase(self, at: float) -> None:
        for live in self.live.values():
            while live.nodes and self._turn(live) <= at:
                live.left, live.since = 1.0 - self.pace.phases(live.job.id)[live.phase + 1], self._turn(live)
                live.phase += 1
                live.takes = self._takes(live)

    def _arrive(self, i: int) -> None:
        trace = self.trace
        job = Job(
            i, trace.name(i), float(trace.arrival[i]), int(trace.demand[i]), int(trace.least[i]), int(trace.most[i]),
            model=trace.models[trace.model[i]], priority=int(trace.priority[i]), weight=float(trace.weight[i]),
            user="" if trace.user is None else trace.users[trace.user[i]],
            deadline=inf if trace.deadline is None else float(trace.deadline[i]),
        )  # fmt: skip
        self.live[i] = Live(job, free=job.arrival)
        self.there.append(job)

    def _end(self, at: float) -> int:
        done = [live for live in self.live.values() if live.nodes and live.since + live.left * live.takes <= at]
        for live in done:
            self._stop(live, at)
            self.finish[live.job.id] = at
            del self.live[live.job.id]
            self.there.remove(live.job)
        if done and self.pace.beside:
            self._together()
        return len(done)

    def _decide(self) -> None:
        self.decisions += 1
        self.alarm = inf
        self.room = list(self.up)
        self.spare = [sum(self.up[a:b]) for a, b in zip(self.nodes.first, self.nodes.first[1:], strict=False)]
        for live in self.live.values():
            job = live.job
            job.remaining = live.now(self.now)
            job.attained = live.had + live.width * (self.now - live.begin) if live.nodes else live.had
            job.waited = 0.0 if live.nodes else self.now - live.free
            job.held = self._kinds(live.nodes)
            job.granted, live.given = {}, {}
        self.policy.share(self)
        changed = False
        for live in self.live.values():
            if sum(live.given.values()) < live.job.least:
                live.given, live.job.granted = {}, {}
            if live.given != live.nodes:
                changed = True
                self._move(live)
        if changed and self.pace.beside:
            self._together()

    def _kinds(self, nodes: Mapping[int, int]) -> dict[int, int]:
        found: dict[int, int] = {}
        for node, n in nodes.items():
            found[self.kind_of[node]] = found.get(self.kind_of[node], 0) + n
        return found

    def _move(self, live: Live) -> None:
        """Takes a job from its nodes to those it has been given."""
        i, at = live.job.id, self.now
        if live.nodes:
            (self.moved if live.given else self.preempted)[i] += 1
            self._stop(live, at)
        if not live.given:
            return
        self.waited[i] += at - live.free
        live.nodes, live.given = live.given, {}
        live.width, live.begin = sum(live.nodes.values()), at
        delay = self.rules.restart if live.ran else 0.0
        if not live.ran:
            self.start[i], live.ran = at, True
        self.lost[i] += delay * live.width
        live.since = live.mark = at + delay
        live.saved, live.factor = live.left, 1.0
        live.takes = self._takes(live)

    def _takes(self, live: Live) -> float:
        """Seconds of the whole job where it lies."""
        by_kind: dict[int, list[int]] = {}
        for node in live.nodes:
            by_kind.setdefault(self.kind_of[node], []).append(node)
        lying = tuple(
            Lying(kind, sum(live.nodes[node] for node in found), len(found)) for kind, found in sorted(by_kind.items())
        )
        apart = any(part.nodes > -(-part.devices // self.kinds[part.kind].node) for part in lying)
        racks = len({self.nodes.near[node] for node in live.nodes}) > 1
        rate = self.pace.rate(live.job.id, lying, live.phase, apart=apart, racks=racks) * live.factor
        return 1.0 / rate if rate > 0 else inf

    def _together(self) -> None:
        """Sets the speeds of jobs that share a node with others."""
        on: dict[int, list[Live]] = {}
        for live in self.live.values():
            for node in live.nodes:
                on.setdefault(node, []).append(live)
        for live in self.live.values():
            if not live.nodes:
                continue
            factor = min(
                self.pace.together(live.job.model, (other.job.model for other in on[node] if other is not live))
                for node in live.nodes
            )
            if factor != live.factor:
                self._checkpoint(live)
                live.left, live.since, live.factor = live.now(self.now), max(self.now, live.since), factor
                live.takes = self._takes(live)

    def _checkpoint(self, live: Live) -> None:
        """Notes the last checkpoint before now."""
        every = self.rules.checkpoint
        if every < inf and self.now > live.mark:
            mark = live.mark + floor((self.now - live.mark) / every) * every
            if mark > live.mark:
                live.saved, live.mark = live.now(mark), mark

    def _stop(self, live: Live, at: float) -> None:
        """Ends a job's span; what it has done stays done."""
        i = live.job.id
        live.left = live.now(at)
        if at < live.since:  # it was still restarting: the rest of that is not lost
            self.lost[i] -= (live.since - at) * live.width
        spent = live.width * (at - live.begin)
        live.had += spent
        self.held[i] += spent
        number = len(self.spans)
        for kind, n in sorted(self._kinds(live.nodes).items()):
            self.spans.append((i, kind, n, live.begin, at))
        for node, n in sorted(live.nodes.items()):
            of = sorted(self._kinds(live.nodes)).index(self.kind_of[node])
            self.places.append((number + of, node, n))
        live.nodes, live.width, live.free, live.takes = {}, 0, at, inf

    def _outages(self) -> None:
        for first, size, outages in self.nodes.outages:
            for unit in range(outages.units):
                node = first + unit * outages.unit // size
                devices = min(outages.unit, self.nodes.size[node])
                self.flows.append((node, devices, unit, outages, outages.times(unit, self.rules.seed)))
                self._next(len(self.flows) - 1)

    def _next(self, flow: int) -> None:
        found = next(self.flows[flow][4], None)
        if found is not None:
            heappush(self.coming, (found[0], OUTAGE, flow, 0))
            heappush(self.coming, (found[1], BACK, flow, 0))

    def _down(self, flow: int, which: int, down: bool) -> None:
        """A unit goes down or comes back; whoever is on it goes back to its last checkpoint."""
        node, devices, unit, outages, _ = self.flows[flow]
        if not down:
            self.up[node] += devices
            self._next(flow)
            return
        self.downs += 1
        at = unit * outages.unit % max(self.nodes.size[node], 1) if devices < self.nodes.size[node] else -1
        self.up[node] -= devices
        taken = 0
        for live in list(self.live.values()):
            mine = live.nodes.get(node, 0)
            if mine and (at < 0 or taken <= at < taken + mine):  # devices are taken in the order of their jobs
                self._fail(live)
            taken += mine
        if self.up[node] < sum(live.nodes.get(node, 0) for live in self.live.values()):
            self._fail(max((v for v in self.live.values() if node in v.nodes), key=lambda v: v.job.id))

    def _fail(self, live: Live) -> None:
        i = live.job.id
        self._checkpoint(live)
        self.lost[i] += live.width * max(0.0, self.now - live.mark)
        self._stop(live, self.now)
        live.left = live.saved
        phases = self.pace.phases(i)
        live.phase = max(k for k, share in enumerate(phases) if share <= 1.0 - live.left + 1e-12)
        self.failed[i] += 1
        if self.failed[i] > ENDLESS:
            raise Infeasible(
                f"{self._called(live.job)}, stopped by failures {ENDLESS:,} times, s between them",
                need=float(1.0 / max(self.rate(live.job, {0: live.job.demand}), 1e-12)), have=self.now / ENDLESS,
                unit="s", hint="Write checkpoints: workload.checkpoint",
            )  # fmt: skip

    def _done(self) -> Run:
        ints = [np.array(column, np.int32) for column in zip(*(span[:3] for span in self.spans), strict=True)]
        times = [np.array(column) for column in zip(*(span[3:] for span in self.spans), strict=True)]
        places = [np.array(column, np.int32) for column in zip(*self.places, strict=True)]
        none = np.zeros(0, np.int32)
        job, kind, devices = ints or [none] * 3
        begin, end = times or [np.zeros(0)] * 2
        span, node, share = places or [none] * 3
        return Run(
            self.start, self.finish, self.held, self.lost, self.waited, self.preempted, self.moved, self.failed,
            job, kind, devices, begin, end, span, node, share, self.decisions, self.downs,
        )  # fmt: skip


def play(
    jobs: Jobs, nodes: Nodes, pace: Pace, policy: Policy, place: Place, rules: Rules | None = None
) -> Run:  # fmt: skip
    """Returns what happens to jobs under a share policy and a place policy, see `World.run`."""
    return World(jobs, nodes, pace, policy, place, rules or Rules()).run()
