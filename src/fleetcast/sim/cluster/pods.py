"""Pods come and go on nodes, and a place policy says which node each gets: the clock that policies do not have.

Events are arrivals, departures and nodes that go and come back. A policy is asked for pods that arrive, and for those
that wait whenever something has become free, as kube-scheduler does. Every decision is checked
(`policy.place.pods.check`) before it is carried out, so a bad policy cannot corrupt a run.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.base.record import Record
from fleetcast.policy.place.pods import GPU, Node, Pod, Policy, Rule, Taint, Toleration, View
from fleetcast.policy.place.pods.check import carry_out
from fleetcast.policy.place.pods.ledger import Ledger, totals
from fleetcast.scenario.workload.pods import Nodes, Pods

PRODUCT = "nvidia.com/gpu.product"
"""Label of a node that names its devices."""
DEPARTS, GOES, COMES, ARRIVES = range(4)
AGAIN = 8
"""How often a policy is asked again at one moment because pods were evicted."""


def as_nodes(nodes: Nodes) -> tuple[Node, ...]:
    """Returns nodes as policies see them."""
    found = []
    for i, name in enumerate(nodes.names):
        capacity = {"cpu": float(nodes.cpu[i]), "memory": float(nodes.memory[i])}
        labels = dict(nodes.labels[i]) if nodes.labels else {}
        if nodes.devices[i]:
            capacity[GPU] = float(nodes.devices[i])
        if nodes.models[i]:
            labels[PRODUCT] = nodes.models[i]
        taints = tuple(Taint(key) for key in nodes.taints[i]) if nodes.taints else ()
        found.append(Node(name, capacity, labels, taints))
    return tuple(found)


def as_pods(pods: Pods) -> tuple[Pod, ...]:
    """Returns pods as policies see them.

    Raises:
        SpecError: a pod that lies apart and has no label "app".
    """
    found = []
    for i, name in enumerate(pods.names):
        requests = {"cpu": float(pods.cpu[i]), "memory": float(pods.memory[i])}
        if pods.devices[i]:
            requests[GPU] = float(pods.devices[i])
        labels = pods.labels[i] if pods.labels else {}
        rules = []
        if pods.models and pods.models[i]:
            rules.append(Rule(PRODUCT, values=pods.models[i]))
        if pods.apart and pods.apart[i]:
            if "app" not in labels:
                raise SpecError(f"pod '{name}'", "lies apart from its like and has no label 'app'", value=pods.apart[i],
                                limit="labels with app=...", hint="Say which pods are its like")  # fmt: skip
            rules.append(Rule("app", values=(labels["app"],), pods=True, anti=True, topology=pods.apart[i]))
        tolerations = tuple(Toleration(key, "Exists") for key in pods.tolerations[i]) if pods.tolerations else ()
        found.append(
            Pod(
                name,
                requests,
                int(pods.priority[i]),
                labels=labels,
                selector=pods.selector[i] if pods.selector else {},
                rules=tuple(rules),
                tolerations=tolerations,
                gpu_share=float(pods.share[i]),
                group=pods.group[i] if pods.group else "",
                arrival=float(pods.arrival[i]),
            )
        )
    return tuple(found)


@dataclass
class Played:
    """What happened to pods under a policy.

    Attributes:
        nodes: of the cluster.
        pods: n of them, in order of arrival.
        start: f8[n], s, when each first got a node; inf = never.
        moves: pods that went to another node.
        evicted: pods that left for others.
        lost: pods whose node went.
        decisions: how often the policy was asked.
        asked: how many pods it was asked about, in all.
        ledger: at the end.
        used: share of each resource that was taken, the mean over time.
        ended: the same at the end.
        reasons: of pods that wait at the end, why.
        proof: the last that a policy said.
        end: s.
        spans: (pod, node, from, until) of each stay.
    """

    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...]
    start: NDArray[np.float64]
    ledger: Ledger
    moves: int = 0
    evicted: int = 0
    lost: int = 0
    decisions: int = 0
    asked: int = 0
    used: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    proof: str = ""
    end: float = 0.0
    spans: list[tuple[int, int, float, float]] = field(default_factory=list)

    @property
    def waiting(self) -> list[int]:
        """Numbers of the pods that wait at the end."""
        return [i for i, pod in enumerate(self.pods) if pod.name in self.reasons]

    def record(self) -> Record:
        """Returns the event record: a row for each stay of a pod on a node."""
        spans = sorted(self.spans, key=lambda s: (s[2], s[0]))
        tiers = sorted({pod.priority for pod in self.pods}, reverse=True)
        what = [tiers.index(self.pods[p].priority) for p, _, _, _ in spans]
        start = np.array([s[2] for s in spans], dtype=np.float64)
        return Record(
            start, np.array([s[3] for s in spans], dtype=np.float64) - start,
            np.array([s[1] for s in spans], dtype=np.int32), np.array(what, dtype=np.int32),
            np.ones(len(spans), dtype=np.int64), np.ones(len(spans), dtype=np.int64), np.zeros(len(spans)),
            tuple(node.name for node in self.nodes), tuple(f"priority {tier}" for tier in tiers),
        )  # fmt: skip


class _World:
    """One run: who runs, who waits, and what is free."""

    def __init__(self, nodes: tuple[Node, ...], pods: tuple[Pod, ...], policy: Policy) -> None:
        self.policy = policy
        self.nodes = nodes
        self.number = {pod.name: i for i, pod in enumerate(pods)}
        self.ledger = Ledger(nodes)
        self.running: dict[str, Pod] = {}
        self.since: dict[str, tuple[int, float]] = {}
        self.waiting: dict[str, Pod] = {}
        self.found = Played(nodes, pods, np.full(len(pods), np.inf), self.ledger)

    def ask(self, fresh: Sequence[Pod], freed: bool, now: float) -> None:
        """Asks the policy for pods that arrive and, where something is free, for those that wait."""
        asked = [*self.waiting.values(), *fresh] if freed else list(fresh)
        for _ in range(AGAIN):
            if not asked:
                return
            view = View(self.nodes, tuple(self.running.values()), tuple(asked), {}, self.ledger)
            placement = self.policy.place(view)
            self.ledger = carry_out(view, placement).settle()
            self.found.decisions += 1
            self.found.asked += len(asked)
            self.found.proof = placement.proof or self.found.proof
            self.found.moves += len(placement.moved)
            self.found.evicted += len(placement.evicted)
            for name in placement.evicted:
                self.waiting[name] = replace(self._stop(name, now), node="", gpus=())
            for name, node in placement.moved.items():
                self._start(self._stop(name, now), node, now)
            for pod in asked:
                if pod.name in placement.bound:
                    self.waiting.pop(pod.name, None)
                    self._start(pod, placement.bound[pod.name], now)
                    i = self.number[pod.name]
                    self.found.start[i] = min(self.found.start[i], now)
                else:
                    self.waiting[pod.name] = pod
            for name in (*placement.bound, *placement.moved, *placement.evicted):
                self.found.reasons.pop(name, None)
            self.found.reasons |= placement.reasons
            asked = [self.waiting[name] for name in placement.evicted]

    def _start(self, pod: Pod, node: str, now: float) -> None:
        devices = self.ledger.laid[pod.name].devices
        self.running[pod.name] = replace(pod, node=node, gpus=devices)
        self.since[pod.name] = self.ledger.number[node], now

    def _stop(self, name: str, now: float) -> Pod:
        node, since = self.since.pop(name)
        self.found.spans.append((self.number[name], node, since, now))
        return self.running.pop(name)

    def depart(self, name: str, now: float) -> bool:
        """Takes a pod away; returns whether something is free for it."""
        self.found.reasons.pop(name, None)
        if name in self.running:
            self._stop(name, now)
            self.ledger.remove(name)
            self.ledger.settle()
            return True
        self.waiting.pop(name, None)
        return False

    def switch(self, node: int, ready: bool, now: float) -> list[Pod]:
        """Lets a node go or come back; returns the pods that it took with it."""
        self.nodes = (*self.nodes[:node], replace(self.nodes[node], ready=ready), *self.nodes[node + 1 :])
        name = self.nodes[node].name
        gone = [] if ready else [pod.name for pod in self.running.values() if pod.node == name]
        back = [replace(self._stop(pod, now), node="", gpus=()) for pod in gone]
        self.found.lost += len(back)
        self.ledger = Ledger.of(View(self.nodes, tuple(self.running.values()), ()))
        return back


def play(
    nodes: Nodes, pods: Pods, policy: Policy, *, stay: bool = False, together: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Played:  # fmt: skip
    """Returns what happens to pods under a policy.

    Args:
        nodes: of the cluster.
        pods: in order of arrival.
        policy: that places them.
        stay: whether pods never leave, whatever their trace says.
        together: whether all pods are there from the start.
        progress: called with (arrivals so far, pods).

    Raises:
        PolicyError: the policy decided what cannot be.
    """
    made = as_pods(pods)
    world = _World(as_nodes(nodes), made, policy)
    events: list[tuple[float, int, int]] = []
    arrival = np.zeros(len(made)) if together else pods.arrival.copy()
    gangs: dict[str, float] = {}
    for i, pod in enumerate(made):  # a gang comes with its last pod
        if pod.group:
            gangs[pod.group] = max(gangs.get(pod.group, 0.0), float(arrival[i]))
    for i, pod in enumerate(made):
        at = gangs.get(pod.group, float(arrival[i])) if pod.group else float(arrival[i])
        events.append((at, ARRIVES, i))
        if not stay and math.isfinite(pods.departure[i]):
            length = max(float(pods.departure[i] - pods.arrival[i]), 0.0)
            events.append((at + length, DEPARTS, i))
    for i, (gone, back) in enumerate(nodes.down):
        if math.isfinite(gone):
            events.append((gone, GOES, i))
            if math.isfinite(back):
                events.append((back, COMES, i))
    heapq.heapify(events)
    found, seen, last = world.found, 0, events[0][0] if events else 0.0
    first, area = last, dict.fromkeys(world.ledger.resources, 0.0)
    while events:
        now = events[0][0]
        if now > last:
            for name, share in totals(world.ledger).items():
                area[name] += share * (now - last)
            last = now
        freed, fresh = False, []
        while events and events[0][0] == now:
            _, what, i = heapq.heappop(events)
            if what == ARRIVES:
                fresh.append(made[i])
            elif what == DEPARTS:
                if made[i].name in world.running or made[i].name in world.waiting:
                    freed |= world.depart(made[i].name, now)
                else:  # it arrives at the same moment
                    fresh = [pod for pod in fresh if pod is not made[i]]
            else:
                fresh += world.switch(i, what == COMES, now)
                freed |= what == COMES
        seen += len(fresh)
        world.ask(fresh, freed and bool(world.waiting), now)
        if progress is not None and fresh:
            progress(min(seen, len(made)), len(made))
    found.ledger, found.end = world.ledger, last
    found.ended = dict(totals(world.ledger))
    found.used = {k: v / (last - first) for k, v in area.items()} if last > first else found.ended
    for name, (node, since) in world.since.items():
        found.spans.append((world.number[name], node, since, last))
    return found
