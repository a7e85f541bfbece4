"""What goes through an engine: requests, the pieces of them that a pass processes, tokens, iterations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fleetcast.runtime.llm.paging import Node
from fleetcast.runtime.llm.sampling import Candidates, Choice, Sampler


class Piece(NamedTuple):
    """Consecutive tokens of one sequence to process: a decode step's one token, or a piece of a prompt.

    Attributes:
        tokens: their ids.
        start: position of the first; all before it are cached.
        table: the sequence's cache blocks, enough for the last of them.
        emit: after how many of the last tokens logits are wanted.
        keep: of how many of the likeliest tokens; 0 = of all. A model may return more.
    """

    tokens: Sequence[int]
    start: int
    table: Sequence[int]
    emit: int
    keep: int = 0


Logits = NDArray[np.float32] | Sequence[NDArray[np.float32] | Candidates]
"""A row for each token that emits: its logits, or the likeliest of them."""


class Model(Protocol):
    """What runs an iteration. One with processes of its own has a ``close`` too."""

    vocab: int
    context: int

    def forward(self, pieces: Sequence[Piece]) -> Logits:
        """Returns the logits of the tokens that emit and caches every token's keys and values."""
        ...


@dataclass(frozen=True)
class Token:
    """A token as it comes out: the request's number, the choice, and why the request ended with it ("" = it did not).

    ``finish`` is "stop" for a stop token and "length" for the last token allowed.
    """

    request: int
    choice: Choice
    finish: str


@dataclass
class Drafts:
    """What a request's speculation has come to: `policy.speculate.View` has the meanings."""

    length: int | None = None
    proposed: int = 0
    accepted: int = 0
    tried: int = 0
    right: int = 0
    idle: int = 0


@dataclass(eq=False)
class Request:
    """A request on its way. ``tokens`` are the prompt and what has come out so far.

    ``finish`` is "" while it is here, then as `Token` says, or "cancelled". ``cached`` prompt tokens were found in the
    prefix cache when the request first entered; it shares blocks only with requests of the same ``salt``. ``nodes`` are
    the first blocks of its ``table`` where the prefix cache holds them too. ``ahead`` is how many drafted tokens its
    next decode step may check. Times are the engine's clock, s; below 0 = not yet.
    """

    id: int
    arrival: float
    prompt: int
    limit: int
    tokens: list[int]
    sampler: Sampler
    on_token: Callable[[Token], None] | None
    key: float
    salt: str = ""
    prefilled: int = 0
    cached: int = 0
    ahead: int = 0
    admitted: int = -1
    table: list[int] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    drafts: Drafts = field(default_factory=Drafts)
    finish: str = ""
    first: float = -1.0
    end: float = -1.0

    @property
    def emitted(self) -> int:
        """Tokens that have come out."""
        return len(self.choices)

    @property
    def output(self) -> list[int]:
        """The tokens that have come out."""
        return self.tokens[self.prompt :]


class Iteration(NamedTuple):
    """What one iteration was: start and duration (s), decode steps, prompts, their tokens, blocks claimed.

    ``cached`` tokens were found for the requests that entered, instead of being computed. Of ``drafted`` tokens that
    the decode steps checked, ``accepted`` were right.
    """

    time: float
    duration: float
    decodes: int
    prefills: int
    prefill_tokens: int
    blocks: int
    cached: int = 0
    drafted: int = 0
    accepted: int = 0
