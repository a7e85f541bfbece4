"""Bounds: never above what brute force reaches, equal to closed forms, and to the linear programme written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from fleetcast.cost.graphs.bounds import able_seconds, area, critical_path, lower_bound
from fleetcast.cost.graphs.platform import Platform
from fleetcast.cost.graphs.schedule import heft
from fleetcast.scenario.workload.graphs import Task, TaskGraph
from tests.cost.graphs.cases import brute_force, random_graph, random_platform


@pytest.mark.parametrize("seed", range(8))
def test_no_order_and_placement_ends_before_the_bound(seed: int) -> None:
    graph = random_graph(seed, 4, density=0.4, shared=seed % 2 == 0)
    platform = random_platform(seed, graph, 2, home=seed % 3 - 1)
    assert lower_bound(graph, platform) <= brute_force(graph, platform) * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_the_area_is_that_of_the_whole_linear_programme(seed: int) -> None:
    graph = random_graph(seed, 25)
    platform = random_platform(seed, graph, 5)
    seconds, count = able_seconds(graph, platform), np.bincount(platform.kind)
    kinds, n = seconds.shape
    able = np.isfinite(seconds)
    cost = np.append(np.zeros(kinds * n), 1.0)
    rows = np.zeros((kinds, kinds * n + 1))
    for k in range(kinds):
        rows[k, k * n : (k + 1) * n] = np.where(able[k], seconds[k], 0.0)
        rows[k, -1] = -count[k]
    once = np.hstack([np.tile(np.eye(n), kinds), np.zeros((n, 1))])
    limits = [(0, None if able[k, t] else 0) for k in range(kinds) for t in range(n)] + [(0, None)]
    exact = linprog(cost, A_ub=rows, b_ub=np.zeros(kinds), A_eq=once, b_eq=np.ones(n), bounds=limits, method="highs")
    assert area(graph, platform) == pytest.approx(exact.fun, rel=1e-7)


def test_closed_forms_of_chains_and_of_tasks_that_stand_alone() -> None:
    names = [f"t{i}" for i in range(4)]
    tasks = [Task(name=n, work=1) for n in names]
    chain = TaskGraph.of(tasks, list(itertools.pairwise(names)), unit="s")
    platform = Platform.of({"x": [4, 1, 4, 1], "y": [1, 4, 1, 4]})
    assert critical_path(chain, platform) == lower_bound(chain, platform) == 4.0
    alone = TaskGraph.of(tasks, unit="s")
    assert area(alone, platform) == pytest.approx(2.0)
    assert lower_bound(alone, Platform.of({"x": [3, 3, 3, 3]})) == 12.0
    # one price a kind: x is twice as quick at everything, so it does two thirds
    assert area(alone, Platform.of({"x": [1] * 4, "y": [2] * 4})) == pytest.approx(4 * 2 / 3)


def test_what_must_follow_or_come_before_is_added_to_the_area() -> None:
    # ten equal tasks on two workers, and only then a long one; neither chain nor area alone says 5 + 8
    tasks = [Task(name=f"t{i}", work=1) for i in range(10)] + [Task(name="end", work=8)]
    graph = TaskGraph.of(tasks, [(f"t{i}", "end") for i in range(10)], unit="s")
    platform = Platform.of({"x": [1] * 10 + [8], "y": [1] * 10 + [8]}, kinds=["k", "k"], rate=1e30)
    assert critical_path(graph, platform) == 9.0
    assert area(graph, platform) == 9.0
    assert lower_bound(graph, platform) == heft(graph, platform).makespan == 13.0
    turned = TaskGraph.of(tasks, [("end", f"t{i}") for i in range(10)], unit="s")
    assert lower_bound(turned, platform) == 13.0


def test_a_kind_without_the_memory_does_not_count() -> None:
    graph = TaskGraph.of([Task(name="a", work=1, memory=10), Task(name="b", work=1)], unit="s")
    platform = Platform.of({"x": [1, 1], "y": [8, 8]}, memory=[5.0, 50.0])
    assert critical_path(graph, platform) == 8.0
    assert lower_bound(graph, platform) == 8.0
