"""A small model drafts greedily, over a paged cache of its own that is kept in step with what the target accepted.

Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative Decoding", ICML 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fleetcast.runtime.llm.draft.protocol import Ask
from fleetcast.runtime.llm.paging import Blocks, blocks_of
from fleetcast.runtime.llm.requests import Model, Piece


@dataclass
class _Line:
    """A request's tokens whose keys and values the drafter has, its blocks, and how many tokens are the target's."""

    tokens: list[int] = field(default_factory=list)
    table: list[int] = field(default_factory=list)
    sure: int = 0


class ModelDrafter:
    """Drafts by a model. A request for which its cache has no room left gets no draft.

    Args:
        model: of the target's vocabulary.
        blocks: of the model's KV cache.

    Raises:
        SpecError: no blocks.
    """

    drafters = 1

    def __init__(self, model: Model, *, blocks: int) -> None:
        self.model, self.blocks, self.vocab = model, Blocks(blocks), model.vocab
        self._lines: dict[int, _Line] = {}

    def offers(self, request: int, tokens: Sequence[int]) -> int | None:
        """Returns None: a model has always something to say."""
        return None

    def draft(self, asked: Sequence[Ask]) -> list[list[int]]:
        """Returns greedy drafts: a pass over what is new of each context, then one pass a token for all together."""
        drafts: list[list[int]] = [[] for _ in asked]
        wanted = [self._ready(ask) for ask in asked]
        active = [i for i, n in enumerate(wanted) if n]
        pieces = [self._behind(asked[i]) for i in active]
        while active:
            logits = self.model.forward(pieces)
            for i, piece, row in zip(active, pieces, logits, strict=True):
                line = self._lines[asked[i].request]
                line.tokens = line.tokens[: piece.start] + list(piece.tokens)
                drafts[i].append(int(row.argmax()))
            active = [i for i in active if len(drafts[i]) < wanted[i]]
            pieces = [self._step(asked[i], drafts[i]) for i in active]
        return drafts

    def forget(self, request: int) -> None:
        """Frees a request's cache."""
        line = self._lines.pop(request, None)
        if line is not None:
            self.blocks.give(line.table)

    def close(self) -> None:
        """Frees the caches of all requests."""
        for request in list(self._lines):
            self.forget(request)

    def _ready(self, ask: Ask) -> int:
        """Makes room for a draft; returns how many tokens of it there is room for."""
        length = min(ask.length, self.model.context - len(ask.tokens) + 1)
        line = self._lines.setdefault(ask.request, _Line())
        more = blocks_of(len(ask.tokens) + length - 1) - len(line.table)
        if length < 1 or more > self.blocks.free:
            return 0
        line.table += self.blocks.take(max(0, more))
        return length

    def _behind(self, ask: Ask) -> Piece:
        """Returns what the cache lacks of a context: what was rejected of the last draft is overwritten."""
        line, tokens = self._lines[ask.request], ask.tokens
        same, most = line.sure, min(len(line.tokens), len(tokens) - 1)
        while same < most and line.tokens[same] == tokens[same]:
            same += 1
        line.sure = same
        return Piece(list(tokens[same:]), same, line.table, 1)

    def _step(self, ask: Ask, draft: list[int]) -> Piece:
        return Piece(draft[-1:], len(ask.tokens) + len(draft) - 1, self._lines[ask.request].table, 1)
