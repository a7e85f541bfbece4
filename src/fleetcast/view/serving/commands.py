"""What `fleetcast plan` and `fleetcast simulate` print and write of requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fleetcast.base.files import write_atomic
from fleetcast.scenario.load import ServingScenario
from fleetcast.view import outputs, terminal, verbs
from fleetcast.view.terminal import Common
from fleetcast.view.timeline import shortened


def plan(scenario: ServingScenario, common: Common, *, top: int, report: Path | None) -> int:
    """Prints the ranked plans; returns 1 where none meets the SLO, else 0."""
    with terminal.progress("simulating plans", common) as step:
        ranking = verbs.plan(scenario, top=top or None, progress=step)
    best = ranking.best or (ranking.misses[0] if ranking.misses else None)
    if best is not None and (common.out or report):
        # The figures over time need the event record, which a search does not keep.
        best = verbs.simulate(outputs.decided(scenario, best), record=True)
    written = []
    if common.out is not None:
        written += outputs.write_ranking(common.out, scenario, ranking, best)
    if report is not None:
        from fleetcast.view.report import plan_report

        written.append(write_atomic(report, plan_report(scenario, ranking, best)))

    def view(width: int) -> Any:
        if scenario.workload.exits is None:
            return terminal.tables().ranking_view(scenario, ranking, width)
        from fleetcast.view.tiers import cascades_view

        return cascades_view(scenario, ranking)

    terminal.show(common, ranking.table(), view, written)
    return 0 if ranking.best is not None else 1


def simulate(scenario: ServingScenario, common: Common) -> int:
    """Prints what happens under the scenario's plan."""
    with terminal.progress("simulating", common):
        outcome = verbs.simulate(scenario, record=common.out is not None)
    written = outputs.write_outcome(common.out, scenario, outcome) if common.out is not None else []
    note = shortened(outcome.record) if written else ""
    terminal.show(
        common, outcome.table(), lambda width: terminal.tables().outcome_view(scenario, outcome, width), written, note
    )
    return 0
