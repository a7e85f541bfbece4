"""Least frequently used: what the fewest requests have held goes first.

Aho, Denning and Ullman, "Principles of optimal page replacement", JACM 1971; one of the rules that Qin et al.,
"Mooncake" (FAST 2025), compare; SGLang has it too. Counts are kept while a context is cached, and start anew after.
"""

from __future__ import annotations

from fleetcast.policy.evict import View


class Lfu:
    """Fewest uses first."""

    kind = "lfu"
    offline = False

    def rank(self, view: View) -> float:
        """Returns the number of uses."""
        return float(view.uses)
