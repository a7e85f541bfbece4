"""A function's requests go to the node that a hash of its name says, and on from there in steps until one has room.

What OpenWhisk's controller does (Apache OpenWhisk, ShardingContainerPoolBalancer): steps are coprime to the number of
nodes, so that every node is tried once. It knows neither which pods are warm nor what a node draws.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.policy.route.invocations import View

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Hash:
    """Nodes by the hash of a function's name.

    Args:
        across: over the nodes of all regions; else over those of the region in which a request arrives.
    """

    kind = "hash"

    def __init__(self, *, across: bool = False) -> None:
        self.across = across

    def pick(self, view: View) -> int | None:
        """Returns the first node with room on the function's walk."""
        among = np.arange(len(view.region)) if self.across else np.flatnonzero(view.region == view.home)
        if not len(among):
            return None
        walk = among[steps(view.name, len(among))]
        found = np.flatnonzero(view.room[walk])
        return int(walk[found[0]]) if len(found) else None


@lru_cache(maxsize=65536)
def steps(name: str, count: int) -> NDArray[np.int64]:
    """Returns every number below ``count`` once: from a name's hash on, in steps coprime to ``count``."""
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    coprime = [step for step in range(1, count + 1) if math.gcd(step, count) == 1][:64]
    step = coprime[digest // count % len(coprime)]
    return (digest % count + step * np.arange(count, dtype=np.int64)) % count
