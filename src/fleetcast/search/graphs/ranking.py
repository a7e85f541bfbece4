"""Which policy orders a graph best: each is played, and what each comes to is ranked."""

from __future__ import annotations

from collections.abc import Callable

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import kinds
from fleetcast.base.tables import lookup
from fleetcast.policy.order import tasks
from fleetcast.scenario.kinds.graph import GOALS
from fleetcast.scenario.outcome import Outcome
from fleetcast.search.ranking import Ranking, undominated, values
from fleetcast.sim.graph.outcome import simulate
from fleetcast.sim.graph.setting import Setting


def search(
    state: Setting, *, top: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Ranking:  # fmt: skip
    """Returns the ranked policies of a scenario: those of its plan, or all.

    Args:
        state: the scenario, resolved.
        top: how many; None = all.
        progress: called with (policies played, policies).

    Raises:
        SpecError: an unknown policy, or cost without a price.
    """
    goals = state.scenario.objective.goals(GOALS, {})
    if any(name == "cost" for name, _, _ in goals) and state.tree.price is None:
        device = next(g.device.id for g in state.tree.groups if g.price is None)
        raise SpecError(
            "objective.minimize", f"needs a price, and {device} has none", value="cost", limit="known prices",
            hint=f'Add price = {{ "{device}" = "1.00 $/h" }} to [fleet]',
        )  # fmt: skip
    # The null first, so that it wins where nothing is better.
    orders = state.scenario.plan.orders or tuple(sorted(kinds(tasks), key=lambda kind: kind != tasks.Fifo.kind))
    found: list[Outcome] = []
    for i, order in enumerate(orders):
        found.append(simulate(state, order))
        if progress is not None:
            progress(i + 1, len(orders))
    ranked = sorted(found, key=lambda outcome: [float(f"{value:.9g}") for value in values(outcome, goals)])
    axes = goals if len(goals) > 1 else (*goals, ("bytes", GOALS["bytes"], 1)) if goals[0][0] != "bytes" else goals
    frontier = [ranked[i] for i in undominated([values(outcome, axes) for outcome in ranked])]
    frontier.sort(key=lambda outcome: float(lookup(outcome.metrics, axes[0][1])))
    counts = dict.fromkeys(("bounded", "cut_short", "deduplicated"), 0)
    counts |= dict.fromkeys(("enumerated", "memory_feasible", "simulated"), len(orders))
    said = (f"order: {', '.join(str(outcome.plan['order']['kind']) for outcome in found)}; each was played",)
    return Ranking(tuple(ranked[:top]), tuple(frontier), (), (), counts, goals, axes, space=said)
