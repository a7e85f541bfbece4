"""What requests have in common, as a tree of cache blocks that a prefix cache can hold.

A request's context is a line of whole blocks; requests that begin alike share the first of them. Cut where lines part,
where a prompt ends and where an answer does, the lines of all requests are a tree of *segments*: runs of blocks that a
request uses all of or none of. The tree follows from the trace alone; which of it is cached is the world's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleetcast.scenario.workload.requests import Requests


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """Segments, each after the one it continues.

    Attributes:
        block: tokens of a block.
        above: segment that each continues, -1 = none.
        start: blocks of the context before it.
        size: its blocks, at least 1.
        last: per request the last segment of its prompt and answer, -1 = no whole block.
        users: per segment the requests whose context holds it, ascending.
    """

    block: int
    above: list[int]
    start: list[int]
    size: list[int]
    last: list[int]
    users: list[list[int]]

    def line(self, request: int) -> list[int]:
        """Returns the segments of a request's context, the first first."""
        found = []
        segment = self.last[request]
        while segment >= 0:
            found.append(segment)
            segment = self.above[segment]
        return found[::-1]


def shared_tokens(requests: Requests, block: int) -> NDArray[np.int64]:
    """Returns the prompt tokens of each request that a prefix cache can spare it at most: whole blocks, never the last.

    Args:
        requests: the traffic.
        block: tokens of a block.
    """
    if requests.parent is None or requests.prefix is None:
        return np.zeros(len(requests), dtype=np.int64)
    context = (requests.prompt + requests.output - 1)[requests.parent]
    prefix = np.where(requests.parent >= 0, np.minimum(requests.prefix, context), 0)
    return np.asarray(np.minimum(prefix, requests.prompt - 1) // block * block)


def prefix_tree(requests: Requests, block: int) -> PrefixTree:
    """Returns the tree of the requests' contexts.

    Args:
        requests: the traffic; without ``parent`` nothing is shared.
        block: tokens of a cache block.
    """
    n = len(requests)
    parent = np.full(n, -1) if requests.parent is None else requests.parent
    prefix = np.zeros(n, dtype=np.int64) if requests.prefix is None else requests.prefix
    parents: list[int] = parent.tolist()
    prompts: list[int] = (requests.prompt // block).tolist()
    ends: list[int] = ((requests.prompt + requests.output - 1) // block).tolist()  # the last token is never computed
    wanted: list[int] = (np.minimum(prefix, requests.prompt) // block).tolist()
    begins = [0] * n  # where each request's own blocks begin
    owner = [-1] * n  # whose own blocks the block before stands in
    cuts: list[set[int]] = []  # where each request's own blocks are cut
    for r in range(n):
        above = parents[r]
        shared = min(wanted[r], ends[above]) if above >= 0 else 0
        while above >= 0 and begins[above] >= shared:
            above = owner[above]
        begins[r], owner[r] = shared, above
        cuts.append({c for c in (prompts[r], ends[r]) if c > shared})
        if above >= 0:
            cuts[above].add(shared)
    tree = PrefixTree(block, [], [], [], [-1] * n, [])
    at: list[dict[int, int]] = []  # per request: end of one of its own segments -> that segment
    for r in range(n):
        before, begin = (at[owner[r]][begins[r]] if owner[r] >= 0 else -1), begins[r]
        at.append({})
        for end in sorted(cuts[r]):
            at[r][end] = len(tree.above)
            tree.above.append(before)
            tree.start.append(begin)
            tree.size.append(end - begin)
            tree.users.append([])
            before, begin = at[r][end], end
        tree.last[r] = before
    for r in range(n):
        for segment in tree.line(r):
            tree.users[segment].append(r)
    return tree


def segments_within(tree: PrefixTree, line: list[int], blocks: int) -> Iterator[tuple[int, int]]:
    """Yields (segment, blocks of it) of a line's first ``blocks`` blocks."""
    for segment in line:
        part = min(tree.size[segment], blocks - tree.start[segment])
        if part <= 0:
            return
        yield segment, part
