"""Belady: what is needed again last goes first. It knows the trace's future: a bound, not a policy to run.

Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal 1966: with blocks of one
cost no rule misses less often. "Last" is in order of arrival; who is served when may differ.
"""

from __future__ import annotations

from fleetcast.policy.evict import View


class Belady:
    """Farthest next use first."""

    kind = "belady"
    offline = True

    def rank(self, view: View) -> float:
        """Returns minus how far the next use is."""
        return -view.next
