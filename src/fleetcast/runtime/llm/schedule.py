"""Who runs next: the lines of requests and the policies that move them, over the blocks of the KV cache.

The counterpart of the simulator's reference world: the same policy objects see the same `View`, by the same rules
(evictions, then admission, then one pass), so that on equal requests both make equal iterations. Kwon et al.,
"PagedAttention", SOSP 2023 (sec. 4.5: recomputing).
"""

from __future__ import annotations

from collections.abc import Sequence

from fleetcast.base.errors import PolicyError, SpecError, Unsupported
from fleetcast.policy import batch as batches
from fleetcast.policy import memory as memories
from fleetcast.policy import order as orders
from fleetcast.runtime.llm.paging import Blocks, blocks_of
from fleetcast.runtime.llm.requests import Request


class Schedule:
    """Requests in four lines: ``waiting``, ``resumed`` (evicted, first in line), ``partial`` (prompts), ``running``.

    Args:
        blocks: of the KV cache.
        batch: composes iterations.
        order: ranks waiting requests.
        memory: chooses whom to evict when the cache is full; its cache is computed again.
        watermark: blocks that admission leaves free.

    Raises:
        SpecError: blocks or watermark out of range.
        Unsupported: a memory policy that swaps.
    """

    def __init__(
        self, blocks: int, batch: batches.Policy, order: orders.Policy, memory: memories.Policy, watermark: int
    ) -> None:
        if blocks < 1:
            raise SpecError("engine.blocks", "cannot be", value=blocks, limit="at least 1")
        if not 0 <= watermark < blocks:
            raise SpecError("engine.watermark", "cannot be", value=watermark, limit=f"from 0 to {blocks - 1}")
        if memory.swap:
            raise Unsupported("the engine cannot swap yet", "Use memory = { kind = 'recompute' }")
        self.blocks, self.watermark = Blocks(blocks), watermark
        self.batch, self.order, self.memory = batch, order, memory
        self.rule: batches.Rule | None = batch.rule() if hasattr(batch, "rule") else None
        self.mixed = self.rule.mixed if self.rule is not None else bool(getattr(batch, "mixed", True))
        self.waiting: list[Request] = []
        self.resumed: list[Request] = []
        self.partial: list[Request] = []
        self.running: list[Request] = []
        self.admissions = self.preemptions = 0

    @property
    def load(self) -> int:
        """Requests here, waiting or running."""
        return len(self.waiting) + len(self.resumed) + len(self.partial) + len(self.running)

    def enter(self, r: Request) -> None:
        """A request comes and waits."""
        self.waiting.append(r)
        self.waiting.sort(key=lambda r: (r.key, r.id))

    def holds(self, r: Request) -> bool:
        """Whether a request stands in one of the lines."""
        return any(r in line for line in (self.running, self.partial, self.resumed, self.waiting))

    def leave(self, r: Request) -> None:
        """A request goes, from whatever line it stands in, and its blocks are free."""
        next(line for line in (self.running, self.partial, self.resumed, self.waiting) if r in line).remove(r)
        self._release(r)

    def decode(self, r: Request) -> None:
        """A request's prompt is computed: it decodes from now on."""
        self.partial.remove(r)
        self.running.append(r)

    def extend(self, r: Request) -> None:
        """Gives a request the blocks that it counts for."""
        r.table += self.blocks.take(self.claim(r) - len(r.table))

    def claim(self, r: Request) -> int:
        """Returns the blocks a request counts for: those of its whole length where the rule reserves."""
        if self.rule is not None and self.rule.reserve:
            return blocks_of(r.prompt + r.limit)
        return blocks_of(len(r.tokens))

    def claimed(self) -> int:
        """Returns the blocks that those who run count for together."""
        return sum(map(self.claim, self.running + self.partial))

    def compose(self) -> tuple[list[tuple[Request, int]], list[Request]]:
        """Evicts, asks the batch policy and admits; returns prompts with their tokens, and who decodes.

        Raises:
            PolicyError: a decision that cannot be applied. No request is changed by it; evictions that made room before
                stay.
        """
        evicted = self._make_room() if self.mixed and self.running else False
        queue = [] if evicted else self.resumed + self.waiting
        room = self.blocks.count - self.watermark - self.claimed()
        if not self.running and not self.partial and queue:
            room = max(room, self.claim(queue[0]))
        view = batches.View(
            decoding=len(self.running),
            partial=tuple(batches.Item(r.id, len(r.tokens) - r.prefilled, 0) for r in self.partial),
            waiting=tuple(batches.Item(r.id, len(r.tokens), self.claim(r)) for r in queue),
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
        return chosen, list(self.running) if decision.decode else []

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
        need = self.claimed() + sum(map(self.claim, entering))
        crowd = len(self.running) + len(self.partial) + len(entering)
        if chosen and crowd > 1 and need > self.blocks.count:
            raise PolicyError(f"{said} admitted {need} blocks, more than the {self.blocks.count} of the KV cache")
        return chosen

    def _make_room(self) -> bool:
        """Evicts by the memory policy until the next decode step fits; says whether it had to."""
        before = self.preemptions
        while self.claimed() > self.blocks.count and len(self.running) + len(self.partial) > 1:
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

    def _release(self, r: Request) -> None:
        self.blocks.give(r.table)
        r.table = []
