"""Two stages: devices wait for their hosts' memory alone, and hosts write on while work goes on.

Jiang and others, "MegaScale: Scaling Large Language Model Training to More Than 10,000 GPUs", NSDI 2024. Rule: the
interval that costs least for the short stop, but no shorter than the store needs for the checkpoint before. Slow
machines are replaced where that pays. Differs from the paper: it names no interval; this one is the optimum's.
"""

from __future__ import annotations

from fleetcast.cost.training import checkpoints
from fleetcast.policy.recover import INF, Decision, View, worth_it


class TwoStage:
    """Writes short checkpoints often, and replaces slow machines."""

    kind = "two_stage"

    def __init__(self, *, evict: bool = True) -> None:
        """Stores whether slow machines are replaced."""
        self.evict = evict

    def recover(self, view: View) -> Decision:
        """Returns the interval for a checkpoint in two stages."""
        best = INF if view.mtbf == INF else float(checkpoints.exact(view.stall, view.mtbf))
        interval = max(best, view.drain - view.stall, view.iteration)
        return Decision(interval, staged=True, evict=self.evict and worth_it(view))
