"""Continuous batching: every iteration asks the policies what runs, then runs it in one forward pass.

`schedule` decides as the simulated world does; what is simulated there is computed here. Yu et al., "Orca", OSDI 2022.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from fleetcast.base.errors import Infeasible, PolicyError, SpecError
from fleetcast.base.record import ITERATIONS, Record
from fleetcast.policy import batch as batches
from fleetcast.policy import evict
from fleetcast.policy import memory as memories
from fleetcast.policy import speculate as drafting
from fleetcast.policy.order import requests as orders
from fleetcast.runtime.llm.draft import Drafter
from fleetcast.runtime.llm.paging import Blocks, blocks_of
from fleetcast.runtime.llm.requests import Iteration, Logits, Model, Piece, Request, Token
from fleetcast.runtime.llm.sampling import Choice, Sampler, Sampling
from fleetcast.runtime.llm.schedule import Schedule
from fleetcast.runtime.llm.speculation import Speculation, verified

NONE: Final[tuple[int, ...]] = ()
"""No draft."""


class Engine:
    """One model, one KV cache, one scheduler. Not safe to call from several threads at once.

    Args:
        model: what runs an iteration.
        blocks: of the KV cache.
        batch: composes iterations.
        order: ranks waiting requests.
        memory: chooses whom to evict when the cache is full; its cache is computed again.
        watermark: blocks that admission leaves free.
        prefix_cache: keeps the blocks of past contexts, and says which go first; None = none are kept.
        speculate: decides how many tokens are drafted; None = none.
        drafter: says which, and serves this engine alone; None = looked up in the context, where the policy is of
            n-grams.
        seed: of requests that bring none.
        clock: seconds; the real one unless a test brings its own.
        notes: what to know of what it runs, in sentences.

    Raises:
        SpecError: blocks or watermark out of range; a drafter without a policy, a policy without a drafter, a drafter
            of another vocabulary.
        Unsupported: a memory policy that swaps, a prefix cache that knows the future.
    """

    def __init__(
        self, model: Model, *, blocks: int, batch: batches.Policy | None = None, order: orders.Policy | None = None,
        memory: memories.Policy | None = None, watermark: int = 0, prefix_cache: evict.Policy | None = None,
        speculate: drafting.Policy | None = None, drafter: Drafter | None = None, seed: int = 0,
        clock: Callable[[], float] = time.perf_counter, notes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.schedule = Schedule(
            blocks, batch if batch is not None else batches.Chunked(), order if order is not None else orders.Fifo(),
            memory if memory is not None else memories.Recompute(), watermark, prefix_cache,
        )  # fmt: skip
        if speculate is None and drafter is not None:
            limit = "a policy of policy.speculate beside it"
            raise SpecError("engine.speculate", "is missing", value=type(drafter).__name__, limit=limit)
        active = speculate is not None and not isinstance(speculate, drafting.Off)
        self.speculation = Speculation(speculate, drafter, model.vocab) if speculate is not None and active else None
        self.model, self.seed, self.clock, self.notes = model, seed, clock, tuple(notes)
        self.iterations: list[Iteration] = []
        self.submitted = 0
        self._undelivered: deque[tuple[Callable[[Token], None], Token]] = deque()

    @property
    def load(self) -> int:
        """Requests here, waiting or running."""
        return self.schedule.load

    @property
    def blocks(self) -> Blocks:
        """Those of the KV cache."""
        return self.schedule.blocks

    @property
    def admissions(self) -> int:
        """How often a request was let in, evicted ones again."""
        return self.schedule.admissions

    @property
    def preemptions(self) -> int:
        """How often a request was evicted."""
        return self.schedule.preemptions

    def submit(
        self, prompt: Sequence[int], max_tokens: int, sampling: Sampling | None = None,
        on_token: Callable[[Token], None] | None = None, salt: str = "",
    ) -> Request:  # fmt: skip
        """Returns the request, now waiting.

        Args:
            prompt: token ids, at least one.
            max_tokens: most tokens to come out.
            sampling: how they are chosen; None = greedy.
            on_token: called with each token, after the iteration that made it.
            salt: the prefix cache shares nothing between requests of different salts.

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
            self.schedule.order.key(now, len(tokens)), salt,
        )  # fmt: skip
        self.submitted += 1
        self.schedule.enter(request)
        return request

    def cancel(self, request: Request) -> bool:
        """Ends a request wherever it is and frees its blocks; its tokens that are not handed on yet are dropped.

        May be called between steps and by an ``on_token``, that of the request itself included.

        Returns:
            Whether it was still here; its ``finish`` is then "cancelled".
        """
        if not self.schedule.holds(request):
            return False
        request.finish, request.end = "cancelled", self.clock()
        self._leave(request, request.end)
        self._undelivered = deque(late for late in self._undelivered if late[1].request != request.id)
        return True

    def run(self) -> None:
        """Steps until nothing is left.

        Raises:
            PolicyError: as `step`, or the batch policy runs nothing though requests are here.
        """
        while self.load:
            if self.step() is None:
                kind = type(self.schedule.batch).__name__
                raise PolicyError(f"{kind}.compose runs nothing, with {self.load} requests waiting or running")

    def step(self) -> Iteration | None:
        """Runs one iteration; returns what it was, or None if the policies run nothing now.

        Raises:
            PolicyError: a decision that cannot be applied. No request is changed by it; evictions that made room before
                stay.
        """
        self._deliver()
        begun = self.clock()
        if self.speculation is not None:
            self.speculation.begin(self.schedule.running)
        chosen, decoding, cached = self.schedule.compose(begun)
        if not chosen and not decoding:
            return None
        claimed = self.schedule.claimed()
        drafts: Sequence[tuple[Request, Sequence[int]]] = [(r, NONE) for r in decoding]
        if self.speculation is not None:
            asked = self.clock()
            drafts = self.speculation.take(decoding)
            self.speculation.seconds += self.clock() - asked
        for r in [*(r for r, _ in drafts), *self.schedule.partial]:
            self.schedule.extend(r)
        pieces = [
            Piece((*r.tokens[-1:], *draft), len(r.tokens) - 1, r.table, 1 + len(draft), r.sampler.sampling.keep)
            for r, draft in drafts
        ]
        for r, n in chosen:
            done = r.prefilled
            emit = int(done + n == len(r.tokens))
            pieces.append(Piece(r.tokens[done : done + n], done, r.table, emit, r.sampler.sampling.keep))
        logits = self.model.forward(pieces)
        picked = self._picked(drafts, chosen, logits)
        # From here on nothing fails: either all of the iteration counts, or none of it.
        now = self.clock()
        for r, n in chosen:
            r.prefilled += n
            if r.prefilled == len(r.tokens):
                self.schedule.decode(r, now)
        accepted = 0
        if self.speculation is not None:
            accepted = sum(
                self.speculation.judge(r, draft, choices)
                for (r, draft), (_, choices) in zip(drafts, picked, strict=False)
            )
        for r, choices in picked:
            for choice in choices:
                self._emit(r, choice, now)
            if self.speculation is not None and not r.finish:
                self.schedule.shrink(r)
        found = Iteration(
            begun, now - begun, len(drafts), len(chosen), sum(n for _, n in chosen), claimed, cached,
            sum(len(draft) for _, draft in drafts), accepted,
        )  # fmt: skip
        self.iterations.append(found)
        self._deliver()
        return found

    def close(self) -> None:
        """Ends what the engine has begun beside itself: a drafter's process, those that hold parts of the model."""
        if self.speculation is not None:
            self.speculation.drafter.close()
        getattr(self.model, "close", lambda: None)()

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

    @staticmethod
    def _picked(
        drafts: Sequence[tuple[Request, Sequence[int]]], chosen: Sequence[tuple[Request, int]], logits: Logits
    ) -> list[tuple[Request, Sequence[Choice]]]:
        """Returns what each request that emits chooses: those who decode, then those whose prompt is done."""
        emitting = [*drafts, *((r, NONE) for r, n in chosen if r.prefilled + n == len(r.tokens))]
        rows = sum(1 + len(draft) for _, draft in emitting)
        if rows != len(logits):
            raise ValueError(f"the model returned {len(logits)} rows of logits, not {rows}")
        picked: list[tuple[Request, Sequence[Choice]]] = []
        at = 0
        for r, draft in emitting:
            if draft:
                picked.append((r, verified(r, draft, logits[at : at + 1 + len(draft)])))
            else:
                picked.append((r, (r.sampler.choose(logits[at]),)))
            at += 1 + len(draft)
        return picked

    def _emit(self, r: Request, choice: Choice, now: float) -> None:
        """Appends a token; the request then runs on or ends."""
        r.tokens.append(choice.token)
        r.choices.append(choice)
        r.first = now if r.first < 0 else r.first
        if choice.token in r.sampler.sampling.stop:
            r.finish = "stop"
        elif r.emitted >= r.limit:
            r.finish = "length"
        if r.finish:
            r.end = now
            self._leave(r, now)
        if r.on_token is not None:
            self._undelivered.append((r.on_token, Token(r.id, choice, r.finish)))

    def _leave(self, r: Request, now: float) -> None:
        self.schedule.leave(r, now)
        if self.speculation is not None:
            self.speculation.forget(r.id)

    def _deliver(self) -> None:
        """Hands tokens to whom they are for; what a callback's error leaves over is handed on at the next step."""
        while self._undelivered:
            call, token = self._undelivered.popleft()
            call(token)
