"""Who runs next: the lines of requests and the policies that move them, over the blocks of the KV cache.

The counterpart of the simulator's reference world: the same policy objects see the same `View`, by the same rules
(evictions, then admission, then one pass), so that on equal requests both make equal iterations. Kwon et al.,
"PagedAttention", SOSP 2023 (sec. 4.5: recomputing).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fleetcast.base.errors import PolicyError, SpecError, Unsupported
from fleetcast.policy import batch as batches
from fleetcast.policy import evict
from fleetcast.policy import memory as memories
from fleetcast.policy.order import requests as orders
from fleetcast.runtime.llm.paging import BLOCK, Blocks, Node, blocks_of
from fleetcast.runtime.llm.prefixes import Prefixes
from fleetcast.runtime.llm.requests import Request


class Composed(NamedTuple):
    """An iteration: prompts with the tokens of them to process, who decodes, and tokens found for those who entered."""

    chosen: list[tuple[Request, int]]
    decoding: list[Request]
    cached: int


class Schedule:
    """Requests in four lines: ``waiting``, ``resumed`` (evicted, first in line), ``partial`` (prompts), ``running``.

    Args:
        blocks: of the KV cache.
        batch: composes iterations.
        order: ranks waiting requests.
        memory: chooses whom to evict when the cache is full; its cache is computed again.
        watermark: blocks that admission leaves free.
        prefix_cache: keeps the blocks of past contexts and says which go first; None = none are kept.

    Raises:
        SpecError: blocks or watermark out of range.
        Unsupported: a memory policy that swaps, a prefix cache that knows the future.
    """

    def __init__(
        self, blocks: int, batch: batches.Policy, order: orders.Policy, memory: memories.Policy, watermark: int,
        prefix_cache: evict.Policy | None = None,
    ) -> None:  # fmt: skip
        if blocks < 1:
            raise SpecError("engine.blocks", "cannot be", value=blocks, limit="at least 1")
        if not 0 <= watermark < blocks:
            raise SpecError("engine.watermark", "cannot be", value=watermark, limit=f"from 0 to {blocks - 1}")
        if memory.swap:
            raise Unsupported("the engine cannot swap yet", "Use memory = { kind = 'recompute' }")
        self.blocks, self.watermark = Blocks(blocks), watermark
        self.batch, self.order, self.memory = batch, order, memory
        self.prefixes = Prefixes(self.blocks, prefix_cache) if prefix_cache is not None else None
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

    def leave(self, r: Request, now: float) -> None:
        """A request goes, from whatever line it stands in; its blocks are free, or kept by the prefix cache."""
        computed = len(r.tokens) - 1 if r in self.running else r.prefilled
        next(line for line in (self.running, self.partial, self.resumed, self.waiting) if r in line).remove(r)
        self._release(r, computed, now)

    def decode(self, r: Request, now: float) -> None:
        """A request's prompt is computed: it can be found, and the request decodes from now on."""
        self.partial.remove(r)
        self.running.append(r)
        if self.prefixes is not None:
            self.prefixes.store(r, r.prefilled, now)

    def extend(self, r: Request) -> None:
        """Gives a request the blocks that it counts for."""
        r.table += self.blocks.take(self.claim(r) - len(r.table))

    def shrink(self, r: Request) -> None:
        """Takes back the blocks that a request no longer counts for: those of drafts that were rejected."""
        keep = max(self.claim(r), len(r.nodes))
        self.blocks.give(r.table[keep:])
        del r.table[keep:]

    def claim(self, r: Request) -> int:
        """Returns the blocks a request counts for: those of its whole length where the rule reserves."""
        if self.rule is not None and self.rule.reserve:
            return blocks_of(r.prompt + r.limit)
        return -(-(len(r.tokens) + r.ahead) // BLOCK)  # asked for every request several times an iteration

    def claimed(self) -> int:
        """Returns the blocks that those who run count for together, each once."""
        shared = self.prefixes.shared if self.prefixes is not None else 0
        return sum(map(self.claim, self.running + self.partial)) - shared

    def compose(self, now: float) -> Composed:
        """Evicts, asks the batch policy and admits; returns the iteration that begins ``now``.

        Raises:
            PolicyError: a decision that cannot be applied. No request is changed by it; evictions that made room before
                stay.
        """
        evicted = self._make_room(now) if self.mixed and self.running else False
        self._trim()
        queue = [] if evicted else self.resumed + self.waiting
        room = self.blocks.count - self.watermark - self.claimed()
        if not self.running and not self.partial and queue:
            room = max(room, self.claim(queue[0]))
        view = batches.View(
            decoding=len(self.running),
            partial=tuple(batches.Item(r.id, len(r.tokens) - r.prefilled, 0) for r in self.partial),
            waiting=tuple(
                batches.Item(r.id, len(r.tokens) - BLOCK * len(nodes), more) for r, nodes, more in self._found(queue)
            ),
            free=room,
            drafted=sum(r.ahead for r in self.running),
        )
        decision = self.batch.compose(view)
        chosen = self._checked(decision, queue)
        cached = 0
        for r, _ in chosen:
            if r not in self.partial:
                cached += self._admit(r)
        if not self.mixed and not chosen and self.running:
            self._make_room(now)
        self._trim()
        return Composed(chosen, list(self.running) if decision.decode else [], cached)

    def _admit(self, r: Request) -> int:
        """Lets a request in; returns its tokens that were found."""
        (self.resumed if r in self.resumed else self.waiting).remove(r)
        self.partial.append(r)
        if self.prefixes is not None:
            self.prefixes.admit(r, self.prefixes.find(r))
            r.cached = r.prefilled if r.admitted < 0 else r.cached
        self.admissions += 1
        r.admitted = self.admissions
        return r.prefilled

    def _found(self, queue: Iterable[Request]) -> list[tuple[Request, list[Node], int]]:
        """Returns requests with their cached blocks, and how many more each counts for if those before it enter too."""
        cache, ahead = self.prefixes, set[int]()
        if cache is None:
            return [(r, [], self.claim(r)) for r in queue]
        return [(r, nodes, self.claim(r) - cache.busy(nodes, ahead)) for r in queue for nodes in (cache.find(r),)]

    def _trim(self) -> None:
        """Gives up cached blocks that no longer fit beside what those who run count for."""
        if self.prefixes is not None:
            self.prefixes.trim(self.blocks.count - self.claimed())

    def _checked(self, decision: batches.Batch, queue: Sequence[Request]) -> list[tuple[Request, int]]:
        """Returns the decision's prompts, all of them possible together; changes nothing."""
        said = f"{type(self.batch).__name__}.compose"
        present = {r.id: r for r in [*self.partial, *queue]}
        chosen: list[tuple[Request, int]] = []
        for number, tokens in decision.prefill:
            r = present.pop(number, None)  # so a request that is named twice is unknown the second time
            if r is None or not 0 < tokens <= len(r.tokens) - self._done(r):
                text = f"{said} chose {tokens} tokens of request {number}, which is not waiting with so many"
                raise PolicyError(text)
            chosen.append((r, tokens))
        entering = [r for r, _ in chosen if r not in self.partial]
        need = self.claimed() + sum(more for _, _, more in self._found(entering))
        crowd = len(self.running) + len(self.partial) + len(entering)
        if chosen and crowd > 1 and need > self.blocks.count:
            raise PolicyError(f"{said} admitted {need} blocks, more than the {self.blocks.count} of the KV cache")
        return chosen

    def _done(self, r: Request) -> int:
        """Returns the tokens of a request that are computed, or would be found if it entered."""
        return r.prefilled if r in self.partial or self.prefixes is None else BLOCK * len(self.prefixes.find(r))

    def _make_room(self, now: float) -> bool:
        """Evicts by the memory policy until the next decode step fits; says whether it had to."""
        before = self.preemptions
        while self.claimed() > self.blocks.count and len(self.running) + len(self.partial) > 1:
            if self.partial:
                r = self.partial.pop()
                computed = r.prefilled
            else:
                place = self.memory.victim([x.admitted for x in self.running])
                if not 0 <= place < len(self.running):
                    text = f"{type(self.memory).__name__}.victim chose {place} of {len(self.running)} running requests"
                    raise PolicyError(text)
                r = self.running.pop(place)
                computed = len(r.tokens) - 1
            self._release(r, computed, now)
            r.prefilled = r.ahead = 0
            self.resumed.insert(0, r)
            self.preemptions += 1
        return self.preemptions > before

    def _release(self, r: Request, computed: int, now: float) -> None:
        if self.prefixes is not None:
            self.prefixes.release(r, computed, now)
        else:
            self.blocks.give(r.table)
            r.table = []
