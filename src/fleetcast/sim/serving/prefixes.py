"""The prefix cache of one lane: which blocks of past contexts are still there, on the device and in the tiers below.

Blocks in use are those of the requests that run; what they leave behind stays until its place is wanted. A segment of
the tree (`scenario.workload.prefixes`) is held from its front: the first blocks on the device, the next in host memory,
the next on disk, so each tier gives up ends. A block is in one tier at a time. What is found below moves up before use;
what is computed anew replaces what lies below.

The loop counts the blocks of each running request in full. ``shared`` is how many of these are the same blocks counted
twice; `trim` gives up what no longer fits beside those in use. A segment that is used counts as in use as a whole.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fleetcast.base.errors import PolicyError
from fleetcast.policy.evict import View
from fleetcast.scenario.workload.prefixes import PrefixTree, segments_within

INF = float("inf")


class Tier(NamedTuple):
    """A tier below the device: how many blocks it holds, and s to bring one to the device."""

    blocks: int
    seconds: float


@dataclass(frozen=True)
class Caching:
    """How the lanes of a pool's replicas cache prefixes.

    Attributes:
        policy: of `policy.evict`.
        tiers: below the device, per lane, the nearest first.
    """

    policy: Any
    tiers: tuple[Tier, ...]


@dataclass(slots=True)
class Held:
    """What is cached of a segment.

    Attributes:
        blocks: in each tier, the device first.
        below: segments after it that have blocks in each tier.
        using: running requests that use it.
        used, stored, uses: see `policy.evict.View`.
    """

    blocks: list[int]
    below: list[int]
    using: int = 0
    used: float = 0.0
    stored: float = 0.0
    uses: int = 0


@dataclass(slots=True)
class Use:
    """What a running request uses of the cache: its line, and how many blocks and segments of it."""

    line: list[int]
    blocks: int = 0
    segments: int = 0


@dataclass(slots=True)
class Found:
    """What the cache has for a request: blocks, those in use already, and s to bring the rest up."""

    blocks: int
    busy: int
    seconds: float
    tiers: list[int] = field(default_factory=list)


class PrefixCache:
    """The cache of one lane; see the module.

    Attributes the loop reads: ``shared`` (blocks counted twice among the running requests').
    """

    def __init__(self, tree: PrefixTree, tiers: Sequence[Tier], policy: Any) -> None:
        """Starts empty.

        Args:
            tree: of all requests.
            tiers: below the device, the nearest first.
            policy: of `policy.evict`.
        """
        self.tree, self.tiers, self.policy = tree, tiers, policy
        self.held: dict[int, Held] = {}
        self.uses: dict[int, Use] = {}
        self.shared = 0
        self.idle = 0
        self.kept = [0] * (1 + len(tiers))
        self.ends: list[list[tuple[float, float, int]]] = [[] for _ in self.kept]
        self.past = [0] * len(tree.size) if policy.offline else []
        self.found = [0] * len(self.kept)
        self.asked = self.dropped = 0
        self.failure: Exception | None = None

    def clear(self) -> None:
        """Forgets all that is held, in every tier; what was counted stays."""
        self.held, self.uses = {}, {}
        self.shared = self.idle = 0
        self.kept = [0] * len(self.kept)
        self.ends = [[] for _ in self.kept]

    # What the loop calls ----------------------------------------------------------------------------------------

    def find(self, request: int, tokens: int, ahead: dict[int, int] | None = None) -> Found:
        """Returns what is cached of a request that needs ``tokens``; the last of them is computed in any case.

        Args:
            request: its number.
            tokens: of prompt and answer so far.
            ahead: blocks per segment that requests before it will use, if it enters with them; this one's are added.
        """
        use = self._use(request)
        found = Found(0, 0, 0.0, [0] * len(self.kept))
        for segment, wanted in segments_within(self.tree, use.line, (tokens - 1) // self.tree.block):
            held = self.held.get(segment)
            if held is None:
                break
            left = wanted
            for tier, there in enumerate(held.blocks):
                part = min(there, left)
                left -= part
                found.tiers[tier] += part
                if tier > 0:
                    found.seconds += part * self.tiers[tier - 1].seconds
            found.blocks += wanted - left
            coming = 0 if ahead is None else ahead.get(segment, 0)
            if held.using or coming:
                found.busy += min(wanted, max(held.blocks[0], coming))
            if ahead is not None:
                ahead[segment] = max(coming, wanted - left)
            if left:
                break
        return found

    def admit(self, request: int, found: Found, tokens: int) -> None:
        """A request enters and uses what was ``found`` of its ``tokens``; what lay in lower tiers comes up."""
        use = self._use(request)
        self.asked += tokens
        for tier, blocks in enumerate(found.tiers):
            self.found[tier] += blocks
        if self.policy.offline:
            for segment in use.line:
                users, at = self.tree.users[segment], self.past[segment]
                while at < len(users) and users[at] <= request:
                    at += 1
                self.past[segment] = at
        self._take(use, found.blocks)

    def store(self, request: int, tokens: int, now: float) -> None:
        """A request has computed ``tokens`` of its context: whole blocks of them are there to be found."""
        use = self._use(request)
        blocks = tokens // self.tree.block
        end = self.tree.start[use.line[-1]] + self.tree.size[use.line[-1]] if use.line else 0
        self._take(use, min(blocks, end), now)

    def release(self, request: int, tokens: int, now: float) -> None:
        """A request leaves, having computed ``tokens``: its blocks stay until they are wanted."""
        self.store(request, tokens, now)
        use = self.uses.pop(request)
        self.shared -= use.blocks
        for segment in use.line[: use.segments]:
            held = self.held[segment]
            held.using -= 1
            held.used = now
            if not held.using:
                self.shared += held.blocks[0]
                self.idle += held.blocks[0]
            self._offer_below(segment)
        if use.segments:
            self._offer(use.line[use.segments - 1], 0)

    def trim(self, free: int) -> None:
        """Gives up blocks that nobody uses until they fit into ``free`` blocks of the device."""
        free = max(free, 0)  # what is in use may exceed the device until someone is evicted
        while self.idle > free:
            segment = self._end(0)
            blocks = min(self.held[segment].blocks[0], self.idle - free)
            self.idle -= blocks
            self._move(segment, blocks, 0)

    # Inside -----------------------------------------------------------------------------------------------------

    def _use(self, request: int) -> Use:
        use = self.uses.get(request)
        if use is None:
            use = self.uses[request] = Use(self.tree.line(request))
        return use

    def _take(self, use: Use, blocks: int, now: float | None = None) -> None:
        """Makes the first ``blocks`` of a line present on the device and used by this request."""
        if blocks <= use.blocks:
            return
        self.shared += blocks - use.blocks
        for place, (segment, wanted) in enumerate(segments_within(self.tree, use.line, blocks)):
            held = self.held.get(segment)
            if held is None:
                held = self.held[segment] = Held([0] * len(self.kept), [0] * len(self.kept))
                held.stored = now or 0.0
            before = held.blocks[0]
            if before < wanted:
                self._raise(segment, held, wanted)
            if place >= use.segments:
                if not held.using:
                    self.idle -= before
                    self.shared -= held.blocks[0]
                else:
                    self.shared -= held.blocks[0] - before
                held.using += 1
                held.uses += 1
                use.segments = place + 1
                self._offer_below(segment)
            else:
                self.shared -= held.blocks[0] - before
        use.blocks = blocks

    def _raise(self, segment: int, held: Held, wanted: int) -> None:
        """Puts the first ``wanted`` blocks of a segment on the device, from the tiers below where they lie there."""
        more = wanted - held.blocks[0]
        if not held.blocks[0]:
            self._count(segment, 0, 1)
        held.blocks[0] += more
        for tier in range(1, len(held.blocks)):
            part = min(more, held.blocks[tier])
            if part:
                held.blocks[tier] -= part
                self.kept[tier] -= part
                more -= part
                if not held.blocks[tier]:
                    self._count(segment, tier, -1)
                    self._offer(self.tree.above[segment], tier)

    def _move(self, segment: int, blocks: int, tier: int) -> None:
        """Moves the last ``blocks`` of a segment in a tier one tier down, where there is one."""
        held = self.held[segment]
        held.blocks[tier] -= blocks
        if held.blocks[tier]:
            self._offer(segment, tier)
        else:
            self._count(segment, tier, -1)
            self._offer(self.tree.above[segment], tier)
        below = tier + 1
        while below < len(self.kept) and not self.tiers[below - 1].blocks:
            below += 1
        if below == len(self.kept):
            self.dropped += blocks
            if not any(held.blocks) and not held.using:
                del self.held[segment]
            return
        if not held.blocks[below]:
            self._count(segment, below, 1)
        held.blocks[below] += blocks
        self.kept[below] += blocks
        self._offer(segment, below)
        while self.kept[below] > self.tiers[below - 1].blocks:
            other = self._end(below)
            part = min(self.held[other].blocks[below], self.kept[below] - self.tiers[below - 1].blocks)
            self.kept[below] -= part
            self._move(other, part, below)

    def _count(self, segment: int, tier: int, change: int) -> None:
        """Notes for the segment before that this one has, or has no longer, blocks in a tier."""
        above = self.tree.above[segment]
        if above >= 0 and above in self.held:
            self.held[above].below[tier] += change

    def _loose(self, segment: int, tier: int) -> bool:
        """Whether the end of a segment in a tier may be given up."""
        held = self.held.get(segment)
        if held is None or not held.blocks[tier] or any(held.below[: tier + 1]):
            return False
        return tier > 0 or not held.using

    def _rank(self, segment: int) -> tuple[float, float, int]:
        held, ahead = self.held[segment], INF
        if self.policy.offline:
            users, at = self.tree.users[segment], self.past[segment]
            ahead = float(users[at]) if at < len(users) else INF
        view = View(held.used, held.stored, held.uses, self.tree.start[segment], sum(held.blocks), ahead)
        try:
            rank = float(self.policy.rank(view))
        except Exception as error:  # the compiled loop cannot pass it on: whoever reads the counts raises it
            self.failure = self.failure or error
            rank = 0.0
        if rank != rank:
            self.failure = self.failure or ValueError("it ranked NaN")
        return rank, held.used, segment

    def _offer(self, segment: int, tier: int) -> None:
        if segment >= 0 and self._loose(segment, tier):
            heapq.heappush(self.ends[tier], self._rank(segment))

    def _offer_below(self, segment: int) -> None:
        """Ranks a segment anew in the tiers below the device, after a use."""
        held = self.held[segment]
        for tier in range(1, len(self.kept)):
            if held.blocks[tier]:
                self._offer(segment, tier)

    def _end(self, tier: int) -> int:
        """Returns the segment whose end in a tier goes first; entries that are out of date are put right."""
        ends = self.ends[tier]
        while True:
            entry = heapq.heappop(ends)
            if not self._loose(entry[2], tier):
                continue
            now = self._rank(entry[2])
            if now == entry:
                return entry[2]
            heapq.heappush(ends, now)


TIERS = ("device", "cpu", "ssd")
"""Where a cached block may lie, as outcomes name it."""


def counted(caches: Sequence[PrefixCache]) -> dict[str, int]:
    """Returns the blocks found by tier, the tokens of requests that entered, and the blocks given up, of some lanes.

    Raises:
        PolicyError: the policy failed to rank.
    """
    for cache in caches:
        if cache.failure is not None:
            raise PolicyError(f"{type(cache.policy).__name__}.rank failed: {cache.failure}") from cache.failure
    found = {name: sum(c.found[i] for c in caches if i < len(c.found)) for i, name in enumerate(TIERS)}
    return found | {"asked": sum(c.asked for c in caches), "dropped": sum(c.dropped for c in caches)}
