"""Fixed: a checkpoint after the same span of work, whatever it costs and however often the job fails.

The common rule of training scripts, e.g. every 100 iterations of BLOOM's training log (BigScience, 2022; recalled).
"""

from __future__ import annotations

from typing import Annotated

from fleetcast.base.units import Quantity
from fleetcast.policy.recover import Decision, View, worth_it


class Fixed:
    """Writes a checkpoint after each ``interval`` of work."""

    kind = "fixed"

    def __init__(
        self, *, interval: Annotated[float, Quantity("s", low=1e-3, high=1e9)] = 3600.0, staged: bool = False,
        evict: bool = False,
    ) -> None:  # fmt: skip
        """Stores the interval (s), whether checkpoints are staged, and whether slow machines are replaced."""
        self.interval, self.staged, self.evict = interval, staged, evict

    def recover(self, view: View) -> Decision:
        """Returns the interval."""
        return Decision(self.interval, self.staged, self.evict and worth_it(view))
