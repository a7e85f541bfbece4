"""Prompt lookup: what followed the last few tokens earlier in the context is drafted.

Saxena, "Prompt Lookup Decoding", 2023. The longest match wins, of equal ones the latest. What follows a match near the
context's end runs on into the draft itself, so that a loop is drafted as a loop.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleetcast.base.errors import SpecError
from fleetcast.policy.speculate import LONGEST
from fleetcast.runtime.llm.draft.protocol import Ask


class NgramLookup:
    """Looks the last tokens up in the request's own context.

    Args:
        longest: most tokens that are matched.
        shortest: fewest.

    Raises:
        SpecError: not 1 <= shortest <= longest.
    """

    drafters, vocab = 1, 0

    def __init__(self, *, longest: int = 3, shortest: int = 1) -> None:
        if not 1 <= shortest <= longest:
            raise SpecError("drafter.shortest", "cannot be", value=shortest, limit=f"from 1 to longest ({longest})")
        self.lengths = range(longest, shortest - 1, -1)
        self._seen: dict[int, tuple[int, dict[tuple[int, ...], int]]] = {}

    def offers(self, request: int, tokens: Sequence[int]) -> int | None:
        """Returns as many as may be drafted where there is a match, else 0."""
        return 0 if self._match(request, tokens) is None else LONGEST

    def draft(self, asked: Sequence[Ask]) -> list[list[int]]:
        """Returns what followed the latest longest match of each context's end."""
        found = []
        for ask in asked:
            at, drafted = self._match(ask.request, ask.tokens), list[int]()
            if at is not None:
                for place in range(at, at + ask.length):
                    ahead = place - len(ask.tokens)
                    drafted.append(ask.tokens[place] if ahead < 0 else drafted[ahead])
            found.append(drafted)
        return found

    def forget(self, request: int) -> None:
        """Drops a request's index."""
        self._seen.pop(request, None)

    def close(self) -> None:
        """Ends nothing: there is nothing to end."""

    def _match(self, request: int, tokens: Sequence[int]) -> int | None:
        """Returns where in the context what comes next may be read."""
        done, seen = self._seen.get(request, (0, {}))
        for end in range(done + 1, len(tokens)):
            for n in self.lengths:
                if n <= end:
                    seen[tuple(tokens[end - n : end])] = end
        self._seen[request] = max(done, len(tokens) - 1), seen
        return next((seen[key] for n in self.lengths if (key := tuple(tokens[-n:])) in seen and n <= len(tokens)), None)
