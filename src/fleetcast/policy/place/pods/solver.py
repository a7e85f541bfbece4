"""The solver, where it is installed."""

from __future__ import annotations

from typing import Any

from fleetcast.base.errors import MissingExtra


def cp_model() -> Any:
    """Returns OR-Tools' module of CP-SAT.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        from ortools.sat.python import cp_model as found
    except ImportError:
        raise MissingExtra("ortools", "solve") from None
    return found


def solver(seconds: float, seed: int = 0) -> Any:
    """Returns a solver with one worker and a budget of deterministic time: equal models have equal answers."""
    found = cp_model().CpSolver()
    found.parameters.max_deterministic_time = seconds
    found.parameters.num_workers = 1
    found.parameters.random_seed = seed
    return found
