"""Satisfiability, by PySAT's Glucose (Ignatiev, Morgado and Marques-Silva 2018; Audemard and Simon 2009).

Literals are +v and -v for variables v from 1. Equal formulas, put in the same order, have equal answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fleetcast.base.errors import MissingExtra


class Unsettled(Exception):
    """The search met more conflicts than it may."""


class Solver:
    """Holds clauses and finds values that satisfy them.

    Args:
        limit: conflicts, of all calls together, after which it gives up.

    Raises:
        MissingExtra: python-sat is not installed.
    """

    def __init__(self, limit: int = 1_000_000) -> None:
        try:
            from pysat.solvers import Glucose4
        except ImportError:
            raise MissingExtra("python-sat", "solve") from None
        self._solver: Any = Glucose4()
        self.limit, self._likely = limit, list[int]()
        self._true: frozenset[int] = frozenset()

    def variable(self, *, likely: bool = False) -> int:
        """Returns a new variable; ``likely`` is the value that is tried first."""
        v = len(self._likely) + 1
        self._likely.append(v if likely else -v)
        return v

    def add(self, literals: Iterable[int]) -> None:
        """Adds a clause: at least one of the literals holds."""
        self._solver.add_clause(list(literals))

    def solve(self, assumed: Sequence[int] = ()) -> list[int] | None:
        """Looks for values under assumptions.

        Returns:
            None where there are some, which `holds` tells; else assumptions that the clauses contradict, in order
            (none of them: the clauses contradict themselves).

        Raises:
            Unsettled: after too many conflicts.
        """
        left = self.limit - self.conflicts
        if left <= 0:  # none would be no limit
            raise Unsettled
        self._solver.set_phases(self._likely)
        self._solver.conf_budget(left)
        found = self._solver.solve_limited(assumptions=list(assumed))
        if found is None:
            raise Unsettled
        if found:
            self._true = frozenset(self._solver.get_model())
            return None
        guilty = frozenset(self._solver.get_core() or ())
        return [x for x in assumed if x in guilty]

    def holds(self, v: int) -> bool:
        """Returns a variable's value in the solution that `solve` found last."""
        return v in self._true

    @property
    def conflicts(self) -> int:
        """Met so far, by all calls together."""
        met: int = self._solver.accum_stats()["conflicts"]
        return met
