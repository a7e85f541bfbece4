"""A familial model cut into the parts that tiers run, each of them a `Model` that the serving world knows.

Exits and their extra layer: `scenario.workload.exits`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from fleetcast.scenario.workload.models import Model
from fleetcast.scenario.workload.tensors import linear


class Part(NamedTuple):
    """Trunk layers ``start`` to ``stop``; with ``answers`` also the exit after ``stop``: its layer, norm and head."""

    start: int
    stop: int
    answers: bool

    def __str__(self) -> str:
        whole = f"exit {self.stop}" if self.answers else f"layers 1 to {self.stop}"
        return f"layers {self.start + 1} to {whole}" if self.start else whole


def whole(exit: int) -> Part:
    """Returns the part that answers at an exit from the prompt on."""
    return Part(0, exit, True)


def lower(split: int) -> Part:
    """Returns the part below a split, whose hidden states go elsewhere."""
    return Part(0, split, False)


def upper(split: int, exit: int) -> Part:
    """Returns the part that takes hidden states at a split and answers at an exit."""
    return Part(split, exit, True)


def runs(trunk: Model, part: Part) -> Model:
    """Returns what a part computes for a token, as a model of its own.

    A part without an exit is given a head of one column, so that it takes no time; one without the first layer has no
    embedding: its one table is the head.
    """
    pattern = trunk.pattern[part.start : part.stop] + _own_layer(trunk, part)
    if part.start == 0 and part.answers:
        return msgspec.structs.replace(trunk, pattern=pattern)
    return msgspec.structs.replace(
        trunk, pattern=pattern, tied=True, vocab=trunk.vocab if part.answers else 1, vision_params=0
    )


def held(trunk: Model, parts: Iterable[Part]) -> Model:
    """Returns what lies in the memory of a tier that runs all of ``parts``: shared layers once, each exit's own."""
    found = tuple(parts)
    layers = sorted({i for p in found for i in range(p.start, p.stop)})
    exits = sorted({p.stop for p in found if p.answers})
    embeds = any(p.start == 0 for p in found)
    own = [layer for e in exits for layer in _own_layer(trunk, whole(e))]
    heads = len(exits)
    if trunk.tied and embeds and trunk.layers in exits:
        heads -= 1  # the last exit's head is the embedding
    more = tuple(linear("exit", "head", trunk.hidden, trunk.vocab, split="out") for _ in range(heads + embeds - 1))
    pattern = tuple(trunk.pattern[i] for i in layers) + tuple(own)
    return msgspec.structs.replace(trunk, pattern=pattern, tied=True, extras=trunk.extras + more)


def _own_layer(trunk: Model, part: Part) -> tuple[int, ...]:
    """The extra layer of an exit: alike the trunk's next one; the last exit has none."""
    return trunk.pattern[part.stop : part.stop + 1] if part.answers else ()
