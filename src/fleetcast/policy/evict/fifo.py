"""First in, first out: what was computed first goes first, used since or not.

Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal 1966; SGLang has it too.
"""

from __future__ import annotations

from fleetcast.policy.evict import View


class Fifo:
    """Oldest first."""

    kind = "fifo"
    offline = False

    def rank(self, view: View) -> float:
        """Returns when it was computed."""
        return view.stored
