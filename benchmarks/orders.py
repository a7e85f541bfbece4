"""INSPIRIT's claim: what ordering ready tasks by what they let start gains over other policies, on mixed fleets.

Fleets and generated graphs are in orders_inputs.toml, synthetic and fixed first; settings were chosen on its ``tuned``
graphs, figures are from its ``held`` ones and from real workflows (WfInstances), whose programs' speeds on other devices are
drawn. All policies play the same graphs in the same world (`sim.graph.world`).
"""

from __future__ import annotations

import gzip
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks.records import Null, Ours, Paper, Record, data_path, main, skipped
from fleetcast.base.rng import rng
from fleetcast.base.spec import build, kinds
from fleetcast.cost.graphs.platform import Platform
from fleetcast.policy.order import tasks as order
from fleetcast.scenario.workload.graphs import TaskGraph, generators
from fleetcast.scenario.workload.graphs.wfformat import parse_wfformat
from fleetcast.sim.graph.world import play

COMMAND = "python -m benchmarks.orders"
INPUTS = Path(__file__).with_name("orders_inputs.toml")
POLICIES = tuple(kinds(order))
MOST_TASKS = 3000
"""Of a real workflow; larger ones take minutes a policy here."""


@cache
def inputs() -> dict[str, Any]:
    """Returns the frozen fleets and graphs."""
    with INPUTS.open("rb") as file:
        return tomllib.load(file)


def platform(fleet: Mapping[str, Any], graph: TaskGraph) -> Platform:
    """Returns a fleet's workers under a graph: its cores share the host's memory, each other device has two ports."""
    core, draw = inputs()["core"], rng(0, "orders", fleet["name"], graph.name)
    rows: dict[str, list[float]] = {}
    names, shared = [], []
    base = graph.work / core if graph.unit == "FLOP" else graph.work
    for kind in fleet["kinds"]:
        low, high = np.log(kind.get("program", (1.0, 1.0)))
        drawn = np.exp(draw.uniform(low, high, len(graph.kernels)))
        speed = np.array([kind.get(k, kind.get("task", 1.0)) for k in graph.kernels]) if graph.unit == "FLOP" else drawn
        for i in range(kind["count"]):
            rows[f"{kind['name']} {i}"] = (base / speed[graph.kernel]).tolist()
            names.append(kind["name"])
            shared.append(bool(kind.get("shared")))
    made = Platform.of(rows, kinds=names, rate=fleet["links"]["rate"], latency=fleet["links"]["latency"])
    host = np.array(shared)
    made.node[host] = 0
    made.node[~host] = 1 + np.arange((~host).sum())
    within = np.ix_(host, host)
    made.latency[within], made.rate[within], made.channels[within] = 0.0, np.inf, -1
    # the host's memory serves all of its ports at once: a message holds the device's port alone
    made.channels[np.ix_(host, ~host)][..., 0] = -1
    first, second = made.channels[..., 0], made.channels[..., 1]
    first[np.ix_(host, ~host)], second[np.ix_(~host, host)] = -1, -1
    return made


def generated(part: str) -> Iterator[tuple[str, TaskGraph]]:
    """Yields (family, graph) of a part of the inputs; graphs without chance come once."""
    for row in inputs()[part]["graphs"]:
        table = {key: value for key, value in row.items() if key != "family"}
        made = build(generators, table, "graph")
        for seed in inputs()[part]["seeds"] if row["family"] == "random" else (0,):
            yield row["family"], made.graph(seed)


def workflows() -> Iterator[tuple[str, TaskGraph]]:
    """Yields the real workflows that are at hand."""
    folder = data_path("scheduling", "workflows")
    for path in sorted(folder.glob("*.json.gz")) if folder else ():
        graph = parse_wfformat(gzip.decompress(path.read_bytes()), path.name)
        if len(graph) <= MOST_TASKS:
            yield "workflows", graph


def makespans(graph: TaskGraph, fleet: Mapping[str, Any], policies: tuple[str, ...] = POLICIES) -> dict[str, float]:
    """Returns the makespan of a graph under each policy, s."""
    workers = platform(fleet, graph)
    return {kind: play(graph, workers, build(order, kind, "order")).makespan for kind in policies}
