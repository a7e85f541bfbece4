"""Least recently used: what no request has held for longest goes first.

Mattson et al., "Evaluation techniques for storage hierarchies", IBM Systems Journal 1970; the rule of vLLM's free
blocks (Kwon et al., SOSP 2023) and of SGLang's radix tree (Zheng et al., NeurIPS 2024).
"""

from __future__ import annotations

from fleetcast.policy.evict import View


class Lru:
    """Oldest last use first."""

    kind = "lru"
    offline = False

    def rank(self, view: View) -> float:
        """Returns the time of the last use."""
        return view.used
