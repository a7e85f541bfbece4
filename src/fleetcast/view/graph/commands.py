"""What `fleetcast plan`, `fleetcast simulate` and `fleetcast run` print and write of a task graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleetcast.scenario.kinds.graph import read_graph_plan
from fleetcast.scenario.load import GraphScenario
from fleetcast.view import terminal, verbs
from fleetcast.view.played import Played
from fleetcast.view.terminal import Common

if TYPE_CHECKING:
    from fleetcast.view.graph.agents import Agents

_GRAPH = Played(
    "a graph", "playing the graph", "fleetcast.view.graph.screens", read_graph_plan, files=("graph",), recorded=True,
    numbered=True,
)  # fmt: skip
simulate, plan = _GRAPH.simulate, _GRAPH.plan


def run(scenario: GraphScenario, common: Common, agents: Agents) -> int:
    """Prints what agents made of the graph; returns 1 where a task failed, else 0."""
    with terminal.progress("tasks", common) as step:
        outcome = verbs.run(scenario, agents=agents, record=True, progress=step)
    _GRAPH.show(scenario, outcome, common)
    return 1 if outcome.metrics["failed"] else 0
