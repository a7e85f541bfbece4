"""Kemeny's ranking of many alternatives by CP-SAT (Google's OR-Tools): a variable a pair, every triple transitive."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.policy.vote.kemeny import LARGEST, best, components
from fleetcast.policy.vote.metrics import Orders, preferred

MOST = 60
"""Alternatives in one circle up to which CP-SAT is asked: its triples grow with their cube."""
BUDGET = 60.0
"""CP-SAT's deterministic time, about as many seconds: the answer does not depend on how busy the machine is."""


def kemeny(ballots: Orders, *, smallest: int = LARGEST + 1, budget: float = BUDGET) -> tuple[Orders, int, int]:
    """Returns a ranking, its total Kendall distance to the ballots, and the least total that is not ruled out.

    Args:
        ballots: int[n, m].
        smallest: components of at least so many alternatives go to CP-SAT, smaller ones to the exact recursion.
        budget: for all components together.

    Raises:
        MissingExtra: OR-Tools is not installed, and is needed.
        SpecError: more than `MOST` alternatives in one circle.
    """
    wins = preferred(ballots)
    parts = components(wins)
    if (large := max(len(part) for part in parts)) > MOST:
        raise SpecError(
            "--rule", f"kemeny has {large} plans to order that beat each other in circles", limit=f"up to {MOST}",
            hint="Choose borda or footrule, or vote on fewer plans",
        )  # fmt: skip
    left = max(1, sum(len(part) >= smallest for part in parts))
    order, cost, bound = [], 0, 0
    for i, part in enumerate(parts):
        inner = wins[np.ix_(part, part)]
        if len(part) >= smallest:
            found, total, low = _solve(inner, budget / left)
        else:
            found, total, _ = best(inner)
            low = total
        # Across components every pair goes with the majority.
        across = sum(int(wins[np.ix_(later, part)].sum()) for later in parts[i + 1 :])
        order.append(part[found])
        cost, bound = cost + total + across, bound + low + across
    return np.concatenate(order), cost, bound


def _solve(wins: Orders, budget: float) -> tuple[Orders, int, int]:
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        raise MissingExtra("ortools", "solve") from None
    m = len(wins)
    model = cp_model.CpModel()
    above = {(a, b): model.new_bool_var(f"{a}>{b}") for a, b in combinations(range(m), 2)}
    for a, b, c in combinations(range(m), 3):
        model.add_linear_constraint(above[a, b] + above[b, c] - above[a, c], 0, 1)
    # A pair costs the ballots that order it the other way.
    fixed = sum(int(wins[a, b]) for a, b in above)
    model.minimize(fixed + sum(int(wins[b, a] - wins[a, b]) * x for (a, b), x in above.items()))
    start = np.argsort(-(wins > wins.T).sum(axis=1), kind="stable")
    place = np.argsort(start)
    for (a, b), x in above.items():
        model.add_hint(x, bool(place[a] < place[b]))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_deterministic_time = budget
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        cost = int(sum(wins[b, a] for i, a in enumerate(start) for b in start[i + 1 :]))
        return start, cost, int(np.minimum(wins, wins.T)[np.triu_indices(m, 1)].sum())
    score = np.zeros(m, dtype=np.int64)
    for (a, b), x in above.items():
        score[a if solver.boolean_value(x) else b] += 1
    low = int(np.ceil(solver.best_objective_bound - 1e-6))
    return np.argsort(-score, kind="stable"), round(solver.objective_value), low
