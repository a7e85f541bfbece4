"""Several tasks trained together: the verbs of a scenario with ``workload.tasks``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fleetcast.scenario.load import MultitaskScenario

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking
    from fleetcast.view.checks import Remark

LOOKS: Final = "fleetcast.view.training.screens"


def plan(
    scenario: MultitaskScenario, *, top: int | None, progress: Callable[[int, int], None] | None = None
) -> Ranking:
    """Returns waves beside what is done without them, quickest first."""
    from fleetcast.search.waves.search import search

    return search(scenario, top=top)


def simulate(scenario: MultitaskScenario, *, record: bool = False) -> Outcome:
    """Returns an iteration in waves: a file decides nothing of them, so they are planned."""
    return next(outcome for outcome in plan(scenario, top=None).plans if outcome.plan["way"] == "waves")


def check(scenario: MultitaskScenario) -> list[Remark]:
    """Returns nothing: reading the file has checked all there is."""
    return []
