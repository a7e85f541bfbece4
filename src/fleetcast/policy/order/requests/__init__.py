"""Which waiting request is admitted next. The null policy is `Fifo`.

An order policy is a key: requests are tried in ascending (key, arrival order). Requests that were evicted come
before all others, in the order they first entered: whoever has begun goes first.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Fifo", "Policy", "ShortestPrompt"]


class Policy(Protocol):
    """Ranks waiting requests."""

    kind: str

    def key(self, arrival: float, prompt: int) -> float:
        """Returns the rank of a request: its arrival (s) and prompt (tokens) are all an engine knows."""
        ...


from fleetcast.policy.order.requests.fifo import Fifo  # noqa: E402  (the methods need the protocol above)
from fleetcast.policy.order.requests.shortest_prompt import ShortestPrompt  # noqa: E402
