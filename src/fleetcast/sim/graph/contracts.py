"""What every policy that orders tasks keeps, whatever it decides: played on random graphs, everything runs, legally."""

from __future__ import annotations

from typing import Any

import numpy as np

from fleetcast.base.errors import FleetcastError
from fleetcast.base.rng import rng
from fleetcast.cost.graphs.platform import Platform
from fleetcast.cost.graphs.schedule import check
from fleetcast.scenario.workload.graphs import TaskGraph, assemble
from fleetcast.sim.graph.world import play

GRAPHS = 12
"""Random graphs that a policy is played on, of up to 40 tasks and 5 workers, some of which cannot run some tasks."""


def orders_a_graph(policy: Any, seed: int) -> str:
    """Returns what is wrong with a policy on random graphs, "" where nothing is."""
    for i in range(GRAPHS):
        graph, platform = _instance(seed, i)
        try:
            first = play(graph, platform, policy)
            check(first, graph, platform)
            again = play(graph, platform, policy)
        except FleetcastError as error:
            return f"on graph {i}: {error}"
        if first.record(graph, platform).digest() != again.record(graph, platform).digest():
            return f"graph {i} played again runs otherwise"
    return ""


def _instance(seed: int, i: int) -> tuple[TaskGraph, Platform]:
    draw = rng(seed, "contract", "tasks", str(i))
    n, workers = int(draw.integers(1, 41)), int(draw.integers(1, 6))
    parent, child = np.nonzero(np.triu(draw.random((n, n)) < 0.2, 1))
    work = np.where(draw.random(n) < 0.1, 0.0, draw.uniform(0.0, 10.0, n))
    graph = assemble(
        name="contract", names=[f"t{k}" for k in range(n)], kernels=("a", "b"), kernel=draw.integers(0, 2, n),
        work=work, unit="s", parent=parent, child=child, size=draw.uniform(0.0, 50.0, len(parent)),
        datum=parent, memory=draw.uniform(0.0, 10.0, n), inputs=draw.uniform(0.0, 20.0, n),
    )  # fmt: skip
    rows = {}
    for w in range(workers):
        takes = work * draw.uniform(0.3, 3.0, n)
        takes[draw.random(n) < (0.2 if w else 0.0)] = np.inf
        rows[f"w{w}"] = takes.tolist()
    platform = Platform.of(
        rows, rate=draw.uniform(5.0, 50.0, (workers, workers)), latency=0.1,
        memory=[10.0, *draw.uniform(2.0, 12.0, workers - 1).tolist()], home=int(draw.integers(-1, workers)),
        idle=1.0, busy=2.0,
    )  # fmt: skip
    return graph, platform
