"""Share policies of jobs with parameter servers ranked: each is played on the same list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fleetcast.base.tables import lookup
from fleetcast.scenario.kinds.server_jobs import GOALS, RAISED
from fleetcast.search.ranking import Ranking, undominated, values
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
    choices = list(state.scenario.plan.shares or LISTED)
    if "fifo" not in choices:
        choices.insert(0, "fifo")
    found = []
    for i, choice in enumerate(choices):
        found.append(simulate(state, choice))
        if progress is not None:
            progress(i + 1, len(choices))
    ranked = sorted(found, key=lambda outcome: [float(f"{value:.9g}") for value in values(outcome, goals)])
    rival = ("jct_p99", GOALS["jct_p99"], 1) if goals[0][0] != "jct_p99" else ("jct", GOALS["jct"], 1)
    axes = goals if len(goals) > 1 else (*goals, rival)
    frontier = [ranked[i] for i in undominated([values(outcome, axes) for outcome in ranked])]
    frontier.sort(key=lambda outcome: float(lookup(outcome.metrics, axes[0][1])))
    counts = dict.fromkeys(("bounded", "cut_short", "deduplicated"), 0)
    counts |= dict.fromkeys(("enumerated", "memory_feasible", "simulated"), len(found))
    space = (f"share: {', '.join(dict.fromkeys(str(o.plan['share']['kind']) for o in found))}",)
    return Ranking(tuple(ranked[:top]), tuple(frontier), (), (), counts, goals, axes, space=space)
