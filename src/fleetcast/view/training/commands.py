"""What `fleetcast plan` and `fleetcast simulate` print and write of a training scenario."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.base.files import write_atomic
from fleetcast.base.spec import dump_toml
from fleetcast.scenario.load import Scenario, TrainingScenario
from fleetcast.scenario.training_plan import read_training_plan
from fleetcast.view import outputs, terminal, verbs, worlds
from fleetcast.view.terminal import Common
from fleetcast.view.timeline import trace_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking


def simulate(scenario: TrainingScenario, common: Common) -> int:
    """Prints what an iteration takes; returns 1 where the plan does not fit, else 0."""
    outcome = verbs.simulate(scenario)
    written = write_outcome(common.out, scenario, outcome) if common.out is not None else []

    def view(width: int) -> RenderableType:
        from fleetcast.view.training.screens import iteration_view

        return iteration_view(scenario, outcome, width)

    terminal.show(common, outcome.table(), view, written)
    return 0 if outcome.metrics["fits"] else 1


LAUNCHES = 100
"""Plans that a learned search launches where nothing else is asked for."""


def launches(scenario: Scenario, learned: bool, evaluations: int | None, history: Path | None) -> int | None:
    """Returns how many plans a learned search launches; None = all are asked, no search is learned.

    Raises:
        SpecError: options of a learned search without it, or no launch.
        Unsupported: another kind of scenario, or one without a model.
    """
    if not learned:
        if evaluations is not None or history is not None:
            name = "evaluations" if evaluations is not None else "history"
            raise SpecError(
                f"--{name}", "says how a learned search goes", limit="beside --learned", hint="Add --learned"
            )
        return None
    if not isinstance(scenario, TrainingScenario) or scenario.workload.features is not None:
        raise Unsupported(
            "--learned: only plans of one model to train are searched so", "Leave it out: every plan is looked at"
        )
    if evaluations is not None and evaluations < 1:
        raise SpecError("--evaluations", "is out of range", value=evaluations, limit="a whole number from 1")
    return LAUNCHES if evaluations is None else evaluations


def plan(
    scenario: TrainingScenario, common: Common, *, top: int, report: Path | None, launches: int | None = None,
    history: Path | None = None,
) -> int:  # fmt: skip
    """Prints the ranked plans; returns 1 where none fits, else 0."""
    with terminal.progress("timing plans", common) as step:
        if launches is None:
            ranking = verbs.plan(scenario, top=top or None, progress=step)
        else:
            ranking = verbs.plan_learned(
                scenario, evaluations=launches, top=top or None, history=history, progress=step
            )
    written = []
    if common.out is not None:
        if ranking.best is not None:
            written += write_outcome(common.out, scenario, ranking.best)
        written.append(write_atomic(common.out / "outcome.json", outputs.to_json(ranking.table())))
    if report is not None:
        written.append(write_report(report, scenario, ranking, common))

    def view(width: int) -> RenderableType:
        from fleetcast.view.training.screens import ranking_view

        return ranking_view(scenario, ranking, width)

    terminal.show(common, ranking.table(), view, list(dict.fromkeys(written)))
    return 0 if ranking.best is not None else 1


def write_report(file: Path, scenario: TrainingScenario, ranking: Ranking, common: Common) -> Path:
    """Writes the page of a search: with the best plans within less memory, and the best plan's pipeline."""
    from fleetcast.search.training.frontier import frontier
    from fleetcast.view.training.report import plan_report

    lean: tuple[Outcome, ...] = ()
    log = None
    if scenario.workload.features is None:
        with terminal.progress("looking for plans with less memory", common):
            lean = frontier(worlds.training.setting(scenario))
        if ranking.best is not None:
            log = worlds.training.timeline(scenario.with_plan(read_training_plan(dict(ranking.best.plan))))
    return write_atomic(file, plan_report(scenario, ranking, lean, log))


def write_outcome(folder: Path, scenario: TrainingScenario, outcome: Outcome) -> list[Path]:
    """Writes an outcome's plan.toml, outcome.json and, of a pipeline, trace.json.gz; returns their paths."""
    chosen = scenario.with_plan(read_training_plan(dict(outcome.plan)))
    found = [
        write_atomic(folder / "plan.toml", dump_toml(outputs.rewritten(chosen, ("model", "practice"), folder))),
        write_atomic(folder / "outcome.json", outputs.to_json(outcome.table())),
    ]
    if scenario.workload.features is None and (log := worlds.training.timeline(chosen)) is not None:
        found.append(write_atomic(folder / "trace.json.gz", trace_bytes(log, name=f"an iteration of {scenario.name}")))
    return found
