"""Share and place policies ranked: each pair is played on the same trace."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import describe
from fleetcast.base.tables import lookup
from fleetcast.policy.share import Fifo
from fleetcast.scenario.kinds.jobs import GOALS, RAISED
from fleetcast.scenario.outcome import Outcome
from fleetcast.search.ranking import Ranking, undominated, values
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
    if any(name == "cost" for name, _, _ in goals) and state.tree.price is None:
        device = next(g.device.id for g in state.tree.groups if g.price is None)
        raise SpecError(
            "objective.minimize", f"needs a price, and {device} has none", value="cost", limit="known prices",
            hint=f'Add price = {{ "{device}" = "1.00 $/h" }} to [fleet]',
        )  # fmt: skip
    shares = list(plan.shares or (LISTED if state.jobs.deadline is None else (*LISTED, *DUE)))
    null = describe(Fifo())
    if not any(describe(state.share(choice)) == null for choice in shares):
        shares.insert(0, "fifo")
    places = list(plan.places or ("best_fit",))
    powers: list[Any] = list(plan.powers) or [None]
    pairs = list(product(shares, places, powers))
    found: list[Outcome] = []
    for i, (share, place, power) in enumerate(pairs):
        found.append(simulate(state, share, place, power))
        if progress is not None:
            progress(i + 1, len(pairs))

    def rank(outcome: Outcome) -> list[float]:
        return [float(f"{value:.9g}") for value in values(outcome, goals)]

    ranked = sorted(found, key=rank)
    rival = ("jct_p99", GOALS["jct_p99"], 1) if goals[0][0] != "jct_p99" else ("jct", GOALS["jct"], 1)
    axes = goals if len(goals) > 1 else (*goals, rival)
    frontier = [ranked[i] for i in undominated([values(outcome, axes) for outcome in ranked])]
    frontier.sort(key=lambda outcome: float(lookup(outcome.metrics, axes[0][1])))
    counts = dict.fromkeys(("bounded", "cut_short", "deduplicated"), 0)
    counts |= dict.fromkeys(("enumerated", "memory_feasible", "simulated"), len(found))
    names = dict.fromkeys(str(outcome.plan["share"]["kind"]) for outcome in found)
    space = (f"share: {', '.join(names)}; place: {', '.join(str(describe(state.place(p))['kind']) for p in places)}",)
    return Ranking(tuple(ranked[:top]), tuple(frontier), (), (), counts, goals, axes, space=space)
