"""Streams: the verbs of a scenario with a sensor pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from fleetcast.scenario.load import StreamScenario

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking
    from fleetcast.view.checks import Remark

LOOKS: Final = "fleetcast.view.stream.screens"


def plan(scenario: StreamScenario, *, top: int | None, progress: Callable[[int, int], None] | None = None) -> Ranking:
    """Returns which improvements buy most, or where the filter sits best, see `view.verbs.plan`."""
    from fleetcast.search import streams

    return streams.search(scenario, top=top, progress=progress)


def simulate(scenario: StreamScenario, *, record: bool = False) -> Outcome:
    """Returns what the pipeline draws, keeps and takes, see `view.verbs.simulate`."""
    from fleetcast.sim.stream import simulate as run

    return run(scenario, record=record)


def run(scenario: StreamScenario, **settings: Any) -> Outcome:
    """Returns what processes here make of it, see `runtime.stream.run`."""
    from fleetcast.runtime.stream import run as measured

    return measured(scenario, **settings)


def check(scenario: StreamScenario) -> list[Remark]:
    """Returns what is wrong or doubtful about a scenario, errors first."""
    from fleetcast.view.stream import checks

    return checks.remarks(scenario)
