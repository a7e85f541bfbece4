"""Small random graphs and platforms, and HEFT as the textbook has it: for reading, sharing no code with ours."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from fleetcast.cost.graphs.platform import Platform
from fleetcast.scenario.workload.graphs import TaskGraph, assemble


def random_graph(seed: int, n: int, *, density: float = 0.3, shared: bool = False) -> TaskGraph:
    """A random graph, its tasks in no order; no time is 0 and no two are equal."""
    draw = np.random.default_rng(seed)
    a, b = np.nonzero(np.triu(draw.random((n, n)) < density, 1))
    name = draw.permutation(n)
    parent, child = name[a], name[b]
    size = draw.uniform(1.0, 60.0, len(a))
    datum = np.arange(len(a))
    if shared:  # what a task hands out is one of two data
        datum = parent * 2 + draw.integers(0, 2, len(a))
        size = draw.uniform(1.0, 60.0, 2 * n)[datum]
    return assemble(
        name="random", names=[f"t{i}" for i in range(n)], kernels=("k",), kernel=np.zeros(n), unit="s",
        work=draw.uniform(1.0, 10.0, n), parent=parent, child=child, size=size, datum=datum,
        memory=draw.uniform(0.0, 10.0, n), inputs=np.where(draw.random(n) < 0.5, draw.uniform(1.0, 30.0, n), 0.0),
    )  # fmt: skip


def random_platform(seed: int, graph: TaskGraph, workers: int, *, home: int = -1, medium: bool = False) -> Platform:
    """Workers of two kinds with links of their own, of which some share a medium or a node."""
    draw = np.random.default_rng(seed + 1)
    kinds = [f"kind{i % 2}" for i in range(workers)]
    rows = {k: graph.work * draw.uniform(0.3, 3.0, len(graph)) for k in dict.fromkeys(kinds)}
    memory = np.where(np.arange(workers) == 0, 20.0, draw.uniform(5.0, 20.0, workers))
    platform = Platform.of(
        {f"w{i}": rows[kinds[i]].tolist() for i in range(workers)}, kinds=kinds,
        rate=draw.uniform(5.0, 50.0, (workers,) * 2), latency=draw.uniform(0.0, 1.0, (workers,) * 2),
        memory=memory.tolist(), home=home, idle=10.0, busy=30.0,
    )  # fmt: skip
    if medium and workers > 2:  # the last two share a node, and all messages to and from them one channel
        platform.node[-1] = platform.node[-2]
        platform.latency[-2:, -2:], platform.rate[-2:, -2:], platform.channels[-2:, -2:] = 0.0, np.inf, -1
        platform.channels[:-2, -2:] = platform.channels[-2:, :-2] = 2 * workers
        object.__setattr__(platform, "ports", (*platform.ports, "air"))
    return platform


@dataclass
class Textbook:
    """A partial schedule, extended task by task."""

    graph: TaskGraph
    platform: Platform
    worker: dict[int, int] = field(default_factory=dict)
    span: dict[int, tuple[float, float]] = field(default_factory=dict)
    free: dict[int, float] = field(default_factory=dict)
    copies: dict[tuple[int, int], float] = field(default_factory=dict)
    sent: list[tuple[int, int, int, float, float]] = field(default_factory=list)

    def try_on(self, task: int, d: int, *, keep: bool = False) -> tuple[float, float]:
        """Start and finish of a task on a worker; ``keep``: for good."""
        graph, p = self.graph, self.platform
        free, copies, sent, ready = dict(self.free), dict(self.copies), list(self.sent), 0.0
        wants = []
        for e in range(graph.edges):
            if graph.child[e] == task:
                parent = int(graph.parent_of_edge[e])
                wants.append((self.span[parent][1], e, self.worker[parent], float(graph.size[e]), int(graph.datum[e])))
        wants.sort(key=lambda w: (w[0], graph.parent_of_edge[w[1]]))
        if p.home >= 0 and graph.inputs[task] > 0:
            wants.append((0.0, graph.edges + task, p.home, float(graph.inputs[task]), -1 - task))
        for made, e, source, size, datum in wants:
            ready = max(ready, made)
            if p.node[source] == p.node[d]:
                continue
            key = datum, int(p.node[d])
            if key not in copies:
                channels = [int(c) for c in p.channels[source, d] if c >= 0]
                begin = max([made] + [free.get(c, 0.0) for c in channels])
                end = begin + (float(p.latency[source, d]) + size / float(p.rate[source, d]))
                for c in channels:
                    free[c] = end
                copies[key] = end
                sent.append((e, source, d, begin, end))
            ready = max(ready, copies[key])
        takes = float(p.seconds[p.kind[d], task])
        busy = sorted(self.span[t] for t, w in self.worker.items() if w == d)
        at = max([ready] + [end for _, end in busy])
        for before, after in itertools.pairwise([(0.0, 0.0), *busy]):
            begin = max(ready, before[1])
            if begin + takes <= after[0]:
                at = begin
                break
        if keep:
            self.free, self.copies, self.sent = free, copies, sent
            self.worker[task], self.span[task] = d, (at, at + takes)
        return at, at + takes

    def able(self, task: int) -> list[int]:
        """Workers that can run a task."""
        return [d for d in range(len(self.platform)) if self.graph.memory[task] <= self.platform.memory[d]]


def textbook(graph: TaskGraph, platform: Platform) -> Textbook:
    """HEFT, every worker tried for every task."""
    apart = [(a, b) for a in range(len(platform)) for b in range(len(platform)) if a != b]
    latency = sum(platform.latency[a, b] for a, b in apart) / max(1, len(apart))
    pace = sum(1 / platform.rate[a, b] for a, b in apart) / max(1, len(apart))
    rank: dict[int, float] = {}

    def up(task: int) -> float:
        if task not in rank:
            mean = sum(platform.seconds[platform.kind[d], task] for d in range(len(platform))) / len(platform)
            rank[task] = mean + max(
                (latency + pace * graph.size[e] + up(int(graph.child[e]))
                 for e in range(graph.edges) if graph.parent_of_edge[e] == task), default=0.0,
            )  # fmt: skip
        return rank[task]

    state = Textbook(graph, platform)
    for task in sorted(range(len(graph)), key=lambda t: -up(t)):
        best = min(state.able(task), key=lambda d: (state.try_on(task, d)[1], d))
        state.try_on(task, best, keep=True)
    return state


def brute_force(graph: TaskGraph, platform: Platform) -> float:
    """The least makespan over every order of decisions and every placement."""
    n = len(graph)
    parents = [set(graph.parents(t).tolist()) for t in range(n)]
    best = np.inf
    for order in itertools.permutations(range(n)):
        if any(not parents[t] <= set(order[:i]) for i, t in enumerate(order)):
            continue
        for where in itertools.product(range(len(platform)), repeat=n):
            state = Textbook(graph, platform)
            if any(d not in state.able(t) for t, d in zip(order, where, strict=True)):
                continue
            end = 0.0
            for task, d in zip(order, where, strict=True):
                end = max(end, state.try_on(task, d, keep=True)[1])
                if end >= best:
                    break
            best = min(best, end)
    return best
