"""Off: the target model makes every token itself, one a call.

The null policy, what engines do unless told otherwise (vLLM 1, 2025).
"""

from __future__ import annotations

from fleetcast.policy.speculate import Draft, View


class Off:
    """Nothing is drafted."""

    kind = "off"

    def draft(self, view: View) -> Draft:
        """Returns a draft of no tokens."""
        return Draft(0)
