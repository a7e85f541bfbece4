"""The paper's model as it stands, as a baseline: a Boolean for each pod and node, tier after tier.

Priority Matters (2025): for each tier the number of pods placed is maximised, then of pods that run those that stay,
both fixed before the next tier; each tier gets an equal part of what is left of the budget. Hint: where pods lie now.
Nothing is aggregated, ordered or bounded.
"""

from __future__ import annotations

from fleetcast.base.errors import PolicyError
from fleetcast.policy.place.pods import Placement, View
from fleetcast.policy.place.pods.best_fit import fill
from fleetcast.policy.place.pods.check import carry_out
from fleetcast.policy.place.pods.greedy import decide
from fleetcast.policy.place.pods.model import Model
from fleetcast.policy.place.pods.solver import solver

PAIRS = 200_000
"""Pairs of pods and nodes above which no model is built: it would not fit the budget."""


class CpSatNaive:
    """Packs pods by one Boolean model of the whole cluster.

    Args:
        budget: s of one core, about: the solver's deterministic time and the building.
        equals: whether a pod that runs may leave so that more pods of its own priority run.
        seed: of the solver.
    """

    kind = "cp_sat_naive"

    def __init__(self, *, budget: float = 1.0, equals: bool = False, seed: int = 0) -> None:
        if not budget > 0:
            raise ValueError(f"budget is above 0, not {budget}")
        self.budget = budget
        self.equals = equals
        self.seed = seed

    def place(self, view: View) -> Placement:
        """Returns who goes where, moves and leaves; what greedy found where the model does not fit the budget."""
        ledger = fill(view)
        pairs = len(view.nodes) * (len(view.running) + len(view.waiting))
        left = self.budget - 1.2e-5 * pairs
        if not pairs or all(pod.name in ledger.laid for pod in view.waiting) or pairs > PAIRS or left <= 0:
            return decide(view, ledger)
        origin = {p.name: view.ledger.number[p.node] for p in view.running if p.name in view.ledger.laid}
        waiting = [p for p in view.waiting if p.name not in ledger.laid]
        model = Model(
            view, ledger, range(len(view.nodes)), waiting, origin, equals=self.equals, aggregate=False
        )  # fmt: skip
        goals = [goal for goal in model.goals() if not isinstance(goal.sum, int)]
        best, proven = ledger, True
        for g, goal in enumerate(goals):
            if left < 0.01:
                proven = False
                break
            model.model.clear_hints()
            model.hint()
            model.model.maximize(goal.sum)
            solving = solver(left / (len(goals) - g), self.seed)
            status = solving.solve(model.model)
            left -= solving.response_proto.deterministic_time
            proven &= status == model.cp.OPTIMAL
            if status not in (model.cp.OPTIMAL, model.cp.FEASIBLE):
                break
            model.model.add(goal.sum >= round(solving.objective_value))
            found = best.copy()
            model.apply(solving.value, found)
            try:
                carry_out(view, decide(view, found, why=False))
            except PolicyError:
                continue
            best = model.ledger = found
        return decide(view, best, proof="optimal" if proven else "")
