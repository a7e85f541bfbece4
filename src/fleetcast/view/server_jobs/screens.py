"""Jobs with parameter servers on a terminal: one outcome, or policies by rank."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from fleetcast.scenario.fleet.failures import duration
from fleetcast.scenario.load import ServerJobsScenario
from fleetcast.scenario.outcome import Outcome
from fleetcast.search.ranking import Ranking, label
from fleetcast.view.tables import bullets, rows_table

HEADS = ("Policy", "Completion", "p50", "p99", "Wait", "Makespan", "GPU used")


def outcome_view(scenario: ServerJobsScenario, outcome: Outcome, width: int) -> RenderableType:
    """Returns one outcome."""
    return Group(
        Text(question(scenario, outcome), style="dim"), Text(),
        rows_table(HEADS, [_row(outcome)], right=(1, 2, 3, 4, 5, 6), width=width), Text(),
        *_guard(outcome), bullets("Taken as given", list(outcome.notes), dim=True),
    )  # fmt: skip


def ranking_view(scenario: ServerJobsScenario, ranking: Ranking, width: int) -> RenderableType:
    """Returns the policies by rank."""
    best = ranking.best
    assert best is not None, "some policy always ranks first"
    return Group(
        Text(question(scenario, best), style="dim"), Text(), Text.assemble("Best: ", (label(best), "bold")), Text(),
        rows_table(HEADS, [_row(outcome) for outcome in ranking.plans], right=(1, 2, 3, 4, 5, 6), width=width), Text(),
        bullets("Space searched", list(ranking.space), dim=True),
        bullets("Taken as given", list(best.notes), dim=True),
    )  # fmt: skip


def question(scenario: ServerJobsScenario, outcome: Outcome) -> str:
    """Returns what was asked, in a sentence."""
    said = scenario.workload
    return (
        f"{scenario.name}: {outcome.metrics['jobs']:,} jobs with parameter servers on {said.nodes:,} nodes, dealt out "
        f"anew every {duration(said.slot)}."
    )


def _row(outcome: Outcome) -> tuple[str, ...]:
    m = outcome.metrics
    return (
        label(outcome), *(duration(m["jct"][key]) for key in ("mean", "p50", "p99")), duration(m["waits"]["mean"]),
        duration(m["makespan"]), f"{m['utilisation']:.0%}",
    )  # fmt: skip


def _guard(outcome: Outcome) -> list[RenderableType]:
    if "fallbacks" not in outcome.metrics:
        return []
    m = outcome.metrics
    return [Text(f"The guard dealt {m['fallbacks']:,} of {m['decisions']:,} slots."), Text()]
