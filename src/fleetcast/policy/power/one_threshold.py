"""One threshold: above it low-priority servers are slowed, high-priority ones never.

The baseline with one threshold for low priority of Patel et al. (POLCA), ASPLOS 2024. Rule: power above ``threshold``
caps low-priority clocks at ``clock``; power ``hysteresis`` below it lifts the cap. Defaults: POLCA's upper threshold
and lower clock (89 %, 1110 of 1410 MHz), recalled, not verified.
"""

from __future__ import annotations

from fleetcast.policy.power import Band, Decision, Share, Step, View, climb


class OneThreshold:
    """Slows low-priority servers while power is above one threshold."""

    kind = "one_threshold"

    def __init__(self, *, threshold: Share = 0.89, hysteresis: Band = 0.05, clock: Share = 0.787) -> None:
        """Stores threshold and hysteresis (shares of the budget) and the clock (share of the top clock)."""
        if hysteresis >= threshold:
            raise ValueError(f"hysteresis {hysteresis} is not below threshold {threshold}: the cap would never lift")
        self.threshold, self.hysteresis, self.clock = threshold, hysteresis, clock

    def cap(self, view: View) -> Decision:
        """Returns the caps."""
        step = Step(self.threshold, self.threshold - self.hysteresis, self.clock, 1.0)
        return climb((step,), view)
