"""Knobs: what may be set, to which values, and how a predictor sees a setting.

A setting is a row of whole numbers, one per knob: which of its values. Numbers that are all above zero are seen by
their logarithm, flags as 0 and 1, words as one column each. Settings that can never run are not proposed:
`Knobs.allowed` says so of many at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError

Value = int | float | str | bool
Rows = NDArray[np.int64]
Floats = NDArray[np.float64]
Allowed = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.bool_]]
Derived = Callable[[Mapping[str, NDArray[Any]]], Sequence[NDArray[Any]]]
DRAWS = 64
"""Times that as many rows are drawn again as are wanted, before it is said that too few are allowed."""


@dataclass(frozen=True)
class Knob:
    """One thing to set.

    Attributes:
        name: of the knob.
        values: that it takes; numbers in growing order.
    """

    name: str
    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        """Refuses a knob that says nothing.

        Raises:
            SpecError: no value, a value twice, numbers that do not grow, or numbers and words mixed.
        """
        problem = ""
        if not self.values:
            problem = "has no value"
        elif len({(type(v) is bool, v) for v in self.values}) < len(self.values):
            problem = "has a value twice"
        elif any(isinstance(v, str) for v in self.values) and not all(isinstance(v, str) for v in self.values):
            problem = "mixes words and numbers"
        elif self.ordered and list(self.values) != sorted(self.values):
            problem = "has numbers that do not grow"
        if problem:
            raise SpecError(
                f"knobs.{self.name}", problem, value=list(self.values), limit="values that differ, numbers growing"
            )

    @property
    def ordered(self) -> bool:
        """Whether a value has neighbours: numbers do, words do not."""
        return not isinstance(self.values[0], str)

    @cached_property
    def columns(self) -> Floats:
        """What a predictor sees of each value: f8[values, columns], numbers between 0 and 1."""
        if not self.ordered:
            return np.asarray(np.eye(len(self.values)) / np.sqrt(2.0), dtype=np.float64)
        table = np.asarray([float(v) for v in self.values])
        if table[0] > 0:
            table = np.log2(table)
        width = table[-1] - table[0]
        return ((table - table[0]) / width if width else table * 0.0)[:, None]


@dataclass(frozen=True)
class Knobs:
    """All knobs of a question.

    Attributes:
        knobs: in order; a setting has a number for each.
        allowed: which settings could run at all, from columns of values by name; None = all of them.
        derived: what follows from several knobs and is known to matter, as columns of numbers above 0, from the same;
            the predictor sees their logarithms beside the knobs. Copies of a model, say, from the degrees that share
            the devices.
    """

    knobs: tuple[Knob, ...]
    allowed: Allowed | None = None
    derived: Derived | None = None

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Values of each knob."""
        return np.asarray([len(k.values) for k in self.knobs], dtype=np.int64)

    @property
    def size(self) -> int:
        """Settings in all, those that are not allowed counted too."""
        return int(np.prod([float(n) for n in self.sizes]))

    @cached_property
    def _values(self) -> list[NDArray[Any]]:
        return [np.asarray(k.values) for k in self.knobs]

    def columns(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Returns the values of settings, a column per knob."""
        return {k.name: table[rows[:, i]] for i, (k, table) in enumerate(zip(self.knobs, self._values, strict=True))}

    def setting(self, row: Rows) -> dict[str, Value]:
        """Returns one setting: name -> value."""
        return {k.name: k.values[int(at)] for k, at in zip(self.knobs, row, strict=True)}

    def row(self, setting: Mapping[str, Any]) -> Rows:
        """Returns the row of a setting.

        Raises:
            SpecError: a knob left out, or a value that it does not have.
        """
        found = []
        for knob in self.knobs:
            if knob.name not in setting or setting[knob.name] not in knob.values:
                raise SpecError(
                    f"knobs.{knob.name}", "is not one of its values", value=setting.get(knob.name),
                    limit=f"one of {', '.join(map(str, knob.values))}",
                )  # fmt: skip
            found.append(knob.values.index(setting[knob.name]))
        return np.asarray(found, dtype=np.int64)

    def possible(self, rows: Rows) -> NDArray[np.bool_]:
        """Returns which settings are allowed."""
        if self.allowed is None or not len(rows):
            return np.ones(len(rows), dtype=np.bool_)
        return np.asarray(self.allowed(self.columns(rows)), dtype=np.bool_)

    def draw(self, rng: np.random.Generator, count: int) -> Rows:
        """Returns up to ``count`` allowed settings, drawn evenly.

        Raises:
            SpecError: none of very many is allowed.
        """
        found: list[Rows] = []
        held = 0
        for _ in range(DRAWS):
            rows = (rng.random((4 * count, len(self.knobs))) * self.sizes).astype(np.int64)
            rows = rows[self.possible(rows)]
            found.append(rows)
            held += len(rows)
            if held >= count:
                break
        if not held:
            raise SpecError(
                "knobs", "allow no setting", value=f"0 of {4 * count * DRAWS:,} drawn", limit="some that could run",
                hint="Check allowed, or leave out values that go with nothing",
            )  # fmt: skip
        return np.concatenate(found)[:count]

    def near(self, rng: np.random.Generator, rows: Rows, count: int) -> Rows:
        """Returns ``count`` settings near ``rows``, one to three knobs of each moved; those that are allowed."""
        made = rows[rng.integers(len(rows), size=count)].copy()
        moves = rng.choice((1, 2, 3), size=count, p=(0.5, 0.3, 0.2))
        ordered = np.asarray([k.ordered and len(k.values) > 2 for k in self.knobs])
        for turn in range(3):
            at = np.flatnonzero(moves > turn)
            knob = rng.integers(len(self.knobs), size=len(at))
            value, size = made[at, knob], self.sizes[knob]
            step = rng.choice((-2, -1, 1, 2), size=len(at), p=(0.15, 0.35, 0.35, 0.15))
            stepped = np.clip(value + step, 0, size - 1)
            other = (value + 1 + (rng.random(len(at)) * np.maximum(size - 1, 1)).astype(np.int64)) % size
            made[at, knob] = np.where(ordered[knob], stepped, other)
        return made[self.possible(made)]

    def seen(self, rows: Rows) -> Floats:
        """Returns what a predictor sees of settings: f8[n, columns]."""
        parts = [k.columns[rows[:, i]] for i, k in enumerate(self.knobs)]
        if self.derived is not None:
            parts += [
                np.log2(np.asarray(c, dtype=np.float64))[:, None] / 10.0 for c in self.derived(self.columns(rows))
            ]
        return np.concatenate(parts, axis=1)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """Of each column of `seen`, the knob that it is of; what is derived counts as further knobs."""
        own = [np.full(k.columns.shape[1], i) for i, k in enumerate(self.knobs)]
        more = (
            0
            if self.derived is None
            else len(self.derived(self.columns(np.zeros((1, len(self.knobs)), dtype=np.int64))))
        )
        return np.concatenate([*own, len(self.knobs) + np.arange(more)])
