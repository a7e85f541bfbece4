"""Which policy orders a graph best: each is played, and what each comes to is ranked."""

from __future__ import annotations

from collections.abc import Callable

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import kinds
from fleetcast.cost.graphs.offloading import Users
from fleetcast.policy.order import tasks
from fleetcast.scenario.choices import kind_of
from fleetcast.scenario.kinds.graph import GOALS
from fleetcast.scenario.outcome import Outcome
from fleetcast.search.played import beside, check_priced, each, ranking
from fleetcast.search.ranking import Ranking
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
    check_priced(goals, state.tree.groups)
    # The null first, so that it wins where nothing is better.
    offloading = bool(Users.of(state.graph, state.platform).devices)
    known = [kind for kind, made in kinds(tasks).items() if offloading or not getattr(made, "offloads", False)]
    orders, asked = beside(
        state.scenario.plan.orders or tuple(sorted(known, key=lambda kind: kind != tasks.Fifo.kind)), tasks.Fifo.kind,
        lambda choice: kind_of(choice) == tasks.Fifo.kind,
    )  # fmt: skip
    if not state.scenario.plan.orders and len(orders) * len(state.graph) > MOST_PLAYED:
        raise SpecError(
            "plan.order", f"is left out, and {len(orders)} policies would be played on {len(state.graph):,} tasks",
            value=f"{len(orders) * len(state.graph):,} tasks", limit=f"{MOST_PLAYED:,}, about two minutes",
            hint='Name those to compare, however long they take: order = ["fifo", "heft"]; or ask `fleetcast simulate`',
        )  # fmt: skip
    found = each(orders, lambda order: simulate(state, order), progress)
    said = f"order: {', '.join(str(outcome.plan['order']['kind']) for outcome in found)}; each was played"
    rivals = (("bytes", GOALS["bytes"], 1),)
    return ranking(found, goals, rivals, top=top, null=is_null, asked=asked, space=(said,))


def is_null(outcome: Outcome) -> bool:
    """Returns whether an outcome is of first come, first served."""
    return bool(outcome.plan["order"]["kind"] == tasks.Fifo.kind)
