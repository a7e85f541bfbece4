"""The world of graphs: closed forms, plans kept to the last bit, decisions checked."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fleetcast.base.errors import Infeasible, PolicyError
from fleetcast.cost.graphs.platform import Platform
from fleetcast.cost.graphs.schedule import check, heft
from fleetcast.policy.order.tasks import CriticalPath, Fifo, Heft, View
from fleetcast.scenario.workload.graphs import Task, TaskGraph
from fleetcast.sim.graph.world import play
from tests.cost.graphs.cases import random_graph, random_platform


@pytest.mark.parametrize("seed", range(40))
def test_a_plan_played_is_the_plan_to_the_last_bit(seed: int) -> None:
    graph = random_graph(seed, 1 + seed, shared=seed % 2 == 0)
    platform = random_platform(seed, graph, 1 + seed % 6, home=-1 if seed % 3 else 0, medium=seed % 5 == 0)
    plan, run = heft(graph, platform), play(graph, platform, Heft())
    assert run.worker.tolist() == plan.worker.tolist()
    assert run.start.tolist() == plan.start.tolist()
    assert run.finish.tolist() == plan.finish.tolist()
    rows = [sorted(zip(s.messages.edge.tolist(), s.messages.begin.tolist(), strict=True)) for s in (plan, run)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("policy", [Fifo, CriticalPath, Heft])
@pytest.mark.parametrize("seed", range(12))
def test_what_any_policy_does_is_allowed(policy: type, seed: int) -> None:
    graph = random_graph(seed, 30, shared=seed % 2 == 0)
    platform = random_platform(seed, graph, 4, home=-1 if seed % 3 else 1, medium=seed % 4 == 0)
    found = play(graph, platform, policy())
    check(found, graph, platform)
    again = play(graph, platform, policy())
    assert found.record(graph, platform).digest() == again.record(graph, platform).digest()


def test_a_chain_takes_its_tasks_and_a_message_wherever_it_changes_worker() -> None:
    names = [f"t{i}" for i in range(6)]
    graph = TaskGraph.of(
        [Task(name=n, work=1) for n in names], [(a, b, 50.0) for a, b in itertools.pairwise(names)], unit="s"
    )
    alone = Platform.of({"x": [2.0] * 6})
    assert play(graph, alone, Fifo()).makespan == 12.0
    able = np.array([[1.0, np.inf] * 3, [np.inf, 1.0] * 3])
    turns = Platform.of({"x": able[0].tolist(), "y": able[1].tolist()}, rate=100.0, latency=0.25)
    found = play(graph, turns, Fifo())
    assert found.makespan == 6 * 1.0 + 5 * (0.25 + 50.0 / 100.0)
    assert found.moved_bytes(graph) == 250.0


def test_a_fork_of_equal_tasks_divides_and_its_data_share_the_port() -> None:
    leaves = [f"l{i}" for i in range(8)]
    graph = TaskGraph.of(
        [Task(name="root", work=1), *(Task(name=n, work=1) for n in leaves), Task(name="end", work=1)],
        [("root", n) for n in leaves] + [(n, "end") for n in leaves], unit="s",
    )  # fmt: skip
    free = Platform.of({w: [1.0] * 10 for w in "abcd"})
    assert play(graph, free, Fifo()).makespan == 1 + 8 / 4 + 1
    # each leaf but those of the root's own worker waits for a message of 10 s through the root's one port
    data = TaskGraph.of(
        [Task(name="root", work=1), *(Task(name=n, work=1) for n in leaves[:3])],
        [("root", n, 10.0) for n in leaves[:3]], unit="s",
    )  # fmt: skip
    slow = Platform.of({w: [1.0] * 4 for w in "abc"}, rate=1.0)
    found = play(data, slow, Fifo())
    assert sorted(found.finish.tolist()) == [1.0, 2.0, 12.0, 22.0]


def test_two_messages_on_one_link_follow_each_other_and_on_two_links_pass() -> None:
    graph = TaskGraph.of(
        [Task(name=n, work=1) for n in "abcd"], [("a", "c", 100.0), ("b", "d", 100.0)], unit="s"
    )  # fmt: skip
    inf = np.inf
    rows = {"w": [1, inf, inf, inf], "x": [inf, 1, inf, inf], "y": [inf, inf, 1, inf], "z": [inf, inf, inf, 1]}
    apart = Platform.of(rows, rate=100.0)
    assert play(graph, apart, Fifo()).finish.tolist() == [1.0, 1.0, 3.0, 3.0]
    apart.channels[:] = 0  # one medium for all
    together = play(graph, apart, Fifo())
    assert together.finish.tolist() == [1.0, 1.0, 3.0, 4.0]
    check(together, graph, apart)


def test_a_worker_that_shares_memory_needs_no_message() -> None:
    graph = TaskGraph.of([Task(name="a", work=1), Task(name="b", work=1)], [("a", "b", 1e9)], unit="s")
    platform = Platform.of({"x": [1, np.inf], "y": [np.inf, 1]}, rate=1.0)
    assert play(graph, platform, Fifo()).makespan == 2 + 1e9
    platform.node[:] = 0
    assert play(graph, platform, Fifo()).makespan == 2.0


def test_data_pushed_early_travel_while_the_worker_still_works() -> None:
    """Prefetch: what lies in a worker's queue has its data by the time the worker is free."""

    class ToY(Fifo):
        def push(self, task: int, view: View) -> int | None:
            return 0 if task == 0 else 1

        def pop(self, worker: int, view: View) -> int | None:
            return next(iter(view.queue(worker)), None)

    graph = TaskGraph.of([Task(name="a", work=1), Task(name="busy", work=1), Task(name="b", work=1)], [("a", "b", 5.0)],
                         unit="s")  # fmt: skip
    platform = Platform.of({"x": [1, 1, 1], "y": [9, 10, 1]}, rate=1.0)
    assert play(graph, platform, ToY()).start.tolist() == [0.0, 0.0, 10.0]


def test_illegal_decisions_are_refused_by_name() -> None:
    graph = TaskGraph.of([Task(name="a", work=1), Task(name="b", work=1)], [("a", "b")], unit="s")
    platform = Platform.of({"x": [1, 1], "y": [np.inf, 1]})

    def bad(push: object = None, pop: object = 0) -> Fifo:
        policy = Fifo()
        policy.push, policy.pop = lambda task, view: push, lambda worker, view: pop
        return policy

    for policy, said in (
        (bad(push=7), "names worker 7, of 2"), (bad(push=1), "names y, which cannot run it"),
        (bad(pop=1), "takes b, which is not ready"), (bad(pop=9), "takes 9, which is not ready"),
        (bad(pop=None), "leaves 2 tasks undone: 1 are ready, every worker is idle"),
    ):  # fmt: skip
        with pytest.raises(PolicyError, match=said):
            play(graph, platform, policy)


def test_what_fits_nowhere_is_refused_before_anything_runs() -> None:
    graph = TaskGraph.of([Task(name="big", work=1, memory=2e9)], unit="s")
    with pytest.raises(Infeasible, match="task big on one device needs 2 GB, have 1 GB"):
        play(graph, Platform.of({"x": [1]}, memory=1e9), Fifo())


def test_the_view_tells_what_is_queued_missing_and_on_its_way() -> None:
    graph = TaskGraph.of(
        [Task(name=n, work=1) for n in "abc"], [("a", "b", 10.0), ("a", "c", 20.0)], unit="s"
    )  # fmt: skip
    platform = Platform.of({"x": [1, 2, 4], "y": [2, 4, 8]}, rate=10.0)
    seen: list[tuple[float, ...]] = []

    class Watching(Fifo):
        def push(self, task: int, view: View) -> int | None:
            seen.append((task, view.now, view.fetch(task, 0), view.fetch(task, 1), view.free_at(1), view.n_ready))
            return 1 if task else 0

        def pop(self, worker: int, view: View) -> int | None:
            return next(iter(view.queue(worker)), None)

    found = play(graph, platform, Watching())
    # at 1 s a is done: b moves 10 B to y, then c 20 B behind it; y's queue holds 4 s when c comes
    assert seen == [(0, 0.0, 0.0, 0.0, 0.0, 1), (1, 1.0, 0.0, 1.0, 1.0, 2), (2, 1.0, 0.0, 2.0, 5.0, 2)]
    assert found.start.tolist() == [0.0, 2.0, 6.0]
