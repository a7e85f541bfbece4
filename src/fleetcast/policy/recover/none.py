"""None: no checkpoint before the end, no eviction. A failure sends the job back to its start. The null.

What checkpoints are measured against since Young, "A first order approximation to the optimum checkpoint interval",
CACM 1974.
"""

from __future__ import annotations

from fleetcast.policy.recover import INF, Decision, View


class Never:
    """Writes nothing until all is done."""

    kind = "none"

    def recover(self, view: View) -> Decision:
        """Returns an interval without end."""
        return Decision(INF)
