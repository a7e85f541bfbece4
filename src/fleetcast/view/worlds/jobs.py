"""Many jobs on one fleet: the verbs of a scenario of kind "jobs"."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fleetcast.scenario.load import JobsScenario

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking
    from fleetcast.view.checks import Remark

LOOKS: Final = "fleetcast.view.jobs.screens"


def plan(
    scenario: JobsScenario, *, top: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Ranking:  # fmt: skip
    """Returns the ranked share and place policies of a scenario, see `view.verbs.plan`."""
    from fleetcast.search.jobs import search
    from fleetcast.sim.cluster.setting import setting

    return search(setting(scenario), top=top, progress=progress)


def simulate(scenario: JobsScenario, *, record: bool = False) -> Outcome:
    """Returns what happens under the plan's policies, see `view.verbs.simulate`."""
    from fleetcast.sim.cluster.outcome import simulate as run
    from fleetcast.sim.cluster.setting import setting

    return run(setting(scenario), record=record)


def check(scenario: JobsScenario) -> list[Remark]:
    """Returns what is wrong or doubtful about a scenario, errors first."""
    from fleetcast.view.jobs.checks import remarks

    return remarks(scenario)


def is_open(scenario: JobsScenario) -> bool:
    """Returns whether the plan names no share policy, or several of any."""
    plan = scenario.plan
    return len(plan.shares) != 1 or len(plan.places) > 1 or len(plan.powers) > 1
