"""Share and place policies ranked: each pair is played on the same trace."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from fleetcast.base.spec import describe
from fleetcast.policy.share import Fifo
from fleetcast.scenario.kinds.jobs import GOALS, RAISED
from fleetcast.scenario.outcome import Outcome
from fleetcast.search.played import beside, check_priced, each, ranking
from fleetcast.search.ranking import Ranking
from fleetcast.sim.cluster.outcome import simulate
from fleetcast.sim.cluster.setting import Setting

LISTED: tuple[Any, ...] = ("fifo", {"kind": "fifo", "backfill": True}, "easy", "srtf", "las", "drf")
"""What is searched where the plan names nothing: list policies, which know nothing of elasticity. The null first."""

DUE: tuple[Any, ...] = ("edf", "green", {"kind": "green", "interrupt": True})
"""What is searched besides where jobs have deadlines."""


def search(
    state: Setting, *, top: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Ranking:  # fmt: skip
    """Returns the ranked policies of a scenario: those of its plan, or the list policies.

    First come, first served is always among them.

    Args:
        state: the scenario, resolved.
        top: how many; None = all.
        progress: called with (plans played, plans).

    Raises:
        SpecError: an unknown policy, or cost without a price.
    """
    plan = state.scenario.plan
    goals = state.scenario.objective.goals(GOALS, RAISED)
    check_priced(goals, state.tree.groups)
    listed = LISTED if state.jobs.deadline is None else (*LISTED, *DUE)
    shares, asked = beside(plan.shares or listed, "fifo", lambda c: describe(state.share(c)) == describe(Fifo()))
    places = list(plan.places or ("best_fit",))
    powers: list[Any] = list(plan.powers) or [None]
    found = each(list(product(shares, places, powers)), lambda choice: simulate(state, *choice), progress)
    names = dict.fromkeys(str(outcome.plan["share"]["kind"]) for outcome in found)
    space = f"share: {', '.join(names)}; place: {', '.join(str(describe(state.place(p))['kind']) for p in places)}"
    rivals = tuple((name, GOALS[name], 1) for name in ("jct_p99", "jct"))
    return ranking(found, goals, rivals, top=top, null=is_null, asked=asked, space=(space,))


def is_null(outcome: Outcome) -> bool:
    """Returns whether an outcome is of first come, first served."""
    return bool(outcome.plan["share"] == describe(Fifo()))
