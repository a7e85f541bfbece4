"""Who is evicted when the KV cache is full, and how it comes back. The null policy is `Recompute`.

The victim is the request that was admitted last (Kwon et al., SOSP 2023), so the oldest always finishes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["Policy", "Recompute", "Swap"]


class Policy(Protocol):
    """Chooses a victim and its way back."""

    kind: str
    swap: bool

    def victim(self, admitted: Sequence[int]) -> int:
        """Returns the index of the victim among running requests, given their admission numbers."""
        ...


def newest(admitted: Sequence[int]) -> int:
    """Returns the index of the request admitted last."""
    return max(range(len(admitted)), key=admitted.__getitem__)


from fleetcast.policy.memory.recompute import Recompute  # noqa: E402  (the methods need the protocol above)
from fleetcast.policy.memory.swap import Swap  # noqa: E402
