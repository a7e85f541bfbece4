"""What people look at first of a service, before and after a change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleetcast.view import words
from fleetcast.view.ranked import Shown, shown

if TYPE_CHECKING:
    from fleetcast.scenario.load import ServingScenario
    from fleetcast.scenario.outcome import Outcome

LATENCIES = ("ttft.p50", "ttft.p99", "tpot.p50", "tpot.p99", "e2e.mean")
COLUMNS: Shown = {
    key: column
    for path in (*LATENCIES, "throughput", "goodput", "cost", "energy", "carbon")
    for key, column in shown(path, words.short(path) if path in LATENCIES else "").items()
}


def question(scenario: ServingScenario, outcome: Outcome | None) -> str:
    """Returns what was asked, in a sentence."""
    return words.question(scenario, goals=False)
