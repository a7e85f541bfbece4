"""From the engine's names for the parts of a model to those of a family's checkpoints.

The engine knows ``layers.3.q.weight`` in every family. A checkpoint may call it
``model.layers.3.self_attn.q_proj.weight``, or hold it as the first columns of ``h.3.attn.c_attn.weight``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

Size = tuple[int, ...]


class Stored(NamedTuple):
    """A tensor of a checkpoint.

    Attributes:
        name: in the checkpoint.
        size: as stored.
        parts: the engine's names for what it holds, with the outputs of each, one after the other.
        transposed: it is stored (inputs, outputs), not (outputs, inputs).
    """

    name: str
    size: Size
    parts: tuple[tuple[str, int], ...]
    transposed: bool


@dataclass(frozen=True)
class Naming:
    """How a family names its tensors.

    Attributes:
        tables: stored name of what is there once: embedding, positions, norm, head.
        layer: what precedes the names of a layer's parts; ``{}`` is its number.
        parts: stored names of a layer's parts. Several parts in one, as "q k v", are stored one after the other; the
            ``*`` of both sides is an expert's number.
        transposed: matrices of layers are stored (inputs, outputs).
        prefix: of all names, which a checkpoint may leave out.
        spare: pattern of tensors that may be there and are computed anew.
    """

    tables: Mapping[str, str]
    layer: str
    parts: Mapping[str, str]
    transposed: bool = False
    prefix: str = ""
    spare: str = r".*\.rotary_emb\.inv_freq"

    def tensors(self, parts: Iterable[tuple[str, Size]]) -> Iterator[Stored]:
        """Yields what a checkpoint stores of ``parts``, the engine's names and (outputs, inputs) of each."""
        joined = {part: (whole, name) for whole, name in self.parts.items() for part in whole.split()}
        held: dict[str, list[tuple[str, Size]]] = {}
        for part, size in parts:
            held.setdefault(self._name(part, joined), []).append((part, size))
        for name, members in held.items():
            outputs, rest = sum(size[0] for _, size in members), members[0][1][1:]
            turned = self.transposed and bool(rest) and members[0][0].startswith("layers.")
            size = (*rest, outputs) if turned else (outputs, *rest)
            yield Stored(name, size, tuple((part, s[0]) for part, s in members), turned)

    def plain(self, name: str) -> str:
        """Returns a name in a file as `tensors` has it."""
        return name.removeprefix(self.prefix)

    def is_spare(self, name: str) -> bool:
        """Whether a checkpoint may hold a tensor that is computed anew here."""
        return re.fullmatch(self.spare, name) is not None

    def _name(self, part: str, joined: Mapping[str, tuple[str, str]]) -> str:
        stem, _, kind = part.rpartition(".")
        if not stem.startswith("layers."):
            return f"{self.tables[stem]}.{kind}"
        _, layer, inner = stem.split(".", 2)
        expert = re.search(r"\.(\d+)\.", inner)
        if expert is None:
            return f"{self.layer.format(layer)}{joined[inner][1]}.{kind}"
        name = joined[inner.replace(expert[0], ".*.")][1].replace("*", expert[1])
        return f"{self.layer.format(layer)}{name}.{kind}"
