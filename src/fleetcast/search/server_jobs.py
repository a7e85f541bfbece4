"""Share policies of jobs with parameter servers ranked: each is played on the same list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fleetcast.scenario.kinds.server_jobs import GOALS, RAISED
from fleetcast.scenario.outcome import Outcome
from fleetcast.search.played import beside, each, ranking
from fleetcast.search.ranking import Ranking
from fleetcast.sim.cluster.slots_outcome import Setting, simulate

LISTED: tuple[Any, ...] = ("fifo", "srtf", "drf", "optimus")
"""What is searched where the plan names nothing. The null first."""


def search(
    state: Setting, *, top: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Ranking:  # fmt: skip
    """Returns the ranked policies of a scenario: those of its plan, or the list policies; fifo is always among them.

    Args:
        state: the scenario, resolved.
        top: how many; None = all.
        progress: called with (plans played, plans).

    Raises:
        SpecError: an unknown policy.
    """
    goals = state.scenario.objective.goals(GOALS, RAISED)
    choices, asked = beside(state.scenario.plan.shares or LISTED, "fifo", lambda choice: choice == "fifo")
    found = each(choices, lambda choice: simulate(state, choice), progress)
    space = f"share: {', '.join(dict.fromkeys(str(o.plan['share']['kind']) for o in found))}"
    rivals = tuple((name, GOALS[name], 1) for name in ("jct_p99", "jct"))
    return ranking(found, goals, rivals, top=top, null=is_null, asked=asked, space=(space,))


def is_null(outcome: Outcome) -> bool:
    """Returns whether an outcome is of first come, first served."""
    return bool(outcome.plan["share"]["kind"] == "fifo")
