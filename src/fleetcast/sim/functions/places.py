"""Functions on nodes with finite memory: a world of events, for what the walk of `world` leaves out.

Every request asks a route policy for a node. There it takes the idle pod used last, else one that is being started
ahead, else (if it may wait) a busy pod that ends soon, else a new pod; idle pods of other functions are ended, the
longest idle first, where memory is short. Requests for which no node has room wait in order of arrival.

Written for reading: one heap, one object a pod, a policy asked at every arrival. It shares no code with `kernel.walk`,
which it equals where every region has one node and memory is plenty.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import Infeasible, PolicyError
from fleetcast.policy.route import invocations as route
from fleetcast.policy.scale import Decision, Policy, View
from fleetcast.scenario.workload.invocations import Invocations
from fleetcast.sim.functions import kernel
from fleetcast.sim.functions.supply import Supply
from fleetcast.sim.functions.world import Pods, checked, lags, mean_starts

Array = NDArray[np.float64]
# at one instant: pods become free, callers are heard, windows open, requests arrive, pods end
FREED, CALLED, OPENED, ARRIVED, ENDED, SHONE = range(6)
AFTER = 1.0
"""Seconds for which a battery fills past its reserve before requests are placed."""
NIGHT = 7 * 86_400.0
"""Seconds after the last arrival for which requests wait for the sun."""


@dataclass(frozen=True)
class Node:
    """Where pods lie.

    Attributes:
        name: for people.
        region: index into the trace's regions.
        memory: B for pods.
        power: W at most.
    """

    name: str
    region: int
    memory: float = float("inf")
    power: float = 0.0


@dataclass(frozen=True, eq=False)
class Placed:
    """What became of requests and pods, and where.

    Attributes:
        pods: as in a world without nodes; ``wait`` includes queues and the way to another region.
        node: i4[p], of each pod.
        where: i4[n], the node that each request ran on.
        queued: requests for which no node had room when they came.
        ended: idle pods that were ended for others.
    """

    pods: Pods
    node: NDArray[np.int32]
    where: NDArray[np.int32]
    queued: int
    ended: int


@dataclass(eq=False)
class _Pod:
    number: int
    function: int
    node: int
    start: float
    row: int
    last: float
    death: float
    claimed: bool
    free: float = 0.0
    idle: bool = False
    gone: bool = False


@dataclass
class _Here:
    """A function's pods on one node: idle ones with the one used last at the end, busy or starting ones by end."""

    idle: list[_Pod] = field(default_factory=list)
    busy: list[tuple[float, int, _Pod]] = field(default_factory=list)


class Places:
    """A run: the heap of events, nodes, pods, and the requests that wait.

    Args:
        trace: the invocations.
        policy: what is kept warm.
        nodes: where pods may lie.
        router: which node takes a request.
        patience: s that an asynchronous request may wait for a busy pod.
        distance: f8[regions, regions], s to another region and back.
        carbon: of a region and a time, g/kWh.
        supply: what nodes without a grid live on; None = all have one.
    """

    def __init__(
        self, trace: Invocations, policy: Policy, nodes: Sequence[Node], router: route.Policy, *,
        patience: float = 0.0, distance: Array | None = None, carbon: Callable[[int, float], float] | None = None,
        supply: Supply | None = None,
    ) -> None:  # fmt: skip
        self.trace, self.policy, self.nodes, self.router = trace, policy, list(nodes), router
        self.patience = np.where(trace.asynchronous, patience, 0.0).tolist()
        self.region = np.array([node.region for node in nodes], np.int32)
        self.size = np.array([node.memory for node in nodes])
        self.power = np.array([node.power for node in nodes])
        regions = len(trace.regions)
        self.distance = np.zeros((regions, regions)) if distance is None else distance
        self.carbon = carbon
        self.supply = supply or Supply([None] * len(nodes), self.size)
        self.free = self.size.copy()
        self.idle_memory = np.zeros(len(nodes))
        self.idle_pods: list[dict[int, _Pod]] = [{} for _ in nodes]
        self.here: list[dict[int, _Here]] = [{} for _ in trace.names]
        self.pods: list[_Pod] = []
        self.waiting: deque[int] = deque()
        self.events: list[tuple[float, int, int, int, int]] = []
        self.order = count()
        self.queued = self.ended = 0
        n, functions = len(trace), len(trace.names)
        self.function = trace.function.tolist()
        self.total, self.means = trace.total.tolist(), mean_starts(trace).tolist()
        self.wait, self.state, self.where = np.zeros(n), np.zeros(n, np.int8), np.full(n, -1, np.int32)
        self.seen, self.calls, self.version = [0] * functions, [0] * functions, [0] * functions
        self.decision, self.last_node = [Decision(0.0)] * functions, [-1] * functions
        self.gaps = [np.diff(trace.arrivals(f)) for f in range(functions)]
        self.lags = [lags(trace, f) for f in range(functions)]
        self.idled = np.zeros(functions)
        self.window = [0.0] * functions
        self.late: dict[int, Decision] = {}
        self._check()

    def _check(self) -> None:
        """Refuses functions that no node can hold."""
        trace = self.trace
        most = np.full(len(trace.regions), -1.0)
        np.maximum.at(most, self.region, self.size)
        room = float(self.size.max(initial=0.0))
        used = np.diff(trace.first) > 0
        short = np.flatnonzero(used & (trace.memory > room))
        if len(short):
            f = int(short[np.argmax(trace.memory[short])])
            raise Infeasible(
                f"function {trace.names[f]}: memory of a pod on the largest node", need=float(trace.memory[f]),
                have=room, unit="B", hint="Give the fleet a larger node, or the function less memory",
            )  # fmt: skip

    def run(self) -> Placed:
        """Returns what becomes of the trace."""
        trace = self.trace
        called: list[list[int]] = [[] for _ in trace.names]
        for f, caller in enumerate(trace.caller.tolist()):
            if caller >= 0:
                called[caller].append(f)
        for i, (at, f) in enumerate(zip(trace.time.tolist(), self.function, strict=True)):
            self._push(at, ARRIVED, i)
            for callee in called[f]:
                self._push(at, CALLED, callee)
        for at in self.supply.steps(trace.span + NIGHT) if self.supply.any else ():
            self._push(at, SHONE, 0)
        while self.events and (self.waiting or self.events[0][1] != SHONE or self.events[0][0] <= trace.span):
            now, what, _, who, version = heapq.heappop(self.events)
            self.supply.advance(now)
            if what == SHONE:
                self._serve(now)
                soon = self.supply.back() if self.waiting else float("inf")
                if soon < float("inf"):
                    self._push(now + soon + AFTER, SHONE, 0)
            elif what == FREED:
                self._freed(self.pods[who], now)
            elif what == CALLED:
                self.calls[who] += 1
                if self.decision[who].follow > 0 and now < trace.span:
                    self._warm(who, now, now + self.decision[who].follow)
            elif what == OPENED:
                if version == self.version[who] and now < trace.span:
                    self._warm(who, now, self.window[who])
            elif what == ARRIVED:
                self._arrived(who, now)
            else:
                self._dying(self.pods[who], now)
        if self.waiting:
            f = self.function[self.waiting[0]]
            raise Infeasible(
                f"function {trace.names[f]}: a node of region {trace.regions[trace.region[f]]} that takes it",
                need=float(trace.memory[f]), have=0.0, unit="B", hint="Route it across regions, or give it nodes",
            )  # fmt: skip
        return self._result()

    def _push(self, time: float, what: int, who: int, version: int = 0) -> None:
        heapq.heappush(self.events, (time, what, next(self.order), who, version))

    def _at(self, function: int, node: int) -> _Here:
        return self.here[function].setdefault(node, _Here())

    # what a pod lives through

    def _start(self, f: int, node: int, now: float, *, claimed: bool) -> _Pod:
        rows = int(self.trace.row[f + 1] - self.trace.row[f])
        row = int(self.trace.row[f]) + self.seen[f] % rows
        ready = now + self.total[row]
        pod = _Pod(len(self.pods), f, node, now, row, ready, ready, claimed)
        self.pods.append(pod)
        self.free[node] -= self.trace.memory[f]
        return pod

    def _freed(self, pod: _Pod, now: float) -> None:
        here, changed = self._at(pod.function, pod.node), False
        while here.busy and here.busy[0][0] <= now:
            free, _, pod = heapq.heappop(here.busy)
            self.supply.runs(pod.node, -float(self.trace.memory[pod.function]))
            pod.claimed, pod.idle, pod.free, changed = True, True, free, True
            here.idle.append(pod)
            self.idle_pods[pod.node][pod.number] = pod
            self.idle_memory[pod.node] += self.trace.memory[pod.function]
            self._push(pod.death, ENDED, pod.number)
        if changed:
            self._serve(now)

    def _dying(self, pod: _Pod, now: float) -> None:
        if pod.idle and not pod.gone and pod.death <= now:
            self._end(pod, pod.death)
            self._serve(now)
        elif pod.idle and not pod.gone:
            self._push(pod.death, ENDED, pod.number)

    def _end(self, pod: _Pod, at: float) -> None:
        pod.gone, pod.death = True, at
        self._at(pod.function, pod.node).idle.remove(pod)
        self._not_idle(pod, at)
        self.free[pod.node] += self.trace.memory[pod.function]

    def _not_idle(self, pod: _Pod, at: float) -> None:
        pod.idle = False
        del self.idle_pods[pod.node][pod.number]
        self.idle_memory[pod.node] -= self.trace.memory[pod.function]
        self.idled[pod.function] += at - pod.free

    def _make_room(self, f: int, node: int, now: float) -> bool:
        """Ends idle pods of a node until another pod of the function fits; returns whether it does."""
        need = float(self.trace.memory[f])
        while self.free[node] < need and self.idle_pods[node]:
            self._end(next(iter(self.idle_pods[node].values())), now)
            self.ended += 1
        return bool(self.free[node] >= need)

    def _warm(self, f: int, now: float, until: float) -> None:
        """Has a pod of a function warm until a time, where it was served last."""
        node, until = self.last_node[f], min(until, self.trace.span)
        if node < 0:
            return
        here = self._at(f, node)
        pod = here.idle[-1] if here.idle else None
        if pod is None:
            coming = [p for _, _, p in here.busy if not p.claimed]
            pod = min(coming, key=lambda p: p.number) if coming else None
        if pod is not None:
            pod.death = max(pod.death, until)
        elif self._make_room(f, node, now):
            pod = self._start(f, node, now, claimed=False)
            pod.death = max(pod.last, until)
            self._run(pod, pod.last)

    def _run(self, pod: _Pod, end: float) -> None:
        heapq.heappush(self._at(pod.function, pod.node).busy, (end, pod.number, pod))
        self.supply.runs(pod.node, float(self.trace.memory[pod.function]))
        self._push(end, FREED, pod.number)

    # what a request lives through

    def _arrived(self, i: int, now: float) -> None:
        f = self.function[i]
        view = View(
            self.trace.names[f], self.trace.triggers[self.trace.trigger[f]], bool(self.trace.asynchronous[f]),
            float(self.trace.memory[f]), self.means[f], self.gaps[f][: self.seen[f]],
            self.lags[f][: self.seen[f] + 1], self.calls[f],
        )  # fmt: skip
        decision = checked(self.policy.decide(view), self.trace.names[f])
        if self.waiting or not self._place(i, f, now, decision):
            self.waiting.append(i)
            self.queued += 1
            self.late[i] = decision
        self.seen[f] += 1
        self.decision[f] = decision
        self.version[f] += 1
        if decision.begin < float("inf"):
            self.window[f] = now + decision.end
            self._push(now + decision.begin, OPENED, f, self.version[f])

    def _serve(self, now: float) -> None:
        """Places requests that wait, in order of arrival, as long as there is room."""
        while self.waiting:
            i = self.waiting[0]
            f = self.function[i]
            if not self._place(i, f, now, self.late[i]):
                return
            self.waiting.popleft()

    def _place(self, i: int, f: int, now: float, decision: Decision) -> bool:
        node = self.router.pick(self._view(f, now))
        if node is None:
            return False
        here = self._at(f, node)
        coming = [entry for entry in here.busy if not entry[2].claimed]
        wait = 0.0
        if here.idle:
            pod = here.idle.pop()
            self._not_idle(pod, now)
            state = kernel.WARM
        elif coming:
            entry = min(coming, key=lambda e: e[1])
            here.busy.remove(entry)
            heapq.heapify(here.busy)
            self.supply.runs(node, -float(self.trace.memory[f]))
            pod, wait, state = entry[2], entry[0] - now, kernel.STARTING
            pod.claimed = True
        elif self.patience[f] > 0 and here.busy and here.busy[0][0] <= now + self.patience[f]:
            end, _, pod = heapq.heappop(here.busy)
            self.supply.runs(node, -float(self.trace.memory[f]))
            wait, state = end - now, kernel.DELAYED
        elif self._make_room(f, node, now):
            pod = self._start(f, node, now, claimed=True)
            wait, state = pod.last - now, kernel.COLD
        else:
            raise PolicyError(
                f"route {getattr(self.router, 'kind', '')}: {self.nodes[node].name} has no room for function "
                f"{self.trace.names[f]}: {self.trace.memory[f]:,.0f} B of {self.free[node]:,.0f} B that are free"
            )
        end = now + wait + float(self.trace.duration[i])
        pod.last = end
        pod.death = max(end, min(end + decision.keep, self.trace.span))
        self._run(pod, end)
        far = float(self.distance[self.trace.region[f], self.region[node]])
        self.wait[i] = wait + (now - float(self.trace.time[i])) + far
        self.state[i], self.where[i] = state, node
        self.last_node[f] = node
        return True

    def _view(self, f: int, now: float) -> route.View:
        warm = np.zeros(len(self.nodes), np.int64)
        usable = np.zeros(len(self.nodes), bool)
        for node, here in self.here[f].items():
            warm[node] = len(here.idle)
            usable[node] = bool(here.idle) or any(not entry[2].claimed for entry in here.busy)
        need, home = float(self.trace.memory[f]), int(self.trace.region[f])
        carbon = np.zeros(len(self.nodes))
        if self.carbon is not None:
            by_region = [self.carbon(r, now) for r in range(len(self.trace.regions))]
            carbon = np.array(by_region)[self.region]
        energy = self.supply.energy
        room = (usable | (self.free + self.idle_memory >= need)) & (energy > 0)
        return route.View(
            now, f, self.trace.names[f], need, home, self.region, room, warm, self.free, self.size,
            self.distance[home][self.region], carbon, self.power, self._idle(now), energy,
        )  # fmt: skip

    def _idle(self, now: float) -> Array:
        """f8[N], s for which the pod that idles longest on each node has idled."""
        return np.array([now - next(iter(pods.values())).free if pods else 0.0 for pods in self.idle_pods])

    def _result(self) -> Placed:
        pods = Pods(
            self.trace, self.wait, self.state, self.idled, np.array([p.function for p in self.pods], np.int32),
            np.array([p.start for p in self.pods]), np.array([p.row for p in self.pods], np.int64),
            np.array([p.last for p in self.pods]), np.array([p.death for p in self.pods]),
        )  # fmt: skip
        return Placed(pods, np.array([p.node for p in self.pods], np.int32), self.where, self.queued, self.ended)
