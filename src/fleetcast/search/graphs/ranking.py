"""Which policy orders a graph best: each is played, and what each comes to is ranked."""

from __future__ import annotations

from collections.abc import Callable

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import kinds
from fleetcast.base.tables import lookup
from fleetcast.cost.graphs.offloading import Users
from fleetcast.policy.order import tasks
from fleetcast.scenario.kinds.graph import GOALS
from fleetcast.scenario.outcome import Outcome
from fleetcast.search.ranking import Ranking, undominated, values
from fleetcast.sim.graph.outcome import simulate
from fleetcast.sim.graph.setting import Setting

MOST_PLAYED = 5_000_000
"""Tasks times policies that are played without being asked for by name."""


def search(
    state: Setting, *, top: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Ranking:  # fmt: skip
    """Returns the ranked policies of a scenario: those of its plan, or all; of offloading where devices have users.

    Args:
        state: the scenario, resolved.
        top: how many, and the null, where it is not among them; None = all.
        progress: called with (policies played, policies).

    Raises:
        SpecError: an unknown policy, cost without a price, or more to play than anyone waits for.
    """
    goals = state.scenario.objective.goals(GOALS, {})
    if any(name == "cost" for name, _, _ in goals) and state.tree.price is None:
        device = next(g.device.id for g in state.tree.groups if g.price is None)
        raise SpecError(
            "objective.minimize", f"needs a price, and {device} has none", value="cost", limit="known prices",
            hint=f'Add price = {{ "{device}" = "1.00 $/h" }} to [fleet]',
        )  # fmt: skip
    # The null first, so that it wins where nothing is better.
    offloading = bool(Users.of(state.graph, state.platform).devices)
    known = [kind for kind, made in kinds(tasks).items() if offloading or not getattr(made, "offloads", False)]
    orders = state.scenario.plan.orders or tuple(sorted(known, key=lambda kind: kind != tasks.Fifo.kind))
    if not state.scenario.plan.orders and len(orders) * len(state.graph) > MOST_PLAYED:
        raise SpecError(
            "plan.order", f"is left out, and {len(orders)} policies would be played on {len(state.graph):,} tasks",
            value=f"{len(orders) * len(state.graph):,} tasks", limit=f"{MOST_PLAYED:,}, about two minutes",
            hint='Name those to compare, however long they take: order = ["fifo", "heft"]; or ask `fleetcast simulate`',
        )  # fmt: skip
    found: list[Outcome] = []
    if progress is not None:
        progress(0, len(orders))
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
    kept = (
        ranked
        if top is None
        else ranked[:top] + [o for o in ranked[top:] if o.plan["order"]["kind"] == tasks.Fifo.kind]
    )
    return Ranking(tuple(kept), tuple(frontier), (), (), counts, goals, axes, space=said)
