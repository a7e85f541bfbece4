"""Jobs with parameter servers: the verbs of a scenario of kind "jobs" that has ``workload.servers``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fleetcast.scenario.load import ServerJobsScenario

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking
    from fleetcast.view.checks import Remark
    from fleetcast.view.learned import Learned

LOOKS: Final = "fleetcast.view.server_jobs.screens"


def plan(
    scenario: ServerJobsScenario, *, top: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Ranking:  # fmt: skip
    """Returns the ranked share policies of a scenario, see `view.verbs.plan`."""
    from fleetcast.search.server_jobs import search
    from fleetcast.sim.cluster.slots_outcome import setting

    return search(setting(scenario), top=top, progress=progress)


def simulate(scenario: ServerJobsScenario, *, record: bool = False) -> Outcome:
    """Returns what happens under the plan's policy, see `view.verbs.simulate`; there is no event record."""
    from fleetcast.sim.cluster.slots_outcome import setting
    from fleetcast.sim.cluster.slots_outcome import simulate as run

    return run(setting(scenario))


def learn(
    scenario: ServerJobsScenario, out: Path, *, checkpoint: Path | None = None,
    settings: dict[str, Any] | None = None, progress: Callable[[int, int], None] | None = None,
) -> Learned:  # fmt: skip
    """Trains the plan's DL2 on lists like the scenario's, see `view.verbs.learn`."""
    from fleetcast.view.learned import share

    return share(scenario, out, checkpoint=checkpoint, settings=settings or {}, progress=progress)


def check(scenario: ServerJobsScenario) -> list[Remark]:
    """Returns what is wrong or doubtful about a scenario, errors first."""
    from fleetcast.view.server_jobs.checks import remarks

    return remarks(scenario)


def is_open(scenario: ServerJobsScenario) -> bool:
    """Returns whether the plan names no share policy, or several."""
    return len(scenario.plan.shares) != 1
