"""Uncapped: clocks are never lowered; only the breaker's brake stands between the row and a trip. The null.

The baseline "no cap" of Patel et al., "Characterizing Power Management Opportunities for LLMs in the Cloud" (POLCA),
ASPLOS 2024.
"""

from __future__ import annotations

from fleetcast.policy.power import INF, Decision, View


class Uncapped:
    """Every server keeps its top clock."""

    kind = "uncapped"

    def cap(self, view: View) -> Decision:
        """Returns the top clock for all, whatever the reading."""
        return Decision(1.0, 1.0, -INF, INF)
