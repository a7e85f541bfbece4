"""HEFT: equal to the textbook's, in both forms, and never better than what is possible."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.cost.graphs import schedule as schedules
from fleetcast.cost.graphs.platform import Platform
from fleetcast.cost.graphs.schedule import BrokenSchedule, Schedule, check, heft
from fleetcast.scenario.workload.graphs import Task, TaskGraph
from tests.cost.graphs.cases import brute_force, random_graph, random_platform, textbook

CASES = [
    (seed, n, workers, home, medium, shared)
    for seed, (n, workers, home, medium, shared) in enumerate(
        (n, workers, home, medium, shared)
        for n in (1, 2, 7, 40)
        for workers in (1, 2, 5)
        for home, medium, shared in ((-1, False, False), (0, False, True), (-1, True, True), (1, True, False))
        if home < workers
    )
]


def columns(found: Schedule) -> list[list[float]]:
    sent = found.messages
    return [
        c.tolist()
        for c in (found.worker, found.start, found.finish, sent.edge, sent.source, sent.target, sent.begin, sent.end)
    ]


@pytest.mark.parametrize(("seed", "n", "workers", "home", "medium", "shared"), CASES)
def test_the_textbook_and_both_forms_give_the_same_schedule(
    seed: int, n: int, workers: int, home: int, medium: bool, shared: bool,
    twins: Callable[[str], tuple[ModuleType, ModuleType]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    graph = random_graph(seed, n, shared=shared)
    platform = random_platform(seed, graph, workers, home=home, medium=medium)
    found = heft(graph, platform)
    check(found, graph, platform)
    slow = textbook(graph, platform)
    assert found.worker.tolist() == [slow.worker[t] for t in range(n)]
    assert list(zip(found.start.tolist(), found.finish.tolist(), strict=True)) == [slow.span[t] for t in range(n)]
    sent = found.messages
    rows = zip(*(c.tolist() for c in (sent.edge, sent.source, sent.target, sent.begin, sent.end)), strict=True)
    assert list(rows) == slow.sent
    for form in twins("fleetcast.kernels.heft"):
        monkeypatch.setattr(schedules, "loop", form)
        assert columns(heft(graph, platform)) == columns(found)


def test_no_schedule_of_a_tiny_graph_beats_brute_force() -> None:
    worse = 0
    for seed in range(6):
        graph = random_graph(seed, 4, density=0.5, shared=seed % 2 == 0)
        platform = random_platform(seed, graph, 2, home=seed % 3 - 1)
        best, ours = brute_force(graph, platform), heft(graph, platform).makespan
        assert ours >= best - 1e-12
        worse += ours > best + 1e-9
    assert worse > 0, "greedy is not optimal: were it so always, brute force would be no oracle"


def test_a_gap_before_a_late_task_is_used() -> None:
    # a -> b crosses a slow link, so that b's worker waits; c, of lowest rank, fits into the wait
    graph = TaskGraph.of(
        [Task(name="a", work=2), Task(name="b", work=9), Task(name="c", work=1)], [("a", "b", 10.0)], unit="s"
    )
    platform = Platform.of({"x": [2, 99, 99], "y": [99, 9, 1]}, rate=10.0)
    found = heft(graph, platform)
    assert found.worker.tolist() == [0, 1, 1]
    assert found.start.tolist() == [0.0, 3.0, 0.0]
    assert found.makespan == 12.0
    assert found.queues(2) == [[0], [2, 1]]


def test_messages_to_one_worker_wait_for_each_other_and_others_do_not() -> None:
    tasks = [Task(name=name, work=1) for name in ("a", "b", "c", "d")]
    graph = TaskGraph.of(tasks, [("a", "c", 10.0), ("b", "c", 10.0), ("b", "d", 10.0)], unit="s")

    def only(*able: str) -> list[float]:
        return [1.0 if t in able else np.inf for t in "abcd"]

    platform = Platform.of({"w": only("a"), "x": only("b"), "y": only("c"), "z": only("d")}, rate=10.0)
    found = heft(graph, platform)
    # both reach y's port in turn: 1..2, 2..3; b's port then is busy until 3, so z has its data at 4
    assert found.start.tolist() == [0.0, 0.0, 3.0, 4.0]
    assert found.moved_bytes(graph) == 30.0
    check(found, graph, platform)


def test_data_that_several_tasks_read_travel_once() -> None:
    tasks = [Task(name=name, work=1) for name in ("a", "b", "c")]
    platform = Platform.of({"x": [1, 9, 9], "y": [9, 1, 1]}, rate=10.0)
    own = TaskGraph.of(tasks, [("a", "b", 10.0), ("a", "c", 10.0)], unit="s")
    same = TaskGraph.of(tasks, [("a", "b", 10.0, "tile"), ("a", "c", 10.0, "tile")], unit="s")
    assert heft(own, platform).moved_bytes(own) == 20.0
    assert heft(same, platform).moved_bytes(same) == 10.0


def test_energy_is_idle_throughout_and_busy_while_working() -> None:
    graph = TaskGraph.of([Task(name="a", work=1), Task(name="b", work=1)], [("a", "b")], unit="s")
    platform = Platform.of({"x": [4, 6], "y": [40, 60]}, idle=[10.0, 1.0], busy=[100.0, 50.0])
    assert heft(graph, platform).energy(platform) == 10 * 100 + 10 * 1


def test_what_fits_nowhere_is_refused_by_name_and_size() -> None:
    graph = TaskGraph.of([Task(name="a", work=1), Task(name="big", work=1, memory=3e9)], unit="s")
    with pytest.raises(Infeasible, match=r"task big on one device needs 3 GB, have 2 GB"):
        heft(graph, Platform.of({"x": [1, 1], "y": [1, 1]}, memory=[1e9, 2e9]))
    with pytest.raises(SpecError, match="runs on no device"):
        heft(graph, Platform.of({"x": [1, np.inf]}))
    # memory is there, but on a device that cannot run it
    with pytest.raises(Infeasible, match="have 1 GB"):
        heft(graph, Platform.of({"x": [1, 1], "y": [1, np.inf]}, memory=[1e9, 4e9]))


@pytest.mark.parametrize("break_", ["start", "early", "overlap", "message", "memory"])
def test_the_check_finds_each_kind_of_broken_schedule(break_: str) -> None:
    graph = random_graph(5, 30)
    platform = random_platform(5, graph, 3)
    found = heft(graph, platform)
    check(found, graph, platform)
    if break_ == "start":
        found = dataclasses.replace(found, finish=found.finish + 1.0)
    elif break_ == "early":
        task = int(np.argmax(np.diff(graph.by_child[0]) > 0))
        found.start[task], found.finish[task] = 0.0, found.finish[task] - found.start[task]
    elif break_ == "overlap":
        found.worker[:] = 0
        found = dataclasses.replace(found, finish=found.start + platform.seconds[0])
    elif break_ == "message":
        found.messages.begin[-1] -= 1e3
    else:
        graph.memory[:] = 1e9
    with pytest.raises(BrokenSchedule):
        check(found, graph, platform)


def test_ranks_that_the_caller_gives_decide_the_order() -> None:
    graph = TaskGraph.of([Task(name="a", work=2), Task(name="b", work=1)], unit="s")
    platform = Platform.of({"x": [2, 1]})
    assert heft(graph, platform).start.tolist() == [0.0, 2.0]
    assert heft(graph, platform, np.array([1.0, 2.0])).start.tolist() == [1.0, 0.0]


def test_nodes_may_have_any_numbers() -> None:
    graph = random_graph(3, 30)
    platform = random_platform(3, graph, 3)
    found = heft(graph, platform)
    platform.node[:] = [1000, 4, 77]
    assert columns(heft(graph, platform)) == columns(found)
