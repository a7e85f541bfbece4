"""Best fit again and again in orders drawn at random: the baseline that half a second of restarts gives.

Each restart stretches pods' sizes by a random factor and packs all movable pods in that order; the state that serves
the tiers of priority best, then with the fewest evictions and moves, is kept. How many restarts there are is counted in
steps, not in seconds, so that equal views have equal answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fleetcast.policy.place.pods import Placement, View
from fleetcast.policy.place.pods.best_fit import fill
from fleetcast.policy.place.pods.greedy import decide
from fleetcast.policy.place.pods.packing import Instance

if TYPE_CHECKING:
    from fleetcast.policy.place.pods.packing import State


class Restarts:
    """Repacks at random and keeps the best.

    Args:
        budget: s of one core, about; what a restart takes is reckoned, not measured.
        spread: of the factor on sizes: 0 = best-fit-decreasing each time.
        seed: of the orders.
    """

    kind = "restarts"

    def __init__(self, *, budget: float = 0.5, spread: float = 0.5, seed: int = 0) -> None:
        if not budget > 0 or not 0 <= spread < 1:
            raise ValueError(f"budget is above 0 and spread 0 to below 1, not {budget} and {spread}")
        self.budget = budget
        self.spread = spread
        self.seed = seed

    def place(self, view: View) -> Placement:
        """Returns who goes where, who moves and who leaves."""
        ledger = fill(view)
        if all(pod.name in ledger.laid for pod in view.waiting):
            return decide(view, ledger)
        found = Instance.of(view, ledger)
        return decide(view, found.ledger(repack(found, found.state(ledger), self.budget, self.spread, self.seed)))


def cost(found: Instance) -> float:
    """Returns about how long one packing takes, s: a step is some array operations on the nodes."""
    n = found.free.shape[1]
    return float(len(found.pods) * (8e-6 + n * 6e-9) + 1e-4)


def repack(found: Instance, first: State, budget: float, spread: float, seed: int) -> State:
    """Returns the best of a state and of restarts."""
    rng = np.random.default_rng(seed)
    best, worth = first, found.worth(first)
    for k in range(max(1, int(budget / cost(found)))):
        stretch = None if k == 0 else 1.0 + spread * rng.uniform(-1.0, 1.0, len(found.pods))
        state = found.packed(found.decreasing(stretch))
        anew = found.worth(state)
        if anew[:-2] > worth[:-2]:
            state = found.stay(state)
            best, worth = state, found.worth(state)
    return best
