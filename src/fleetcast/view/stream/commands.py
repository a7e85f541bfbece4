"""What `fleetcast plan`, `fleetcast simulate` and `fleetcast run` print and write of a stream."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fleetcast.base.errors import Unsupported
from fleetcast.base.files import write_atomic
from fleetcast.base.spec import dump_toml
from fleetcast.scenario.load import StreamScenario
from fleetcast.scenario.stream_plan import read_stream_plan
from fleetcast.view import outputs, terminal, verbs
from fleetcast.view.terminal import Common
from fleetcast.view.timeline import trace_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fleetcast.scenario.outcome import Outcome


def simulate(scenario: StreamScenario, common: Common) -> int:
    """Prints what a pipeline draws, keeps and takes; returns 0."""
    outcome = verbs.simulate(scenario, record=common.out is not None)
    return _show(scenario, outcome, common)


def run(scenario: StreamScenario, common: Common) -> int:
    """Runs the pipeline as processes here, and prints what was measured; returns 0."""
    return _show(scenario, verbs.run(scenario), common)


def _show(scenario: StreamScenario, outcome: Outcome, common: Common) -> int:
    written = _write(common.out, scenario, outcome) if common.out is not None else []

    def view(width: int) -> RenderableType:
        from fleetcast.view.stream.screens import outcome_view

        return outcome_view(scenario, outcome, width)

    terminal.show(common, outcome.table(), view, written)
    return 0


def plan(scenario: StreamScenario, common: Common, *, top: int, report: Path | None) -> int:
    """Prints the ranked plans; returns 0.

    Raises:
        Unsupported: a report was asked for.
    """
    if report is not None:
        raise Unsupported("--report: of streams there is no page yet", "Leave it out, and keep tables with --json")
    with terminal.progress("simulating plans", common) as step:
        ranking = verbs.plan(scenario, top=top or None, progress=step)
    written = []
    if common.out is not None:
        assert ranking.best is not None, "the pipeline as it is always stands in the ranking"
        written = _write(common.out, scenario, ranking.best)
        written[-1] = write_atomic(common.out / "outcome.json", outputs.to_json(ranking.table()))

    def view(width: int) -> RenderableType:
        from fleetcast.view.stream.screens import ranking_view

        return ranking_view(scenario, ranking, width)

    terminal.show(common, ranking.table(), view, written)
    return 0


def _write(folder: Path, scenario: StreamScenario, outcome: Outcome) -> list[Path]:
    """Writes plan.toml, trace.json.gz, where there is a record, and outcome.json; returns their paths."""
    chosen = scenario.with_plan(read_stream_plan(dict(outcome.plan))).table()
    table = outputs.moved(chosen, ("system", "file"), Path(scenario.folder), folder)
    found = [write_atomic(folder / "plan.toml", dump_toml(table))]
    if outcome.record is not None and len(outcome.record):
        found.append(write_atomic(folder / "trace.json.gz", trace_bytes(outcome.record, name=scenario.name)))
    found.append(write_atomic(folder / "outcome.json", outputs.to_json(outcome.table())))
    return found
