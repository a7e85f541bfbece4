"""The walks over a graph in both forms: an order, the longest way to the end."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from fleetcast.cost.graphs.platform import Platform
from fleetcast.kernels import dag
from fleetcast.scenario.workload.graphs import TaskGraph
from tests.cost.graphs.cases import random_graph


def longest(graph: TaskGraph, weight: np.ndarray, gap: np.ndarray, task: int) -> float:
    ends = range(graph.first[task], graph.first[task + 1])
    return weight[task] + max((gap[e] + longest(graph, weight, gap, int(graph.child[e])) for e in ends), default=0.0)


@pytest.mark.parametrize("seed", range(6))
def test_both_forms_walk_alike_and_the_longest_way_is_the_longest(
    seed: int, twins: Callable[[str], tuple[ModuleType, ModuleType]]
) -> None:
    graph = random_graph(seed, 12)
    draw = np.random.default_rng(seed)
    weight, gap = draw.uniform(0, 5, len(graph)), draw.uniform(0, 5, graph.edges)
    for form in twins("fleetcast.kernels.dag"):
        order = form.topological(graph.first, graph.child)
        assert order.tolist() == graph.order.tolist()
        ranks = form.upward(order, graph.first, graph.child, weight, gap)
        assert ranks.tolist() == [pytest.approx(longest(graph, weight, gap, t), rel=1e-12) for t in range(len(graph))]


def test_walks_of_nothing_and_of_a_cycle() -> None:
    assert dag.topological(np.zeros(1, np.int64), np.empty(0, np.int32)).tolist() == []
    assert dag.topological(np.array([0, 1, 2]), np.array([1, 0], np.int32)).tolist() == []
    assert dag.upward(np.array([0]), np.array([0, 0]), np.empty(0, np.int32), [2.0], []).tolist() == [2.0]


def test_the_mean_counts_workers_that_can_run_a_task() -> None:
    platform = Platform.of({"x": [1, np.inf], "y": [3, 5], "z": [3, 5]}, kinds=["a", "b", "b"])
    assert platform.mean.tolist() == [7 / 3, 5.0]
    assert platform.usual == (0.0, 1e-9)
