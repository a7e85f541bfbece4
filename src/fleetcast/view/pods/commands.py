"""What `fleetcast plan` and `fleetcast simulate` print and write of pods on nodes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.base.files import write_atomic
from fleetcast.base.spec import dump_toml
from fleetcast.scenario.load import PodsScenario
from fleetcast.scenario.pods_plan import read_pods_plan
from fleetcast.view import outputs, terminal, verbs
from fleetcast.view.terminal import Common
from fleetcast.view.timeline import trace_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fleetcast.scenario.outcome import Outcome
    from fleetcast.view.scheduling import Cluster

FILES = ("pods", "nodes")
"""Keys of a workload whose values may be paths."""


def simulate(scenario: PodsScenario, common: Common) -> int:
    """Prints what pods come to under the plan; returns 0."""
    with terminal.progress("placing pods", common):
        outcome = verbs.simulate(scenario, record=common.out is not None)
    written = write_outcome(common.out, scenario, outcome) if common.out is not None else []

    def view(width: int) -> RenderableType:
        from fleetcast.view.pods.screens import outcome_view

        return outcome_view(scenario, outcome, width)

    terminal.show(common, outcome.table(), view, written)
    return 0


def schedule(scenario: PodsScenario, common: Common, cluster: Cluster) -> int:
    """Prints what the plan's policy did on a cluster; returns 0, or 1 where pods still wait.

    Raises:
        SpecError: no cluster is asked for.
    """
    if cluster.on is None:
        raise SpecError(
            "--on", "is missing", limit="kubernetes", hint="Say --on kubernetes, or to try it: --on kubernetes --double"
        )
    outcome = verbs.run(scenario, cluster=cluster)
    written = [write_atomic(common.out / "outcome.json", outputs.to_json(outcome.table()))] if common.out else []

    def view(width: int) -> RenderableType:
        from fleetcast.view.scheduling import scheduled_view

        return scheduled_view(outcome, width)

    terminal.show(common, outcome.table(), view, written)
    return 1 if outcome.metrics["unplaced"] else 0


def plan(scenario: PodsScenario, common: Common, *, top: int, report: Path | None) -> int:
    """Prints the policies by rank; returns 0.

    Raises:
        Unsupported: a report was asked for.
    """
    if report is not None:
        raise Unsupported("--report: of pods there is no page yet", "Leave it out, and keep tables with --json")
    with terminal.progress("playing policies", common) as step:
        ranking = verbs.plan(scenario, top=None, progress=step)
    written = []
    if common.out is not None:
        assert ranking.best is not None, "some policy always ranks first"
        chosen = scenario.with_plan(read_pods_plan(ranking.best.plan))
        written += write_outcome(common.out, scenario, verbs.simulate(chosen, record=True))
        written.append(write_atomic(common.out / "outcome.json", outputs.to_json(ranking.table())))

    def view(width: int) -> RenderableType:
        from fleetcast.view.pods.screens import ranking_view

        return ranking_view(scenario, ranking, width)

    terminal.show(common, ranking.table(), view, list(dict.fromkeys(written)))
    return 0


def write_outcome(folder: Path, scenario: PodsScenario, outcome: Outcome) -> list[Path]:
    """Writes an outcome's plan.toml, outcome.json and trace.json.gz; returns their paths."""
    chosen = scenario.with_plan(read_pods_plan(outcome.plan))
    table = outputs.moved(chosen.table(), FILES, Path(scenario.folder), folder)
    found = [
        write_atomic(folder / "plan.toml", dump_toml(table)),
        write_atomic(folder / "outcome.json", outputs.to_json(outcome.table())),
    ]
    if outcome.record is not None and len(outcome.record):
        found.append(write_atomic(folder / "trace.json.gz", trace_bytes(outcome.record, name=scenario.name)))
    return found
