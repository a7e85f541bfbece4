"""Every pod stays warm for the same time after its last request, as platforms have it: 60 s in the published trace."""

from __future__ import annotations

from fleetcast.policy.scale import FOREVER, Decision, View


class Fixed:
    """A fixed keep-alive.

    Args:
        keep: s that a pod stays warm after its last request.
    """

    kind = "fixed"
    knob = ("keep", 0.1, 1e5)

    def __init__(self, *, keep: float = 60.0) -> None:
        if not 0 <= keep <= 1e9:
            raise ValueError("keep is out of range: 0 to 1e9 s")
        self.keep = keep

    def decide(self, view: View) -> Decision:
        """Returns the one decision there is."""
        return Decision(self.keep, stands=FOREVER)
