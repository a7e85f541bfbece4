"""Swap: a victim's KV blocks go to host memory and come back over the host link before it continues.

Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention", SOSP 2023, sec. 4.5.
Both copies delay the iteration they happen in. Host memory is taken as large enough.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleetcast.policy.memory import newest


class Swap:
    """The newest request is copied out and back."""

    kind = "swap"
    swap = True

    def victim(self, admitted: Sequence[int]) -> int:
        """Returns the newest request's index."""
        return newest(admitted)
