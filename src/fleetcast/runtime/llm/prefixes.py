"""The prefix cache: full blocks of past contexts that later requests may begin with instead of computing them.

A block is found by what it holds: its own tokens and the block that it follows, so by every token from the beginning
on. Tokens are compared, not only their hashes; two contexts share a block only if they are equal up to its end. A block
that a request uses is held; what nobody uses stays until its room is wanted, and then goes from the ends of contexts by
the very policies of `policy.evict` that the simulator asks. Kwon et al., "PagedAttention", SOSP 2023; Zheng et al.,
"SGLang", 2024 (sec. 3).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from fleetcast.base.errors import PolicyError, Unsupported
from fleetcast.policy import evict
from fleetcast.runtime.llm.paging import BLOCK, Blocks, Key, Node
from fleetcast.runtime.llm.requests import Request


class Prefixes:
    """The prefix cache of one model: nothing in it comes from another one or from other weights.

    Attributes: ``shared`` is how often blocks are counted twice among those that run, ``idle`` how many nobody uses;
    ``asked`` and ``found`` are tokens of the requests that entered, ``dropped`` blocks given up.

    Args:
        blocks: of the KV cache.
        policy: of `policy.evict`.

    Raises:
        Unsupported: a policy that knows the future.
    """

    def __init__(self, blocks: Blocks, policy: evict.Policy) -> None:
        if policy.offline:
            raise Unsupported(
                f"the engine cannot look ahead as {policy.kind!r} does", "Use prefix_cache = 'lru', 'lfu' or 'fifo'"
            )
        self.blocks, self.policy = blocks, policy
        self.nodes: dict[Key, Node] = {}
        self.shared = self.idle = 0
        self.asked = self.found = self.dropped = 0
        self._ends: list[tuple[float, float, int]] = []
        self._numbered: dict[int, Node] = {}
        self._made = self._version = 0
        self._memo: dict[int, tuple[int, list[Node]]] = {}

    def find(self, r: Request) -> list[Node]:
        """Returns the blocks that are cached of a request from its beginning on, never its last token's."""
        version, found = self._memo.get(r.id, (-1, []))
        if version != self._version:
            found = []
            above: int | str = r.salt
            for place in range((len(r.tokens) - 1) // BLOCK):
                node = self.nodes.get((above, _tokens(r, place)))
                if node is None:
                    break
                found.append(node)
                above = node.number
            self._memo[r.id] = self._version, found
        return found

    def busy(self, found: Iterable[Node], ahead: set[int]) -> int:
        """Returns how many of the blocks ``found`` are counted already, by those who run or by those ``ahead``.

        The blocks found are added to ``ahead``.
        """
        count = 0
        for node in found:
            count += node.users > 0 or node.number in ahead
            ahead.add(node.number)
        return count

    def admit(self, r: Request, found: Sequence[Node]) -> None:
        """A request enters and uses what was ``found``, in place of computing it."""
        self._memo.pop(r.id, None)
        self.asked += len(r.tokens)
        self.found += len(found) * BLOCK
        for node in found:
            self._use(r, node)
            r.table.append(node.block)
        r.prefilled = len(found) * BLOCK

    def store(self, r: Request, tokens: int, now: float) -> None:
        """A request has computed so many ``tokens``: full blocks of them can be found, and equal ones become one."""
        for place in range(len(r.nodes), tokens // BLOCK):
            above = r.nodes[-1] if r.nodes else None
            key = above.number if above is not None else r.salt, _tokens(r, place)
            node = self.nodes.get(key)
            if node is None:
                self._made += 1
                self._version += 1
                node = self.nodes[key] = self._numbered[self._made] = Node(
                    self._made, r.table[place], key, above, place, now
                )
                self.idle += 1
                if above is not None:
                    above.below += 1
            else:
                self.blocks.give([r.table[place]])
                r.table[place] = node.block
            self._use(r, node)

    def release(self, r: Request, tokens: int, now: float) -> None:
        """A request leaves, having computed so many ``tokens``: full blocks stay until their room is wanted."""
        self.store(r, tokens, now)
        self.blocks.give(r.table[len(r.nodes) :])
        for node in r.nodes:
            node.users -= 1
            node.used = now
            self.shared -= node.users > 0
            self.idle += node.users == 0
        last = r.nodes[-1:]
        r.nodes, r.table = [], []
        self._memo.pop(r.id, None)
        for node in last:
            self._offer(node)

    def trim(self, room: int) -> None:
        """Gives up blocks that nobody uses until no more than ``room`` of them are left.

        Raises:
            PolicyError: the policy ranks by what is no number.
        """
        while self.idle > max(room, 0):
            node = self._end()
            del self.nodes[node.key], self._numbered[node.number]
            self.blocks.give([node.block])
            self.idle -= 1
            self.dropped += 1
            self._version += 1
            if node.above is not None:
                node.above.below -= 1
                self._offer(node.above)

    def _use(self, r: Request, node: Node) -> None:
        self.shared += node.users > 0
        self.idle -= node.users == 0
        node.users += 1
        node.uses += 1
        r.nodes.append(node)

    def _offer(self, node: Node) -> None:
        if not node.users and not node.below:
            heapq.heappush(self._ends, self._ranked(node))
        if len(self._ends) > 4 * len(self.nodes) + 64:  # most are out of date
            self._ends = [self._ranked(n) for n in self.nodes.values() if not n.users and not n.below]
            heapq.heapify(self._ends)

    def _ranked(self, node: Node) -> tuple[float, float, int]:
        rank = float(self.policy.rank(evict.View(node.used, node.stored, node.uses, node.depth, 1)))
        if rank != rank:
            raise PolicyError(f"{type(self.policy).__name__}.rank ranked NaN")
        return rank, node.used, node.number

    def _end(self) -> Node:
        """Returns the block that goes first; entries that are out of date are put right."""
        while True:
            entry = heapq.heappop(self._ends)
            node = self._numbered.get(entry[2])
            if node is None or node.users or node.below:
                continue
            now = self._ranked(node)
            if now == entry:
                return node
            heapq.heappush(self._ends, now)


def _tokens(r: Request, place: int) -> tuple[int, ...]:
    return tuple(r.tokens[place * BLOCK : (place + 1) * BLOCK])
