"""What is asked of a drafter, and what every drafter can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Ask(NamedTuple):
    """A draft that is wanted.

    Attributes:
        request: its number; unique in an engine.
        tokens: the request's prompt and what has come out.
        length: most tokens to draft, at least 1.
        drafters: how many drafters vote.
    """

    request: int
    tokens: Sequence[int]
    length: int
    drafters: int = 1


class Drafter(Protocol):
    """Says what may come next.

    Attributes:
        drafters: how many it can let vote.
        vocab: of its token ids; 0 = any.
    """

    drafters: int
    vocab: int

    def offers(self, request: int, tokens: Sequence[int]) -> int | None:
        """Returns how many tokens a lookup has for a request now; None where a model drafts, which always has some."""
        ...

    def draft(self, asked: Sequence[Ask]) -> list[list[int]]:
        """Returns a draft for each that is asked, of at most its length; none where it has nothing to say."""
        ...

    def forget(self, request: int) -> None:
        """Drops what is kept of a request that decodes no longer; it may come back."""
        ...

    def close(self) -> None:
        """Ends what the drafter has begun."""
        ...
