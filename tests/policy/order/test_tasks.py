"""The rules of the policies that order tasks, each on a case small enough to follow by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fleetcast.cost.graphs.platform import Platform
from fleetcast.policy.order.tasks import Board, Dmda, Dmdas, Inspirit, WorkStealing
from fleetcast.policy.order.tasks.inspirit import Controller, abilities
from fleetcast.policy.order.tasks.sorted_queue import SortedQueue
from fleetcast.scenario.workload.graphs import Task, TaskGraph
from fleetcast.sim.graph.world import play
from tests.cost.graphs.cases import random_graph, random_platform


def independent(work: list[float], **workers: float) -> tuple[TaskGraph, Platform]:
    graph = TaskGraph.of([Task(name=f"t{i}", work=w) for i, w in enumerate(work)], unit="s")
    return graph, Platform.of({name: [w * slow for w in work] for name, slow in workers.items()})


def test_dmda_sends_each_task_where_it_ends_first() -> None:
    graph, platform = independent([1.0] * 8, quick=1.0, slow=3.0)
    found = play(graph, platform, Dmda())
    # 1, 2, (3 | 3: the first worker), 4 | 3: the slow one, ...
    assert np.bincount(found.worker).tolist() == [6, 2]
    assert found.makespan == 6.0


def test_dmda_counts_what_data_take() -> None:
    graph = TaskGraph.of([Task(name="a", work=1), Task(name="b", work=1)], [("a", "b", 10.0)], unit="s")
    platform = Platform.of({"x": [1.0, 4.0], "y": [9.0, 1.0]}, rate=10.0)
    assert play(graph, platform, Dmda()).worker.tolist() == [0, 1]  # 4 against 1 + 1
    assert play(graph, platform, Dmda(beta=5.0)).worker.tolist() == [0, 0]  # 4 against 1 + 5


@pytest.mark.parametrize("seed", range(6))
def test_dmda_by_its_definition(seed: int) -> None:
    graph = random_graph(seed, 30)
    platform = random_platform(seed, graph, 4)
    seen = []

    class Watching(Dmda):
        def push(self, task: int, view: Board) -> int | None:
            worker = super().push(task, view)
            ends = [view.free_at(w) + view.estimate(task, w) + view.fetch(task, w) for w in view.workers]
            seen.append(ends[worker] == min(ends))
            return worker

    play(graph, platform, Watching())
    assert len(seen) == 30 and all(seen)


def test_dmdas_serves_a_queue_by_rank_where_dmda_serves_it_in_order() -> None:
    graph = TaskGraph.of(
        [Task(name="short", work=1), Task(name="long", work=1), Task(name="then", work=5)], [("long", "then")], unit="s"
    )
    platform = Platform.of({"x": [1.0, 1.0, 5.0]})
    assert play(graph, platform, Dmda()).start.tolist() == [0.0, 1.0, 2.0]
    assert play(graph, platform, Dmdas()).start.tolist() == [6.0, 0.0, 1.0]


def test_equal_priorities_go_by_the_bytes_that_are_missing() -> None:
    graph = TaskGraph.of(
        [Task(name=n, work=1) for n in ("p", "far", "near", "q")], [("q", "far", 5.0), ("p", "near", 9.0)], unit="s"
    )
    platform = Platform.of({"x": [1.0] * 4, "y": [1.0] * 4}, rate=1.0)
    board = Board(graph, platform)
    for task, worker in ((0, 0), (3, 1)):
        board.release() if task == 0 else None
        board.push(task, worker)
        board.begin(task, worker, 1.0)
    ready = board.finish(0) + board.finish(3)
    queue = SortedQueue(0)
    for task in ready:
        board.push(task, 0)
        queue.add(task, 1.0)
    assert queue.best(board) == 2
    board.begin(2, 0, 2.0)
    assert queue.best(board) == 1
    board.finish(2)
    board.begin(1, 0, 3.0)
    assert queue.best(board) is None


def test_work_is_stolen_oldest_first_from_the_longest_queue() -> None:
    graph, platform = independent([1.0] * 6, x=1.0, y=1.0)
    board, policy = Board(graph, platform), WorkStealing()
    policy.start(board)
    for task in board.release():
        board.push(task, 0)
    assert policy.pop(0, board) == 5  # its own: newest first
    assert policy.pop(1, board) == 0  # another's: oldest first
    assert play(graph, platform, WorkStealing()).makespan == 3.0


def test_work_that_a_thief_cannot_run_is_left() -> None:
    graph = TaskGraph.of([Task(name="a", work=1), Task(name="b", work=1)], unit="s")
    platform = Platform.of({"x": [1.0, 1.0], "y": [math.inf, 1.0]})
    found = play(graph, platform, WorkStealing())
    assert found.worker.tolist()[0] == 0


@pytest.mark.parametrize("seed", range(8))
def test_abilities_add_up_to_the_tasks_that_something_lets_start(seed: int) -> None:
    graph = random_graph(seed, 40)
    found, chain = abilities(Board(graph, random_platform(seed, graph, 2)))
    assert math.fsum(found) == pytest.approx(sum(len(graph.parents(t)) > 0 for t in range(len(graph))))
    for task in range(len(graph)):
        behind = [chain[child] for child in graph.children(task).tolist()]
        assert chain[task] == (1 + max(behind) if behind else 0)


def test_slow_growth_asks_for_efficiency_and_quick_growth_for_ability() -> None:
    slow, quick = Controller(1.0, 2, 2), Controller(1.0, 2, 2)
    assert [slow.efficient(n, 10.0 * n) for n in (1, 2, 4)] == [True, True, True]  # 2 tasks in 20 s
    assert [quick.efficient(n, 0.1 * n) for n in (1, 2, 4)] == [True, False, False]


def test_a_falling_number_asks_for_efficiency_just_below_each_step() -> None:
    controller = Controller(1.0, 4, 8)
    controller.efficient(40, 0.1)
    asked = {n: controller.efficient(n, 1.0 + n) for n in range(31, 0, -1)}
    # half a step below 32, 24, 16 and 8; and never where few are left
    for n in (28, 29, 30, 31, 24, 20, 21, 16, 12):
        assert asked[n], n
    for n in (27, 26, 25, 19, 18, 17, 11, 10, 9, 4, 3, 1):
        assert not asked[n], n


def test_inspirit_begins_with_what_lets_most_start() -> None:
    leaves = [f"l{i}" for i in range(6)]
    graph = TaskGraph.of(
        [Task(name="alone", work=1), Task(name="root", work=1), *(Task(name=n, work=1) for n in leaves)],
        [("root", n) for n in leaves], unit="s",
    )  # fmt: skip
    found = play(graph, Platform.of({"x": [1.0] * 8}), Inspirit())
    assert found.start[1] == 0.0
