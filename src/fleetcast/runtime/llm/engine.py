"""Continuous batching: every iteration asks the policies what runs, then runs it in one forward pass.

The counterpart of the simulator's reference world: the same policy objects see the same `View`, by the same rules
(evictions, then admission, then one pass), so that on equal requests both make equal iterations. What is simulated
there is computed here. Yu et al., "Orca", OSDI 2022; Kwon et al., "PagedAttention", SOSP 2023 (sec. 4.5: recomputing).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import Infeasible, PolicyError, SpecError, Unsupported
from fleetcast.base.record import ITERATIONS, Record
from fleetcast.policy import batch as batches
from fleetcast.policy import memory as memories
from fleetcast.policy import order as orders
from fleetcast.runtime.llm.paging import Blocks, blocks_of
from fleetcast.runtime.llm.sampling import Choice, Sampler, Sampling


class Piece(NamedTuple):
    """Consecutive tokens of one sequence to process: a decode step's one token, or a piece of a prompt.

    Attributes:
        tokens: their ids.
        start: position of the first; all before it are cached.
        table: the sequence's cache blocks, enough for the last of them.
        emit: after how many of the last tokens logits are wanted.
    """

    tokens: Sequence[int]
    start: int
    table: Sequence[int]
    emit: int


class Model(Protocol):
    """What runs an iteration."""

    vocab: int
    context: int

    def forward(self, pieces: Sequence[Piece]) -> NDArray[np.float32]:
        """Returns the logits (tokens that emit, vocabulary) and caches every token's keys and values."""
        ...


@dataclass(frozen=True)
class Token:
    """A token as it comes out: the request's number, the choice, and why the request ended with it ("" = it did not).

    ``finish`` is "stop" for a stop token and "length" for the last token allowed.
    """

    request: int
    choice: Choice
    finish: str


@dataclass(eq=False)
class Request:
    """A request on its way. ``tokens`` are the prompt and what has come out so far.

    ``finish`` is "" while it is here, then as `Token` says, or "cancelled". Times are the engine's clock, s; below 0 =
    not yet.
    """

    id: int
    arrival: float
    prompt: int
    limit: int
    tokens: list[int]
    sampler: Sampler
    on_token: Callable[[Token], None] | None
    key: float
    prefilled: int = 0
    admitted: int = -1
    table: list[int] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
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
    """What one iteration was: start and duration (s), decode steps, prompts, their tokens, blocks claimed."""

    time: float
    duration: float
    decodes: int
    prefills: int
    prefill_tokens: int
    blocks: int


class Engine:
    """One model, one KV cache, one scheduler. Not safe to call from several threads at once.

    Args:
        model: what runs an iteration.
        blocks: of the KV cache.
        batch: composes iterations.
        order: ranks waiting requests.
        memory: chooses whom to evict when the cache is full; its cache is computed again.
        watermark: blocks that admission leaves free.
        seed: of requests that bring none.
        clock: seconds; the real one unless a test brings its own.

    Raises:
        SpecError: blocks or watermark out of range.
        Unsupported: a memory policy that swaps.
    """

    def __init__(
        self, model: Model, *, blocks: int, batch: batches.Policy | None = None, order: orders.Policy | None = None,
        memory: memories.Policy | None = None, watermark: int = 0, seed: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        if blocks < 1:
            raise SpecError("engine.blocks", "cannot be", value=blocks, limit="at least 1")
        if not 0 <= watermark < blocks:
            raise SpecError("engine.watermark", "cannot be", value=watermark, limit=f"from 0 to {blocks - 1}")
        self.model, self.blocks, self.watermark, self.seed, self.clock = model, Blocks(blocks), watermark, seed, clock
        self.batch = batch if batch is not None else batches.Chunked()
        self.order = order if order is not None else orders.Fifo()
        self.memory = memory if memory is not None else memories.Recompute()
        if self.memory.swap:
            raise Unsupported("the engine cannot swap yet", "Use memory = { kind = 'recompute' }")
        self.rule: batches.Rule | None = self.batch.rule() if hasattr(self.batch, "rule") else None
        self.mixed = self.rule.mixed if self.rule is not None else bool(getattr(self.batch, "mixed", True))
        self.waiting: list[Request] = []
        self.resumed: list[Request] = []
        self.partial: list[Request] = []
        self.running: list[Request] = []
        self.iterations: list[Iteration] = []
        self.submitted = self.admissions = self.preemptions = 0
        self._undelivered: deque[tuple[Callable[[Token], None], Token]] = deque()

    @property
    def load(self) -> int:
        """Requests here, waiting or running."""
        return len(self.waiting) + len(self.resumed) + len(self.partial) + len(self.running)

    def submit(
        self, prompt: Sequence[int], max_tokens: int, sampling: Sampling | None = None,
        on_token: Callable[[Token], None] | None = None,
    ) -> Request:  # fmt: skip
        """Returns the request, now waiting.

        Args:
            prompt: token ids, at least one.
            max_tokens: most tokens to come out.
            sampling: how they are chosen; None = greedy.
            on_token: called with each token, after the iteration that made it.

        Raises:
            SpecError: no prompt, an id outside the vocabulary, no tokens wanted, or more than the model's context.
            Infeasible: alone it would not fit the KV cache.
        """
        for i, token in enumerate(prompt):
            if not isinstance(token, int | np.integer) or not 0 <= token < self.model.vocab:
                limit = f"ids from 0 to {self.model.vocab - 1}"
                raise SpecError(f"prompt[{i}]", "is not a token", value=token, limit=limit)
        tokens = [int(token) for token in prompt]
        if not tokens:
            raise SpecError("prompt", "is empty", limit="at least one token")
        if not isinstance(max_tokens, int) or max_tokens < 1:
            raise SpecError("max_tokens", "cannot be", value=max_tokens, limit="a whole number from 1")
        longest = len(tokens) + max_tokens
        if longest > self.model.context:
            limit = f"{self.model.context} tokens of context, prompt and output together"
            raise SpecError("max_tokens", "goes beyond the model's context", value=longest, limit=limit)
        if blocks_of(longest) > self.blocks.count:
            raise Infeasible(
                "KV cache", need=blocks_of(longest), have=self.blocks.count, unit="blocks",
                hint="Shorten the request or start the engine with more blocks",
            )  # fmt: skip
        now, number = self.clock(), self.submitted
        request = Request(
            number, now, len(tokens), max_tokens, tokens, Sampler(sampling or Sampling(), self.seed, number), on_token,
            self.order.key(now, len(tokens)),
        )  # fmt: skip
        self.submitted += 1
        self.waiting.append(request)
        self.waiting.sort(key=lambda r: (r.key, r.id))
        return request

    def cancel(self, request: Request) -> bool:
        """Ends a request wherever it is and frees its blocks; its tokens that are not handed on yet are dropped.

        May be called between steps and by an ``on_token``, that of the request itself included.

        Returns:
            Whether it was still here; its ``finish`` is then "cancelled".
        """
        for place in (self.waiting, self.resumed, self.partial, self.running):
            if request in place:
                place.remove(request)
                break
        else:
            return False
        self._release(request)
        request.finish, request.end = "cancelled", self.clock()
        self._undelivered = deque(late for late in self._undelivered if late[1].request != request.id)
        return True

    def run(self) -> None:
        """Steps until nothing is left.

        Raises:
            PolicyError: as `step`, or the batch policy runs nothing though requests are here.
        """
        while self.load:
            if self.step() is None:
                kind = type(self.batch).__name__
                raise PolicyError(f"{kind}.compose runs nothing, with {self.load} requests waiting or running")

    def step(self) -> Iteration | None:
        """Runs one iteration; returns what it was, or None if the policies run nothing now.

        Raises:
            PolicyError: a decision that cannot be applied. No request is changed by it; evictions that made room before
                stay.
        """
        self._deliver()
        begun = self.clock()
        chosen, decodes = self._compose()
        decoding = list(self.running) if decodes else []
        if not chosen and not decoding:
            return None
        claimed = self._claimed()
        for r in [*decoding, *self.partial]:
            self._extend(r)
        pieces = [Piece(r.tokens[-1:], len(r.tokens) - 1, r.table, 1) for r in decoding]
        for r, n in chosen:
            done = r.prefilled
            pieces.append(Piece(r.tokens[done : done + n], done, r.table, int(done + n == len(r.tokens))))
        logits = self.model.forward(pieces)
        emitting = [*decoding, *(r for r, n in chosen if r.prefilled + n == len(r.tokens))]
        picked = [(r, r.sampler.choose(row)) for r, row in zip(emitting, logits, strict=True)]
        # From here on nothing fails: either all of the iteration counts, or none of it.
        now = self.clock()
        for r, n in chosen:
            r.prefilled += n
        for r, choice in picked:
            self._emit(r, choice, now)
        found = Iteration(begun, now - begun, len(decoding), len(chosen), sum(n for _, n in chosen), claimed)
        self.iterations.append(found)
        self._deliver()
        return found

    def record(self) -> Record:
        """Returns the iterations so far as the common event record; ``level`` is the share of blocks claimed."""
        rows = self.iterations
        what = [0 if i.prefills == 0 else (1 if i.decodes == 0 else 2) for i in rows]
        return Record(
            time=np.array([i.time for i in rows], np.float64),
            duration=np.array([i.duration for i in rows], np.float64),
            resource=np.zeros(len(rows), np.int32),
            what=np.array(what, np.int32),
            count=np.ones(len(rows), np.int64),
            items=np.array([i.decodes + i.prefills for i in rows], np.int64),
            level=np.array([i.blocks / self.blocks.count for i in rows], np.float64),
            resources=("engine",),
            whats=ITERATIONS,
        )

    def _claim(self, r: Request) -> int:
        """Returns the blocks a request counts for: those of its whole length where the rule reserves."""
        if self.rule is not None and self.rule.reserve:
            return blocks_of(r.prompt + r.limit)
        return blocks_of(len(r.tokens))

    def _claimed(self) -> int:
        return sum(map(self._claim, self.running + self.partial))

    def _compose(self) -> tuple[list[tuple[Request, int]], bool]:
        """Evicts, asks the batch policy and admits; returns prompts with their tokens, and whether the rest decode."""
        evicted = self._make_room() if self.mixed and self.running else False
        queue = [] if evicted else self.resumed + self.waiting
        room = self.blocks.count - self.watermark - self._claimed()
        if not self.running and not self.partial and queue:
            room = max(room, self._claim(queue[0]))
        view = batches.View(
            decoding=len(self.running),
            partial=tuple(batches.Item(r.id, len(r.tokens) - r.prefilled, 0) for r in self.partial),
            waiting=tuple(batches.Item(r.id, len(r.tokens), self._claim(r)) for r in queue),
            free=room,
        )
        decision = self.batch.compose(view)
        chosen = self._checked(decision, queue)
        for r, _ in chosen:
            if r not in self.partial:
                (self.resumed if r in self.resumed else self.waiting).remove(r)
                self.partial.append(r)
                self.admissions += 1
                r.admitted = self.admissions
        if not self.mixed and not chosen and self.running:
            self._make_room()
        return chosen, decision.decode and bool(self.running)

    def _checked(self, decision: batches.Batch, queue: Sequence[Request]) -> list[tuple[Request, int]]:
        """Returns the decision's prompts, all of them possible together; changes nothing."""
        said = f"{type(self.batch).__name__}.compose"
        present = {r.id: r for r in [*self.partial, *queue]}
        chosen: list[tuple[Request, int]] = []
        for number, tokens in decision.prefill:
            r = present.pop(number, None)  # so a request that is named twice is unknown the second time
            if r is None or not 0 < tokens <= len(r.tokens) - r.prefilled:
                text = f"{said} chose {tokens} tokens of request {number}, which is not waiting with so many"
                raise PolicyError(text)
            chosen.append((r, tokens))
        entering = [r for r, _ in chosen if r not in self.partial]
        need = self._claimed() + sum(map(self._claim, entering))
        crowd = len(self.running) + len(self.partial) + len(entering)
        if chosen and crowd > 1 and need > self.blocks.count:
            raise PolicyError(f"{said} admitted {need} blocks, more than the {self.blocks.count} of the KV cache")
        return chosen

    def _make_room(self) -> bool:
        """Evicts by the memory policy until the next decode step fits; says whether it had to."""
        before = self.preemptions
        while self._claimed() > self.blocks.count and len(self.running) + len(self.partial) > 1:
            if self.partial:
                r = self.partial.pop()
            else:
                place = self.memory.victim([x.admitted for x in self.running])
                if not 0 <= place < len(self.running):
                    text = f"{type(self.memory).__name__}.victim chose {place} of {len(self.running)} running requests"
                    raise PolicyError(text)
                r = self.running.pop(place)
            self._release(r)
            r.prefilled = 0
            self.resumed.insert(0, r)
            self.preemptions += 1
        return self.preemptions > before

    def _extend(self, r: Request) -> None:
        r.table += self.blocks.take(self._claim(r) - len(r.table))

    def _release(self, r: Request) -> None:
        self.blocks.give(r.table)
        r.table = []

    def _emit(self, r: Request, choice: Choice, now: float) -> None:
        """Appends a token; the request then runs on or ends."""
        r.tokens.append(choice.token)
        r.choices.append(choice)
        r.first = now if r.first < 0 else r.first
        if choice.token in r.sampler.sampling.stop:
            r.finish = "stop"
        elif r.emitted >= r.limit:
            r.finish = "length"
        if r in self.partial:
            self.partial.remove(r)
            self.running.append(r)
        if r.finish:
            r.end = now
            self.running.remove(r)
            self._release(r)
        if r.on_token is not None:
            self._undelivered.append((r.on_token, Token(r.id, choice, r.finish)))

    def _deliver(self) -> None:
        """Hands tokens to whom they are for; what a callback's error leaves over is handed on at the next step."""
        while self._undelivered:
            call, token = self._undelivered.popleft()
            call(token)
