"""The errors a user can meet. Each names the thing, its value, the limit and the next step."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from fleetcast.base.show import show


class FleetcastError(Exception):
    """Root of every error that Fleetcast raises on purpose. ``exit_code`` is the command's."""

    exit_code = 2


class SpecError(FleetcastError):
    """A scenario, trace or model file says something that cannot be.

    Args:
        path: where, e.g. ``plan.tensor_parallel`` or ``trace.csv line 7, column output_tokens``.
        problem: what is wrong, in a few words.
        value: the offending value, if there is one.
        limit: what would be accepted.
        hint: the next step.
    """

    def __init__(self, path: str, problem: str, *, value: object = None, limit: str = "", hint: str = "") -> None:
        self.path, self.problem, self.value, self.limit, self.hint = (
            path,
            problem,
            value,
            limit,
            hint,
        )
        text = f"{path}: {problem}"
        if value is not None:
            text += f" (got {_short(value)})"
        if limit:
            text += f"; {limit}"
        if hint:
            text += f". {hint}"
        super().__init__(text)


class Infeasible(FleetcastError):
    """A plan that cannot run, with the binding constraint and its size."""

    exit_code = 1

    def __init__(self, constraint: str, *, need: float, have: float, unit: str = "", hint: str = "") -> None:
        self.constraint, self.need, self.have, self.unit, self.hint = (
            constraint,
            need,
            have,
            unit,
            hint,
        )
        text = f"does not fit: {constraint} needs {show(need, unit)}, have {show(have, unit)}"
        super().__init__(f"{text}. {hint}" if hint else text)


class Unsupported(FleetcastError):
    """A combination that no engine of ours can do, with the reason."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(f"{message}. {hint}" if hint else message)


class PolicyError(FleetcastError):
    """A policy made a decision that the world cannot apply; nothing was changed by it."""


class MissingExtra(FleetcastError):
    """An optional dependency is absent."""

    def __init__(self, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(f"{package} is not installed; run: pip install 'fleetcast[{extra}]'")


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns the known word closest to ``word``, or "" where none is near."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), "")


def closest(word: str, known: Iterable[str]) -> str:
    """Returns "Did you mean 'x'?" for the known word closest to ``word``, or ""."""
    near = nearest(word, known)
    return f"Did you mean '{near}'?" if near else ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
