"""What `fleetcast plan` and `fleetcast simulate` print and write of jobs with parameter servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fleetcast.base.errors import Unsupported
from fleetcast.base.files import write_atomic
from fleetcast.base.spec import dump_toml
from fleetcast.scenario.jobs_plan import read_jobs_plan
from fleetcast.scenario.load import ServerJobsScenario
from fleetcast.view import outputs, terminal, verbs
from fleetcast.view.terminal import Common

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fleetcast.scenario.outcome import Outcome

FILES = ("servers", "speeds")
"""Keys of a workload whose values may be paths."""


def simulate(scenario: ServerJobsScenario, common: Common) -> int:
    """Prints what jobs come to under the plan; returns 0."""
    with terminal.progress("playing jobs", common):
        outcome = verbs.simulate(scenario, record=False)
    written = write_outcome(common.out, scenario, outcome) if common.out is not None else []

    def view(width: int) -> RenderableType:
        from fleetcast.view.server_jobs.screens import outcome_view

        return outcome_view(scenario, outcome, width)

    terminal.show(common, outcome.table(), view, written)
    return 0


def plan(scenario: ServerJobsScenario, common: Common, *, top: int, report: Path | None) -> int:
    """Prints the policies by rank; returns 0.

    Raises:
        Unsupported: a report was asked for.
    """
    if report is not None:
        raise Unsupported("--report: of jobs there is no page yet", "Leave it out, and keep tables with --json")
    with terminal.progress("playing policies", common) as step:
        ranking = verbs.plan(scenario, top=None, progress=step)
    written = []
    if common.out is not None:
        assert ranking.best is not None, "some policy always ranks first"
        chosen = scenario.with_plan(read_jobs_plan(ranking.best.plan))
        written += write_outcome(common.out, scenario, verbs.simulate(chosen, record=False))
        written.append(write_atomic(common.out / "outcome.json", outputs.to_json(ranking.table())))

    def view(width: int) -> RenderableType:
        from fleetcast.view.server_jobs.screens import ranking_view

        return ranking_view(scenario, ranking, width)

    terminal.show(common, ranking.table(), view, list(dict.fromkeys(written)))
    return 0


def write_outcome(folder: Path, scenario: ServerJobsScenario, outcome: Outcome) -> list[Path]:
    """Writes an outcome's plan.toml and outcome.json; returns their paths."""
    chosen = scenario.with_plan(read_jobs_plan(outcome.plan))
    table = outputs.moved(chosen.table(), FILES, Path(scenario.folder), folder)
    return [
        write_atomic(folder / "plan.toml", dump_toml(table)),
        write_atomic(folder / "outcome.json", outputs.to_json(outcome.table())),
    ]
