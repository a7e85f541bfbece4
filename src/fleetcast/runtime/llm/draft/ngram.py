"""An n-gram model: the likeliest token after the longest context that it has seen in training, greedily.

It knows one kind of text and costs next to nothing, so that several of them, each of a domain, may vote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.runtime.llm.draft.protocol import Ask


class NgramModel:
    """Backs off from the longest known context to shorter ones, down to the likeliest token of all.

    Args:
        table: what follows a context, by its tokens.
        vocab: of the tokens.
    """

    drafters = 1

    def __init__(self, table: Mapping[tuple[int, ...], int], vocab: int) -> None:
        self.table, self.vocab = dict(table), vocab
        self.order = max(map(len, self.table), default=0)

    @classmethod
    def trained(
        cls, tokens: Sequence[int] | NDArray[np.integer[Any]], order: int, vocab: int, *, times: int = 2
    ) -> NgramModel:
        """Returns the model of a text.

        A context is kept where it was often enough and says something else than the shorter one that it ends with.

        Args:
            tokens: of the text.
            order: tokens of the longest context.
            vocab: of the tokens.
            times: that a context must have been followed by its likeliest token.

        Raises:
            SpecError: an order below 0, or fewer than two tokens more than it.
        """
        text = np.asarray(tokens, dtype=np.int64)
        if order < 0 or len(text) < order + 2:
            limit = f"from 0 to {max(0, len(text) - 2)}, for a text of {len(text)} tokens"
            raise SpecError("drafter.order", "cannot be", value=order, limit=limit)
        table: dict[tuple[int, ...], int] = {}
        found = cls(table, vocab)
        code = np.zeros(len(text), dtype=np.int64)  # which context of n tokens ends before each position
        for n in range(order + 1):
            if n:
                pairs = code[n:] * vocab + text[: len(text) - n]  # the context of n - 1 and the token before it
                code[n:] = np.unique(pairs, return_inverse=True)[1]
            said, first, counts = np.unique(code[n:] * vocab + text[n:], return_index=True, return_counts=True)
            ranked = np.lexsort((said, -counts, said // vocab))
            best = ranked[np.unique((said // vocab)[ranked], return_index=True)[1]]
            for place, count in zip((first[best] + n).tolist(), counts[best].tolist(), strict=True):
                context, token = tuple(text[place - n : place].tolist()), int(text[place])
                if n == 0 or (count >= times and found.next(context[1:]) != token):
                    table[context] = token
            found = cls(table, vocab)
        return found

    def next(self, context: Sequence[int]) -> int:
        """Returns the likeliest token after a context."""
        for n in range(min(self.order, len(context)), -1, -1):
            token = self.table.get(tuple(context[len(context) - n :]))
            if token is not None:
                return token
        raise SpecError(
            "drafter.table", "says nothing of the empty context", limit="what follows () where all else fails"
        )

    def offers(self, request: int, tokens: Sequence[int]) -> int | None:
        """Returns None: it has always something to say."""
        return None

    def draft(self, asked: Sequence[Ask]) -> list[list[int]]:
        """Returns each context's likeliest continuation, token by token."""
        found = []
        for ask in asked:
            line = list(ask.tokens[len(ask.tokens) - min(self.order, len(ask.tokens)) :])
            for _ in range(ask.length):
                line.append(self.next(line[max(0, len(line) - self.order) :]))
            found.append(line[len(line) - ask.length :])
        return found

    def forget(self, request: int) -> None:
        """Drops nothing: it keeps nothing of requests."""

    def close(self) -> None:
        """Ends nothing: there is nothing to end."""
