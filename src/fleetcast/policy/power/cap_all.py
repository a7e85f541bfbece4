"""Cap all: above one threshold every server is slowed alike, priorities or not.

The baseline with one threshold for all of Patel et al. (POLCA), ASPLOS 2024, and what a row without priorities can do.
Rule: power above ``threshold`` caps all clocks at ``clock``; power ``hysteresis`` below it lifts the cap. Defaults:
POLCA's upper threshold and its clock for high priority (89 %, 1305 of 1410 MHz), recalled, not verified.
"""

from __future__ import annotations

from fleetcast.policy.power import Band, Decision, Share, Step, View, climb


class CapAll:
    """Slows every server while power is above one threshold."""

    kind = "cap_all"

    def __init__(self, *, threshold: Share = 0.89, hysteresis: Band = 0.05, clock: Share = 0.926) -> None:
        """Stores threshold and hysteresis (shares of the budget) and the clock (share of the top clock)."""
        if hysteresis >= threshold:
            raise ValueError(f"hysteresis {hysteresis} is not below threshold {threshold}: the cap would never lift")
        self.threshold, self.hysteresis, self.clock = threshold, hysteresis, clock

    def cap(self, view: View) -> Decision:
        """Returns the caps."""
        step = Step(self.threshold, self.threshold - self.hysteresis, self.clock, self.clock)
        return climb((step,), view)
