"""What `fleetcast plan` and `fleetcast simulate` print and write of a training scenario."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fleetcast.base.errors import Unsupported
from fleetcast.base.files import write_atomic
from fleetcast.scenario.load import dump
from fleetcast.scenario.training_plan import read_training_plan
from fleetcast.view import outputs, terminal, verbs, worlds
from fleetcast.view.terminal import Common
from fleetcast.view.timeline import trace_bytes

if TYPE_CHECKING:
    from fleetcast.scenario.load import TrainingScenario
    from fleetcast.scenario.outcome import Outcome


def simulate(scenario: TrainingScenario, common: Common) -> int:
    """Prints what an iteration takes; returns 1 where the plan does not fit, else 0."""
    outcome = verbs.simulate(scenario)
    written = write_outcome(common.out, scenario, outcome) if common.out is not None else []
    if common.json:
        terminal.print_json(outcome.table())
    else:
        from fleetcast.view.training.screens import iteration_view

        console = terminal.screen()
        console.print(iteration_view(scenario, outcome, console.width))
        terminal.say_written(console, written)
    return 0 if outcome.metrics["fits"] else 1


def plan(scenario: TrainingScenario, common: Common, *, top: int, report: Path | None) -> int:
    """Prints the ranked plans; returns 1 where none fits, else 0.

    Raises:
        Unsupported: a report was asked for.
    """
    if report is not None:
        raise Unsupported("--report: of training there is no page yet", "Leave it out, and keep tables with --json")
    with terminal.progress("timing plans", common) as step:
        ranking = verbs.plan(scenario, top=top or None, progress=step)
    written = []
    if common.out is not None:
        if ranking.best is not None:
            written += write_outcome(common.out, scenario, ranking.best)
        written.append(write_atomic(common.out / "outcome.json", outputs.to_json(ranking.table())))
    if common.json:
        terminal.print_json(ranking.table())
    else:
        from fleetcast.view.training.screens import ranking_view

        console = terminal.screen()
        console.print(ranking_view(scenario, ranking, console.width))
        terminal.say_written(console, list(dict.fromkeys(written)))
    return 0 if ranking.best is not None else 1


def write_outcome(folder: Path, scenario: TrainingScenario, outcome: Outcome) -> list[Path]:
    """Writes an outcome's plan.toml, outcome.json and, of a pipeline, trace.json.gz; returns their paths."""
    chosen = scenario.with_plan(read_training_plan(dict(outcome.plan)))
    found = [
        write_atomic(folder / "plan.toml", dump(outputs.relocated(chosen, folder))),
        write_atomic(folder / "outcome.json", outputs.to_json(outcome.table())),
    ]
    if scenario.workload.features is None and (log := worlds.training.timeline(chosen)) is not None:
        found.append(write_atomic(folder / "trace.json.gz", trace_bytes(log, name=f"an iteration of {scenario.name}")))
    return found
