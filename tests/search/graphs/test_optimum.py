"""The exact schedule: equal to brute force, and no policy beats it."""

from __future__ import annotations

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import kinds
from fleetcast.cost.graphs.platform import Platform
from fleetcast.policy.order import tasks
from fleetcast.scenario.workload.graphs import Task, TaskGraph
from fleetcast.search.graphs.optimum import optimum
from fleetcast.sim.graph.world import play
from tests.cost.graphs.cases import brute_force, random_graph, random_platform

pytest.importorskip("ortools", reason="ortools is not installed")


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_every_order_and_placement(seed: int) -> None:
    graph = random_graph(seed, 4, density=0.5, shared=seed % 2 == 0)
    platform = random_platform(seed, graph, 2 + seed % 2, home=0 if seed % 3 == 0 else -1, medium=seed % 4 == 3)
    found = optimum(graph, platform)
    assert found.proven
    # brute force decides messages in the order of tasks, which may be a little worse than any order of messages
    assert found.makespan <= brute_force(graph, platform) * (1 + 1e-5)
    assert found.bound == pytest.approx(found.makespan, rel=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_no_policy_beats_it(seed: int) -> None:
    graph = random_graph(seed, 14, density=0.2)
    platform = random_platform(seed, graph, 3)
    found = optimum(graph, platform, effort=5.0)
    for policy in kinds(tasks).values():
        assert play(graph, platform, policy()).makespan >= found.bound * (1 - 1e-4), policy


def test_a_chain_and_equal_tasks_in_closed_form() -> None:
    chain = TaskGraph.of(
        [Task(name=f"t{i}", work=1) for i in range(5)], [(f"t{i}", f"t{i + 1}", 8.0) for i in range(4)], unit="s"
    )
    platform = Platform.of({"x": [2.0] * 5, "y": [1.0] * 5}, rate=1.0)
    assert optimum(chain, platform).makespan == pytest.approx(5.0, rel=1e-5)
    alike = TaskGraph.of([Task(name=f"t{i}", work=1) for i in range(7)], unit="s")
    assert optimum(alike, Platform.of({w: [1.0] * 7 for w in "abc"})).makespan == pytest.approx(3.0, rel=1e-5)


def test_a_large_graph_is_refused() -> None:
    graph = TaskGraph.of([Task(name=f"t{i}", work=1) for i in range(60)], unit="s")
    with pytest.raises(SpecError, match="too large for an exact schedule"):
        optimum(graph, Platform.of({"x": np.ones(60).tolist()}))
