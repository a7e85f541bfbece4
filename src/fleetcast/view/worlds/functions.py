"""Functions that are invoked over time: the verbs of a scenario of kind "functions"."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fleetcast.scenario.load import FunctionsScenario

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking
    from fleetcast.view.checks import Remark

LOOKS: Final = "fleetcast.view.functions.screens"


def plan(
    scenario: FunctionsScenario, *, top: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Ranking:  # fmt: skip
    """Returns the ranked scale policies of a scenario, see `view.verbs.plan`."""
    from fleetcast.search.functions import search
    from fleetcast.sim.functions.setting import setting

    return search(setting(scenario), top=top, progress=progress)


def simulate(scenario: FunctionsScenario, *, record: bool = False) -> Outcome:
    """Returns what happens under the plan's policies, see `view.verbs.simulate`."""
    from fleetcast.sim.functions.outcome import simulate as run
    from fleetcast.sim.functions.setting import setting

    return run(setting(scenario), record=record)


def check(scenario: FunctionsScenario) -> list[Remark]:
    """Returns what is wrong or doubtful about a scenario, errors first."""
    from fleetcast.view.functions.checks import remarks

    return remarks(scenario)


def is_open(scenario: FunctionsScenario) -> bool:
    """Returns whether the plan names no policy, or several, or a budget to set it by."""
    plan = scenario.plan
    return len(plan.scales) != 1 or len(plan.routes) > 1 or plan.budget is not None
