"""Young and Daly: the interval at which checkpoints and repeated work together cost least.

Young, CACM 1974: sqrt(2 C M) for checkpoints of C seconds and failures every M. Daly, "A higher order estimate of the
optimum checkpoint interval for restart dumps", FGCS 2006: more terms. "exact" is the minimum itself. All devices wait
until the store has the checkpoint.
"""

from __future__ import annotations

from typing import Literal

from fleetcast.cost.training import checkpoints
from fleetcast.policy.recover import INF, Decision, View, worth_it


class YoungDaly:
    """Writes checkpoints at the interval that costs least."""

    kind = "young_daly"

    def __init__(self, *, order: Literal["young", "daly", "exact"] = "daly", evict: bool = False) -> None:
        """Stores which formula is used, and whether slow machines are replaced."""
        self.order, self.evict = order, evict

    def recover(self, view: View) -> Decision:
        """Returns the interval for a checkpoint that all wait for."""
        if view.mtbf == INF:
            return Decision(INF, evict=self.evict and worth_it(view))
        interval = float(getattr(checkpoints, self.order)(view.direct, view.mtbf))
        return Decision(max(interval, view.iteration), evict=self.evict and worth_it(view))
