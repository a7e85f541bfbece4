"""The KV cache's blocks: who holds which, and counts that always add up.

Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention", SOSP 2023: a sequence's
cache is a list of blocks of equal size, anywhere in memory, so that nothing is lost but the end of its last block.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fleetcast.base.errors import Infeasible

BLOCK = 16
"""Tokens of a block."""


def blocks_of(tokens: int) -> int:
    """Returns the blocks that ``tokens`` fill."""
    return -(-tokens // BLOCK)


class Blocks:
    """A pool of numbered blocks. Each is either free or held once.

    Args:
        count: how many there are, numbered from 0.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count - 1, -1, -1))
        self._held = bytearray(count)

    @property
    def free(self) -> int:
        """How many are free."""
        return len(self._free)

    @property
    def used(self) -> int:
        """How many are held."""
        return self.count - len(self._free)

    def take(self, count: int) -> list[int]:
        """Returns ``count`` free blocks, now held; takes all or none.

        Raises:
            Infeasible: fewer are free.
        """
        if count > len(self._free):
            raise Infeasible("KV cache", need=count, have=len(self._free), unit="blocks")
        taken = [self._free.pop() for _ in range(count)]
        for block in taken:
            self._held[block] = 1
        return taken

    def give(self, blocks: Iterable[int]) -> None:
        """Frees ``blocks``; frees all or none.

        Raises:
            ValueError: one of them is not held, or is given twice.
        """
        returned = list(blocks)
        for block in returned:
            if not 0 <= block < self.count or not self._held[block]:
                raise ValueError(f"block {block} is not held")
        if len(set(returned)) != len(returned):
            raise ValueError("a block is given back twice")
        for block in returned:
            self._held[block] = 0
        self._free += returned[::-1]


Key = tuple[int | str, tuple[int, ...]]
"""Of a block: the number of the one before it, or of a first one its requests' salt, and the tokens in it."""


@dataclass(eq=False, slots=True)
class Node:
    """A cached block.

    Attributes:
        number: its own for ever, unlike ``block``, which is where it lies.
        block: of the KV cache.
        key: what it holds.
        above: the block that it follows.
        depth: blocks before it.
        stored: s, when it was computed.
        used: s, when a request that held it last left.
        uses: requests that have held it.
        users: requests that hold it now.
        below: cached blocks that follow it.
    """

    number: int
    block: int
    key: Key
    above: Node | None
    depth: int
    stored: float
    used: float = 0.0
    uses: int = 0
    users: int = 0
    below: int = 0
