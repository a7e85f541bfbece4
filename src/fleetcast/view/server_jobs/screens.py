"""Jobs with parameter servers on a terminal: one outcome, or policies by rank."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from fleetcast.scenario.fleet.failures import duration
from fleetcast.scenario.load import ServerJobsScenario
from fleetcast.scenario.outcome import Outcome
from fleetcast.search.ranking import Ranking
from fleetcast.search.server_jobs import is_null
from fleetcast.view.jobs.screens import FIRST
from fleetcast.view.ranked import Shown, lasts, outcomes_table, ranked_view, shares, why
from fleetcast.view.tables import bullets

COLUMNS: Shown = {
    **lasts("jct.mean", "Completion"), **lasts("jct.p50", "p50"), **lasts("jct.p99", "p99"),
    **lasts("waits.mean", "Wait"), **lasts("makespan", "Makespan"), **shares("utilisation", "GPU used"),
}  # fmt: skip


def outcome_view(scenario: ServerJobsScenario, outcome: Outcome, width: int) -> RenderableType:
    """Returns one outcome."""
    return Group(
        Text(question(scenario, outcome), style="dim"), Text(),
        outcomes_table([outcome], COLUMNS, width), Text(),
        *_guard(outcome), bullets("Taken as given", list(outcome.notes), dim=True),
    )  # fmt: skip


def ranking_view(scenario: ServerJobsScenario, ranking: Ranking, width: int) -> RenderableType:
    """Returns the policies by rank."""
    best = ranking.best
    assert best is not None, "some policy always ranks first"
    return ranked_view(question(scenario, best), ranking, COLUMNS, why(ranking, is_null, FIRST), width)


def question(scenario: ServerJobsScenario, outcome: Outcome) -> str:
    """Returns what was asked, in a sentence."""
    said = scenario.workload
    return (
        f"{scenario.name}: {outcome.metrics['jobs']:,} jobs with parameter servers on {said.nodes:,} nodes, dealt out "
        f"anew every {duration(said.slot)}."
    )


def _guard(outcome: Outcome) -> list[RenderableType]:
    if "fallbacks" not in outcome.metrics:
        return []
    m = outcome.metrics
    return [Text(f"The guard dealt {m['fallbacks']:,} of {m['decisions']:,} slots."), Text()]
