"""Asking a model in this process: log probabilities of what may follow a prompt, teacher-forced, many prompts a pass.

Prompts go through the engine's forward pass as pieces that emit the logits after their last tokens. Where the
continuations differ in one token, as letters do, a prompt takes one piece; else each continuation takes its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.runtime.llm.paging import blocks_of
from fleetcast.runtime.llm.requests import Model, Piece
from fleetcast.runtime.measure.quality.orders import Ask
from fleetcast.runtime.measure.quality.score import Scored

TOKENS = 2048
"""Tokens of a pass, as far as whole questions allow."""
LONGEST = 1024
"""Tokens that a prompt with a continuation may have where the model's context allows more."""


class Words(Protocol):
    """Text to token ids."""

    def encode(self, text: str) -> list[int]:
        """Returns the ids, those that begin every text among them."""
        ...


class Bytes:
    """The bytes of a text as its ids: what a model with a vocabulary of bytes reads."""

    def encode(self, text: str) -> list[int]:
        """Returns 0 to 255 each."""
        return list(text.encode())


def words_of(folder: str | Path, vocab: int) -> Words:
    """Returns how a folder's model reads text: its tokenizer.json, or bytes where there is none and bytes will do.

    Raises:
        SpecError: a damaged tokenizer, or none and a vocabulary that is not of bytes: 256, and up to 64 special ids.
        MissingExtra: tokenizers is not installed.
    """
    if not (Path(folder) / "tokenizer.json").is_file() and 256 <= vocab <= 320:
        return Bytes()
    from fleetcast.runtime.llm.text import open_text

    return open_text(folder, vocab)


@dataclass(frozen=True, slots=True)
class _Job:
    """An ask in tokens: sequences to run, after how many of the last tokens logits are read, and which ids there."""

    runs: tuple[tuple[tuple[int, ...], int], ...]
    wanted: tuple[tuple[int, ...], ...]
    single: bool

    @property
    def tokens(self) -> int:
        return sum(len(tokens) for tokens, _ in self.runs)

    @property
    def blocks(self) -> int:
        return sum(blocks_of(len(tokens)) for tokens, _ in self.runs)


class Local:
    """Scores asks by a model of this process. Meets the `Scorer` protocol.

    Args:
        model: runs passes.
        words: how it reads text.
        blocks: of its cache, all of which are used.
        clock: s.
        mean: log probabilities are per byte of the continuation, as for texts of different lengths; else their sum.
    """

    def __init__(
        self, model: Model, words: Words, *, blocks: int, mean: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        self.model, self.words, self.blocks, self.mean, self.clock = model, words, blocks, mean, clock

    def score(self, asks: Sequence[Ask]) -> Iterator[Scored]:
        """Yields what the model says of each ask, in order; a pass's time is shared by tokens.

        Raises:
            SpecError: a prompt longer than the context or the cache.
        """
        batch: list[tuple[Ask, _Job]] = []
        for ask in asks:
            job = self._job(ask)
            full = sum(j.tokens for _, j in batch) + job.tokens > TOKENS
            if batch and (full or sum(j.blocks for _, j in batch) + job.blocks > self.blocks):
                yield from self._run(batch)
                batch = []
            batch.append((ask, job))
        if batch:
            yield from self._run(batch)

    def _job(self, ask: Ask) -> _Job:
        whole = [tuple(self.words.encode(ask.prompt + c)) for c in ask.continuations]
        shared = min(_shared(whole), min(map(len, whole)) - 1)
        if shared < 1:
            raise SpecError("prompt", "shares no token with its continuations", value=ask.prompt, limit="one at least")
        single = all(len(ids) == shared + 1 for ids in whole)
        runs = ((whole[0][:shared], 1),) if single else tuple((ids[:-1], len(ids) - shared) for ids in whole)
        job = _Job(runs, tuple(ids[shared:] for ids in whole), single)
        longest = max(map(len, whole))
        if longest > self.model.context or job.blocks > self.blocks:
            limit = f"{min(self.model.context, self.blocks * 16)} tokens"
            raise SpecError("question", "is longer than the model reads", value=ask.prompt, limit=limit,
                            hint="Leave the question out, or take a model with more context")  # fmt: skip
        return job

    def _run(self, batch: Sequence[tuple[Ask, _Job]]) -> Iterator[Scored]:
        begun, pieces, taken = self.clock(), [], 0
        for _, job in batch:
            for tokens, emit in job.runs:
                need = blocks_of(len(tokens))
                pieces.append(Piece(tokens, 0, range(taken, taken + need), emit))
                taken += need
        answer: Any = self.model.forward(pieces)  # pieces that keep all: every row is the whole vocabulary's
        rows = logprobs(np.asarray(answer, dtype=np.float32))
        seconds = (self.clock() - begun) / sum(job.tokens for _, job in batch)
        at = 0
        for ask, job in batch:
            found = []
            for ids in job.wanted:
                found.append(float(sum(rows[at + k, token] for k, token in enumerate(ids))))
                at += 0 if job.single else len(ids)
            at += job.single
            if self.mean:
                found = [x / len(c.encode()) for x, c in zip(found, ask.continuations, strict=True)]
            yield Scored(tuple(found), seconds * job.tokens, job.tokens)


def _shared(several: Sequence[Sequence[int]]) -> int:
    """Returns how many tokens all begin with."""
    return next((i for i, ids in enumerate(zip(*several, strict=False)) if len(set(ids)) > 1), min(map(len, several)))


def logprobs(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns log probabilities (rows, vocabulary) of logits."""
    wide = logits.astype(np.float64)
    peak = wide.max(axis=1, keepdims=True)
    return np.asarray(wide - peak - np.log(np.exp(wide - peak).sum(axis=1, keepdims=True)))


def held(thing: object, but: object = None) -> int:
    """Returns the bytes of all tensors that an object holds, each counted once, without those that ``but`` holds."""
    seen: set[int] = set()
    if but is not None:
        _held(but, seen)
    return _held(thing, seen)


def _held(thing: object, seen: set[int]) -> int:
    if id(thing) in seen or isinstance(thing, str | bytes | int | float | type | ModuleType | None):
        return 0
    seen.add(id(thing))
    if hasattr(thing, "untyped_storage"):
        try:
            storage = thing.untyped_storage()
        except NotImplementedError:  # packed for a library, which alone knows where it lies
            return int(thing.numel() * thing.element_size())  # type: ignore[attr-defined]
        known, place = storage.data_ptr() in seen, storage.data_ptr()
        seen.add(place)
        return 0 if known else int(storage.nbytes())
    if isinstance(thing, dict):
        return sum(_held(value, seen) for value in thing.values())
    if isinstance(thing, list | tuple | set | frozenset):
        return sum(_held(value, seen) for value in thing)
    slots = [getattr(thing, name, None) for name in getattr(type(thing), "__slots__", ())]
    return sum(_held(value, seen) for value in (*getattr(thing, "__dict__", {}).values(), *slots))
