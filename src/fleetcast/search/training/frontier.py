"""Time against memory: the best plan under ever tighter memory, the whole space searched each time.

A ranking says which plan is best of each spread; what a device with less memory would cost, or a neighbour that takes a
part of it, is said by the best plans within shares of the memory there is.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.tables import lookup
from fleetcast.scenario.objective import TRAINING
from fleetcast.scenario.outcome import Outcome
from fleetcast.search.ranking import undominated
from fleetcast.search.training.planner import search
from fleetcast.sim.training.setting import Setting, setting

STEPS, FEWER = 8, 4
"""Budgets of memory, in equal steps; of a fleet of several groups, whose search takes longer, fewer."""


def frontier(state: Setting, steps: int | None = None) -> tuple[Outcome, ...]:
    """Returns plans that no other beats in memory and in the first goal, least memory first.

    Args:
        state: the scenario, resolved.
        steps: budgets, from a step of the memory to all of it.
    """
    count = steps or (STEPS if len(state.tree.groups) == 1 else FEWER)
    found = []
    for step in range(1, count + 1):
        best = within(state, step / count)
        if best is not None:
            found.append(best)
    path = state.scenario.objective.goals(TRAINING, {})[0][1]
    points = [(float(one.metrics["memory"]), float(lookup(one.metrics, path))) for one in found]
    kept = {points[row]: found[row] for row in undominated(points)}
    return tuple(kept[point] for point in sorted(kept))


def within(state: Setting, share: float) -> Outcome | None:
    """Returns the best plan that takes at most a share of every device's memory; None where none does."""
    groups = tuple(
        replace(group, device=msgspec.structs.replace(group.device, memory=group.device.memory * share))
        for group in state.tree.groups
    )
    try:
        return search(setting(state.scenario, replace(state.tree, groups=groups)), top=1).best
    except SpecError:  # nothing divides; the search itself has said so
        return None
