"""Nodes and functions lie on a ring; a function goes to the next node on it, and on from there until one has room.

Consistent hashing (Karger et al., STOC 1997), each node at many points of the ring, so that a node that comes or goes
moves few functions.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.policy.route.invocations import View


class ConsistentHash:
    """Nodes by a ring of hashes.

    Args:
        points: of each node on the ring.
    """

    kind = "consistent_hash"

    def __init__(self, *, points: int = 40) -> None:
        self.points = points

    def pick(self, view: View) -> int | None:
        """Returns the first node with room, going round from the function's own point."""
        walk = _walk(view.name, len(view.region), self.points)
        found = np.flatnonzero(view.room[walk])
        return int(walk[found[0]]) if len(found) else None


@lru_cache(maxsize=65536)
def _walk(name: str, count: int, points: int) -> NDArray[np.int64]:
    at, node = _ring(count, points)
    begin = int(np.searchsorted(at, np.uint64(_point(name))))
    order = np.concatenate([node[begin:], node[:begin]])
    return order[np.sort(np.unique(order, return_index=True)[1])]


@lru_cache(maxsize=64)
def _ring(count: int, points: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    at = np.array([_point(f"node {node} point {point}") for node in range(count) for point in range(points)], np.uint64)
    order = np.argsort(at, kind="stable")
    return at[order], order // points


def _point(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
