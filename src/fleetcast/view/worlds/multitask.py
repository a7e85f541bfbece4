"""Several tasks trained together: the verbs of a scenario with ``workload.tasks``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleetcast.scenario.load import MultitaskScenario

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking


def plan(scenario: MultitaskScenario, *, top: int | None) -> Ranking:
    """Returns waves beside what is done without them, quickest first."""
    from fleetcast.search.waves.search import search

    return search(scenario, top=top)


def simulate(scenario: MultitaskScenario) -> Outcome:
    """Returns an iteration in waves: a file decides nothing of them, so they are planned."""
    return next(outcome for outcome in plan(scenario, top=None).plans if outcome.plan["way"] == "waves")
