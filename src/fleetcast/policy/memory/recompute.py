"""Recompute: a victim loses its KV cache and prefills prompt and tokens so far again when it returns.

Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention", SOSP 2023, sec. 4.5.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleetcast.policy.memory import newest


class Recompute:
    """The newest request is dropped and prefilled again."""

    kind = "recompute"
    swap = False

    def victim(self, admitted: Sequence[int]) -> int:
        """Returns the newest request's index."""
        return newest(admitted)
