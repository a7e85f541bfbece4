"""First come, first served: the default of every serving engine and the null of this family.

Orca (Yu et al., OSDI 2022) and vLLM (Kwon et al., SOSP 2023) both serve so.
"""

from __future__ import annotations


class Fifo:
    """Requests enter in the order they arrived."""

    kind = "fifo"

    def key(self, arrival: float, prompt: int) -> float:
        """Returns the arrival."""
        return arrival
