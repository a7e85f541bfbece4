"""PEFT: equal to the textbook's, in both forms; its optimistic costs against a definition by recursion."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from fleetcast.cost.graphs import schedule as schedules
from fleetcast.cost.graphs.platform import Platform
from fleetcast.cost.graphs.schedule import check, heft, peft
from fleetcast.scenario.workload.graphs import Task, TaskGraph
from tests.cost.graphs.cases import Textbook, random_graph, random_platform


def recursion(graph: TaskGraph, platform: Platform) -> Callable[[int, int], float]:
    """The optimistic cost of (task, worker), worker by worker."""
    latency, pace = platform.usual
    tails, children, sizes = graph.parent_of_edge.tolist(), graph.child.tolist(), graph.size.tolist()

    @functools.cache
    def cost(task: int, p: int) -> float:
        ways = [
            min(
                cost(child, q) + float(platform.seconds[platform.kind[q], child]) + (latency + pace * size) * (q != p)
                for q in range(len(platform))
            )
            for tail, child, size in zip(tails, children, sizes, strict=True)
            if tail == task
        ]
        return max(ways, default=0.0)

    return cost


@pytest.mark.parametrize("seed", range(24))
def test_the_textbook_and_both_forms_give_the_same_schedule(
    seed: int, twins: Callable[[str], tuple[ModuleType, ModuleType]], monkeypatch: pytest.MonkeyPatch
) -> None:
    workers, n = 1 + seed % 5, 1 + 2 * seed
    graph = random_graph(seed, n, shared=seed % 2 == 0)
    platform = random_platform(seed, graph, workers, home=0 if seed % 3 == 0 else -1, medium=seed % 4 == 0)
    found = peft(graph, platform)
    check(found, graph, platform)
    cost, slow, left = recursion(graph, platform), Textbook(graph, platform), set(range(n))
    rank = {t: sum(cost(t, p) for p in range(workers)) / workers for t in left}
    while left:
        ready = [t for t in left if not left & set(graph.parents(t).tolist())]
        task = max(ready, key=lambda t: (round(rank[t], 9), -t))
        able = slow.able(task)
        slow.try_on(task, min(able, key=lambda d: (slow.try_on(task, d)[1] + cost(task, d), d)), keep=True)
        left.remove(task)
    assert found.worker.tolist() == [slow.worker[t] for t in range(n)]
    assert found.start.tolist() == pytest.approx([slow.span[t][0] for t in range(n)])
    for loop, dag in zip(twins("fleetcast.kernels.heft"), twins("fleetcast.kernels.dag"), strict=True):
        monkeypatch.setattr(schedules, "loop", loop)
        monkeypatch.setattr(schedules, "dag", dag)
        again = peft(graph, platform)
        assert again.start.tolist() == found.start.tolist()
        assert again.worker.tolist() == found.worker.tolist()


def test_looking_ahead_keeps_a_task_where_what_follows_is_quick() -> None:
    # a is a little quicker on x, all that follows runs on y alone and needs a's data: HEFT is caught, PEFT is not
    graph = TaskGraph.of(
        [Task(name="a", work=1), Task(name="b", work=1)], [("a", "b", 10.0)], unit="s"
    )  # fmt: skip
    platform = Platform.of({"x": [1.0, np.inf], "y": [1.5, 1.0]}, rate=1.0)
    assert heft(graph, platform).makespan == 1.0 + 10.0 + 1.0
    assert peft(graph, platform).makespan == 1.5 + 1.0
