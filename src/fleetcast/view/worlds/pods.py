"""Pods on nodes: the verbs of a scenario of kind "jobs" that has pods."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fleetcast.scenario.load import PodsScenario

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking
    from fleetcast.view.checks import Remark


def plan(
    scenario: PodsScenario, *, top: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Ranking:  # fmt: skip
    """Returns the ranked place policies of a scenario, see `view.verbs.plan`."""
    from fleetcast.search.pods import search
    from fleetcast.sim.cluster.pods_outcome import setting

    return search(setting(scenario), top=top, progress=progress)


def simulate(scenario: PodsScenario, *, record: bool = False) -> Outcome:
    """Returns what happens under the plan's policy, see `view.verbs.simulate`."""
    from fleetcast.sim.cluster.pods_outcome import setting
    from fleetcast.sim.cluster.pods_outcome import simulate as run

    return run(setting(scenario), record=record)


def check(scenario: PodsScenario) -> list[Remark]:
    """Returns what is wrong or doubtful about a scenario, errors first."""
    from fleetcast.view.pods.checks import remarks

    return remarks(scenario)
