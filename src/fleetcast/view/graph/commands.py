"""What `fleetcast plan`, `fleetcast simulate` and `fleetcast run` print and write of a task graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fleetcast.base.errors import Unsupported
from fleetcast.base.files import write_atomic
from fleetcast.scenario.kinds.graph import read_graph_plan
from fleetcast.scenario.load import GraphScenario, dump
from fleetcast.view import outputs, terminal, verbs
from fleetcast.view.terminal import Common
from fleetcast.view.timeline import shortened, trace_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fleetcast.scenario.outcome import Outcome
    from fleetcast.view.graph.agents import Agents


def simulate(scenario: GraphScenario, common: Common) -> int:
    """Prints what happens under the plan's order."""
    with terminal.progress("playing the graph", common):
        outcome = verbs.simulate(scenario, record=True)
    written = write_outcome(common.out, scenario, outcome) if common.out is not None else []
    _show(scenario, outcome, common, written)
    return 0


def run(scenario: GraphScenario, common: Common, agents: Agents) -> int:
    """Prints what agents made of the graph; returns 1 where a task failed, else 0."""
    with terminal.progress("tasks", common) as step:
        outcome = verbs.run(scenario, agents=agents, record=True, progress=step)
    written = write_outcome(common.out, scenario, outcome) if common.out is not None else []
    _show(scenario, outcome, common, written)
    return 1 if outcome.metrics["failed"] else 0


def plan(scenario: GraphScenario, common: Common, *, top: int, report: Path | None) -> int:
    """Prints the order policies by rank.

    Raises:
        Unsupported: a report was asked for.
    """
    if report is not None:
        raise Unsupported("--report: of a graph there is no page yet", "Leave it out, and keep tables with --json")
    with terminal.progress("playing policies", common) as step:
        ranking = verbs.plan(scenario, top=None, progress=step)
    written = []
    if common.out is not None:
        assert ranking.best is not None
        chosen = scenario.with_plan(read_graph_plan(ranking.best.plan))
        written += write_outcome(common.out, scenario, verbs.simulate(chosen, record=True))
        written.append(write_atomic(common.out / "outcome.json", outputs.to_json(ranking.table())))

    def view(width: int) -> RenderableType:
        from fleetcast.view.graph.screens import ranking_view

        return ranking_view(scenario, ranking, width)

    terminal.show(common, ranking.table(), view, list(dict.fromkeys(written)))
    return 0


def _show(scenario: GraphScenario, outcome: Outcome, common: Common, written: Sequence[Path]) -> None:
    def view(width: int) -> RenderableType:
        from fleetcast.view.graph.screens import outcome_view

        return outcome_view(scenario, outcome, width)

    terminal.show(common, outcome.table(), view, written, shortened(outcome.record) if written else "")


def write_outcome(folder: Path, scenario: GraphScenario, outcome: Outcome) -> list[Path]:
    """Writes an outcome's plan.toml, outcome.json and trace.json.gz; returns their paths."""
    chosen = scenario.with_plan(read_graph_plan(outcome.plan))
    found = [
        write_atomic(folder / "plan.toml", dump(outputs.redrawn(chosen, folder))),
        write_atomic(folder / "outcome.json", outputs.to_json(outcome.table())),
    ]
    if outcome.record is not None:
        log = trace_bytes(outcome.record, name=scenario.name, numbered=True)
        found.append(write_atomic(folder / "trace.json.gz", log))
    return found
