"""Which cached prefix is given up first when its blocks are wanted. The null policy is `Lru`, the engines' own.

Blocks go from the end of a context, so a policy ranks the ends that nobody uses; the lowest rank goes first. What goes
from a device's memory moves to the next tier where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Belady", "Fifo", "Lfu", "Lru", "Policy", "View"]


@dataclass(frozen=True)
class View:
    """The end of a cached context.

    Attributes:
        used: s, when a request that holds it last ended.
        stored: s, when it was computed.
        uses: requests that have held it.
        depth: blocks of context before it.
        blocks: blocks of it.
        next: requests that come before the next one that needs it, inf = none will; only offline policies may look.
    """

    used: float
    stored: float
    uses: int
    depth: int
    blocks: int
    next: float = float("inf")


class Policy(Protocol):
    """Ranks the ends of cached contexts."""

    kind: str
    offline: bool

    def rank(self, view: View) -> float:
        """Returns a number; what has the lowest is given up first, of equals what was used longest ago."""
        ...


from fleetcast.policy.evict.belady import Belady  # noqa: E402  (the methods need the protocol above)
from fleetcast.policy.evict.fifo import Fifo  # noqa: E402
from fleetcast.policy.evict.lfu import Lfu  # noqa: E402
from fleetcast.policy.evict.lru import Lru  # noqa: E402
