"""What is promised of a vote, and the SAT problem of some of its runs: which ranking each view decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.policy.vote.metrics import METRICS, Orders, diameter
from fleetcast.search.vote.runs import Setting
from fleetcast.search.vote.sat import Solver

CONFLICTS = 3_000
"""Conflicts after which a search gives up: some minutes. What was settled at all took under a hundred."""


@dataclass(frozen=True)
class Promise:
    """What is asked of the decisions of a run, besides unanimity.

    Attributes:
        most: different decisions; None where a distance is asked for.
        within: the largest distance of two decisions.
        metric: of `policy.vote.metrics`.
        unanimity: "all": what all ballots agree on, the decisions keep; "correct": what those of the processes that
            never crash agree on.
    """

    most: int | None = 1
    within: int | None = None
    metric: str = "kendall"
    unanimity: Literal["all", "correct"] = "all"

    def check(self, setting: Setting) -> None:
        """Refuses what asks for nothing, or for two things.

        Raises:
            SpecError: names the option.
        """
        if (self.most is None) == (self.within is None):
            raise SpecError("--set", "goes without --within", hint="Ask for --set K or for --within DISTANCE")
        if self.most is not None and not 1 <= self.most <= setting.processes:
            limit = f"1 to {setting.processes}"
            raise SpecError("--set", "is out of range", value=self.most, limit=limit, hint="1 is consensus")
        if self.metric not in METRICS:
            raise SpecError("--metric", "is unknown", value=self.metric, limit=f"one of {', '.join(METRICS)}")
        widest = diameter(self.metric, setting.plans)
        if self.within is not None and not 0 <= self.within <= widest:
            raise SpecError(
                "--within", "is out of range", value=self.within, limit=f"0 to {widest}",
                hint=f"No two rankings of {setting.plans} plans are further apart than {widest}",
            )  # fmt: skip

    def near(self, orders: Orders) -> NDArray[np.bool_]:
        """Returns which two rankings a run may hold, bool[m!, m!]; of a promise by number, equal ones."""
        within = 0 if self.within is None else self.within
        return np.asarray(METRICS[self.metric](orders[:, None], orders[None, :]) <= within)

    def said(self) -> str:
        """Returns the promise in words."""
        if self.most is not None:
            agreed = "one ranking" if self.most == 1 else f"at most {self.most} different rankings"
        else:
            many = "" if self.within == 1 else "s"
            pairs = f"pair{many} in another order" if self.metric == "kendall" else f"place{many} moved"
            agreed = f"no two rankings more than {self.within} {pairs} apart"
        whose = "all ballots" if self.unanimity == "all" else "the ballots of those that never crash"
        return f"{agreed}, and what {whose} agree on is kept"


class Problem:
    """The SAT problem of some runs: a variable for each view and ranking that unanimity leaves it."""

    def __init__(self, promise: Promise, allowed: NDArray[np.bool_], near: NDArray[np.bool_], likely: Orders) -> None:
        self.solver = Solver(CONFLICTS)
        self._promise, self._allowed, self._near, self._likely = promise, allowed, near, likely
        self.views: dict[int, dict[int, int]] = {}
        self._equal: dict[tuple[int, int], int] = {}

    def add(self, views: Sequence[int], selector: int | None = None) -> None:
        """Adds a run; with a selector it counts only where that is assumed."""
        guard = [] if selector is None else [-selector]
        for view in views:
            self._view(view)
        if self._promise.most is None:
            # Both ways, so that what one view's rankings leave to the other follows without a guess.
            for u, w in permutations(views, 2):
                for r, x in self.views[u].items():
                    self.solver.add([*guard, -x, *(y for q, y in self.views[w].items() if self._near[r, q])])
        else:
            for some in combinations(views, self._promise.most + 1):
                self.solver.add([*guard, *(self._same(u, w) for u, w in combinations(some, 2))])

    def _view(self, view: int) -> None:
        if view in self.views:
            return
        likely = int(self._likely[view])
        made = {int(r): self.solver.variable(likely=int(r) == likely) for r in np.flatnonzero(self._allowed[view])}
        self.views[view] = made
        self.solver.add(made.values())
        for x, y in combinations(made.values(), 2):
            self.solver.add((-x, -y))

    def _same(self, u: int, w: int) -> int:
        """Returns the variable that is true only where two views decide the same."""
        u, w = min(u, w), max(u, w)
        if (u, w) not in self._equal:
            same = self._equal[u, w] = self.solver.variable(likely=True)
            other = self.views[w]
            for r, x in self.views[u].items():
                self.solver.add((-same, -x, other[r]) if r in other else (-same, -x))
        return self._equal[u, w]

    def decisions(self) -> Orders:
        """Returns the likely rankings with those of the solution in their place."""
        made = self._likely.copy()
        for view, rankings in self.views.items():
            made[view] = next(r for r, x in rankings.items() if self.solver.holds(x))
        return made
