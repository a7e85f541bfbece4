"""Schedules of tasks as pebble games: legal where memory is large, and as full as the intervals of their data say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fleetcast.cost.graphs.platform import Platform
from fleetcast.cost.graphs.schedule import Schedule
from fleetcast.policy.order.tasks import CriticalPath, Fifo, Heft
from fleetcast.scenario.workload.graphs import Task, TaskGraph
from fleetcast.sim.graph.pebbled import proven
from fleetcast.sim.graph.world import play
from fleetcast.view import verbs
from tests.cost.graphs.cases import random_graph, random_platform


def fullest(graph: TaskGraph, platform: Platform, schedule: Schedule) -> list[float]:
    """The most that lies in each memory at once, intervals added up.

    At one instant data are made first, beside what their tasks read; then what ends leaves, then the rest begins.
    """
    place = platform.node[schedule.worker]
    spans: dict[tuple[int, object], list[float]] = {}  # (node, value) -> begin, end, bytes

    def lies(node: int, value: object, begin: float, end: float, size: float) -> None:
        old = spans.get((node, value), [begin, end, size])
        spans[node, value] = [min(old[0], begin), max(old[1], end), size]

    made: set[tuple[int, int]] = set()
    sizes = dict(zip(graph.datum.tolist(), graph.size.tolist(), strict=True))
    for i in range(len(graph)):
        into = {int(graph.datum[e]) for e in np.flatnonzero(graph.child == i)}
        out = {int(graph.datum[e]) for e in np.flatnonzero(graph.parent_of_edge == i)}
        begin, end, node = schedule.start[i], schedule.finish[i], int(place[i])
        own = max(0.0, graph.memory[i] - graph.inputs[i] - sum(sizes[d] for d in into) - sum(sizes[d] for d in out))
        lies(node, ("task", i), begin, end, own)
        if graph.inputs[i]:
            lies(node, ("input", i), begin, end, graph.inputs[i])
        for d in out:
            made.add((node, d))
            lies(node, d, end, end, sizes[d])
        for d in into:
            maker = int(graph.parent_of_edge[np.flatnonzero(graph.datum == d)[0]])
            here = int(place[maker]) == node
            lies(node, d, schedule.finish[maker] if here else begin, end, sizes[d])
    sent = schedule.messages
    for edge, source, target, begin, end in zip(
        sent.edge.tolist(), sent.source.tolist(), sent.target.tolist(), sent.begin, sent.end, strict=True
    ):
        if edge >= graph.edges:
            lies(
                int(platform.node[target]),
                ("input", edge - graph.edges),
                begin,
                begin,
                graph.inputs[edge - graph.edges],
            )
            continue
        d = int(graph.datum[edge])
        lies(int(platform.node[source]), d, begin, end, sizes[d])
        lies(int(platform.node[target]), d, begin, end, sizes[d])
    found = []
    for node in np.unique(platform.node).tolist():
        changes = []
        for (n, value), (begin, end, size) in spans.items():
            if n == node:
                fresh = isinstance(value, int) and (n, value) in made
                changes += [(begin, 0 if fresh else 2, size), (end, 1, -size)]
        changes.sort()
        found.append(max(np.cumsum([s for _, _, s in changes]), default=0.0))
    return found


@pytest.mark.parametrize("policy", [Fifo, CriticalPath, Heft])
@pytest.mark.parametrize("seed", range(12))
def test_any_schedule_is_legal_in_large_memories_and_as_full_as_its_data(policy: type, seed: int) -> None:
    graph = random_graph(seed, 25, shared=seed % 2 == 0)
    platform = random_platform(seed, graph, 4, home=-1 if seed % 3 else 1, medium=seed % 4 == 0)
    schedule = play(graph, platform, policy())
    large = replace(platform, memory=np.full(len(platform), 1e9))
    proof = proven(graph, large, schedule, 1.0)
    assert proof.legal, proof.reason
    assert proof.cost == schedule.makespan
    assert proof.computes == len(graph) + graph.data + int((np.diff(graph.first) == 0).sum())
    peaks = fullest(graph, platform, schedule)
    assert list(proof.peak) == pytest.approx(peaks, rel=1e-6)
    # A byte less than that in the fullest memory, and the schedule is refused by name.
    node = int(np.argmax(peaks))
    short = replace(large, memory=np.where(platform.node == np.unique(platform.node)[node], peaks[node] * 0.999, 1e9))
    refused = proven(graph, short, schedule, 1.0)
    assert not refused.legal
    name = platform.workers[int(np.argmax(platform.node == np.unique(platform.node)[node]))]
    assert f"on {name} needs" in refused.reason


def test_a_message_before_its_data_are_made_is_refused() -> None:
    graph = TaskGraph.of([Task(name="a", work=1), Task(name="b", work=1)], [("a", "b", 8.0)], unit="s")
    platform = Platform.of({"x": [1.0, np.inf], "y": [np.inf, 1.0]}, rate=8.0, memory=100.0)
    schedule = play(graph, platform, Fifo())
    assert proven(graph, platform, schedule, 3.0).gap == 0.0
    early = replace(schedule, messages=replace(schedule.messages, begin=schedule.messages.begin - 0.5))
    proof = proven(graph, platform, early, 3.0)
    assert not proof.legal
    assert proof.reason == "SAVE data 0 of a on x, which does not hold it"


def test_tasks_of_no_length_are_played_in_their_order() -> None:
    graph = TaskGraph.of(
        [Task(name=n, work=0) for n in "abcd"], [("a", "b", 1.0), ("b", "c", 1.0), ("a", "d", 1.0)], unit="s"
    )
    platform = Platform.of({"x": [0.0] * 4, "y": [0.0] * 4}, memory=10.0)
    for policy in (Fifo(), Heft()):
        assert proven(graph, platform, play(graph, platform, policy), 0.0).legal


def test_check_proves_the_examples() -> None:
    for name in ("graph", "graph-workflow"):
        proof = verbs.prove(name)
        assert proof is not None
        assert proof.legal
        outcome = verbs.simulate(name)
        assert (proof.cost, proof.lower_bound) == (outcome.metrics["makespan"], outcome.metrics["lower_bound"])
        assert proof.gap == pytest.approx(outcome.metrics["gap"])
