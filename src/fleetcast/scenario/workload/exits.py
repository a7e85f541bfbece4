"""Familial models: one trunk whose layers answer at several depths, and what is known of each answer.

An exit answers after ``layers`` of the trunk. Every exit but one at the trunk's end has a decoder layer, a norm and a
head of its own on top (An et al., "AI Flow", 2025: the extra layer starts as a copy of the trunk's next one).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.files import read_text
from fleetcast.base.spec import Spec, convert, read_toml

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fleetcast.scenario.workload.models import Model

_FILE = Path(__file__).with_name("families.toml")


class Exit(Spec):
    """A depth at which a familial model answers.

    Attributes:
        layers: of the trunk that an answer passes.
        quality: share of right answers.
    """

    layers: Annotated[int, msgspec.Meta(ge=1, le=100_000)]
    quality: Annotated[float, msgspec.Meta(ge=0, le=1)]


class Family(Spec):
    """A published familial model: ``trunk`` is a catalogue model, ``exits`` its depths, shallow to deep."""

    id: str
    trunk: str
    exits: tuple[Exit, ...]
    source: str


class _Families(Spec):
    family: tuple[Family, ...]


@cache
def families() -> Mapping[str, Family]:
    """Returns the published families by id."""
    rows = convert(read_toml(read_text(_FILE), _FILE.name), _Families, "families").family
    return {row.id: row for row in rows}


def exits_of(given: str | Sequence[Exit], model: Model, path: str = "workload.exits") -> tuple[Exit, ...]:
    """Returns the exits that a scenario names or lists, checked against the trunk.

    Args:
        given: id of a published family, or the exits.
        model: the trunk.
        path: where they stand, for errors.

    Raises:
        SpecError: no such family or another trunk's, an exit deeper than the model, depths or qualities that do not
            rise.
    """
    if isinstance(given, str):
        known = families()
        if given not in known:
            raise SpecError(
                path, "is not a familial model of the catalogue", value=given,
                limit=f"one of {', '.join(known)}, or a list of {{ layers, quality }}",
                hint=closest(given, known),
            )  # fmt: skip
        if known[given].trunk != model.id:
            raise SpecError(
                path, f"has another trunk than {model.id}", value=given, limit=f"its trunk is {known[given].trunk}",
                hint=f'Write workload.model = "{known[given].trunk}"',
            )  # fmt: skip
        return known[given].exits
    exits = tuple(given)
    if not exits:
        raise SpecError(path, "is empty", value=[], hint="Write e.g. exits = [{ layers = 12, quality = 0.5 }]")
    for i, (low, high) in enumerate(pairwise(exits), 1):
        for name in ("layers", "quality"):
            if getattr(high, name) <= getattr(low, name):
                raise SpecError(
                    f"{path}[{i}].{name}", "does not rise", value=getattr(high, name),
                    limit=f"above {getattr(low, name)}, that of the exit before",
                    hint="List exits from shallow to deep; leave out one that a shallower exit equals",
                )  # fmt: skip
    if exits[-1].layers > model.layers:
        raise SpecError(
            f"{path}[{len(exits) - 1}].layers", "is deeper than the model", value=exits[-1].layers,
            limit=f"{model.id} has {model.layers} layers",
        )  # fmt: skip
    return exits


@dataclass(frozen=True, eq=False)
class Answers:
    """Measured answers of every exit to the same questions.

    Attributes:
        confidence: float64[questions, exits], 0 to 1.
        right: bool[questions, exits].
    """

    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]


def read_answers(path: Path, exits: Sequence[Exit], where: str = "workload.confidence") -> Answers:
    """Returns the answers in a CSV file: columns ``confidence_L`` and ``right_L`` (0 or 1) for each exit, L its layers.

    Raises:
        SpecError: unreadable, a column missing, or a value out of range; names file, line and column.
    """
    import numpy as np

    rows = list(csv.reader(read_text(path).splitlines()))
    head = [name.strip() for name in rows[0]] if rows else []
    names = [f"{what}_{e.layers}" for what in ("confidence", "right") for e in exits]
    for name in names:
        if name not in head:
            raise SpecError(where, f"has no column {name}", value=str(path), limit=f"columns: {', '.join(names)}")
    if len(rows) < 2:
        raise SpecError(where, "holds no answers", value=str(path), hint="Add a line per question")
    places = [head.index(name) for name in names]
    table = np.empty((len(rows) - 1, len(names)))
    for i, row in enumerate(rows[1:]):
        for j, place in enumerate(places):
            text = row[place] if place < len(row) else ""
            try:
                value = float(text)
            except ValueError:
                value = float("nan")
            whole = j < len(exits) or value in (0.0, 1.0)
            if not (0.0 <= value <= 1.0 and whole):
                limit = "0 to 1" if j < len(exits) else "0 or 1"
                raise SpecError(
                    f"{path.name} line {i + 2}, column {names[j]}", "is out of range", value=text, limit=limit
                )
            table[i, j] = value
    return Answers(table[:, : len(exits)], table[:, len(exits) :] > 0.5)
