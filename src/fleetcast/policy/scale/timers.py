"""Functions that fire at equal gaps have a pod shortly before each tick; all others a fixed keep-alive.

One of the proposals of Joosen and others, EuroSys 2025: timers are almost 60 % of functions and start cold at nearly
every tick, as their periods are longer than the keep-alive.
"""

from __future__ import annotations

import numpy as np

from fleetcast.policy.scale import Decision, View
from fleetcast.policy.scale.epochs import known


class Timers:
    """A fixed keep-alive, and ticks foreseen.

    Args:
        keep: s that pods of other functions stay warm after their last request.
        least: gaps before a function is believed to fire at equal ones.
        scatter: most that gaps may scatter, as a share of their median.
        lead: starts, of average length, that a pod is begun before the tick.
    """

    kind = "timers"
    knob = ("keep", 0.1, 1e5)

    def __init__(
        self, *, keep: float = 60.0, least: int = 3, scatter: float = 0.02, lead: float = 3.0
    ) -> None:  # fmt: skip
        if not 0 <= keep <= 1e9 or least < 1 or not 0 <= scatter < 0.5 or not 0 <= lead <= 1000:
            raise ValueError("keep and lead are 0 or more, least is 1 or more, scatter below one half")
        self.keep, self.least, self.scatter, self.lead = keep, least, scatter, lead

    def decide(self, view: View) -> Decision:
        """Returns a window around the next tick, or the keep-alive."""
        gaps, _, stands = known(view)
        if len(gaps) >= self.least:
            period = float(np.median(gaps))
            away = float(np.quantile(np.abs(gaps - period), 0.9))
            early = self.lead * view.start + 2.0 * away
            if away <= self.scatter * period and period > self.keep and period > early:
                return Decision(0.0, period - early, period + 2.0 * away + 1.0, stands=stands)
        return Decision(self.keep, stands=stands)
