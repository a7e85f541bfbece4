"""POLCA: two thresholds; low-priority servers are slowed first and further, high-priority ones late and mildly.

Patel et al., "Characterizing Power Management Opportunities for LLMs in the Cloud", ASPLOS 2024 (first called POLCA:
"Power Oversubscription in LLM Cloud Providers", 2023). Rule: power above ``lower`` caps low-priority clocks at
``low_first``; above ``upper`` at ``low_second``, and high-priority clocks at ``high_second``; ``hysteresis`` under a
threshold its step is taken back. The breaker's brake remains behind it. Defaults (80 and 89 % of the budget, 5 %; 1275,
1110 and 1305 of 1410 MHz) are recalled from the paper, not verified: choose your own on your own first week.
"""

from __future__ import annotations

from fleetcast.policy.power import Band, Decision, Share, Step, View, climb


class Polca:
    """Slows low priority above one threshold, and all, low priority further, above a second."""

    kind = "polca"

    def __init__(
        self, *, lower: Share = 0.80, upper: Share = 0.89, hysteresis: Band = 0.05,
        low_first: Share = 0.904, low_second: Share = 0.787, high_second: Share = 0.926,
    ) -> None:  # fmt: skip
        """Stores thresholds and hysteresis (shares of the budget) and clocks (shares of the top clock)."""
        if not lower < upper:
            raise ValueError(f"lower threshold {lower} is not below the upper {upper}: swap them")
        if hysteresis >= lower:
            raise ValueError(f"hysteresis {hysteresis} is not below the lower threshold {lower}")
        if low_second > low_first:
            raise ValueError(f"low_second {low_second} is above low_first {low_first}: the second step must slow more")
        if (low_second, high_second) == (low_first, 1.0):
            raise ValueError("the second step slows nobody further: lower low_second or high_second")
        self.lower, self.upper, self.hysteresis = lower, upper, hysteresis
        self.low_first, self.low_second, self.high_second = low_first, low_second, high_second

    def cap(self, view: View) -> Decision:
        """Returns the caps."""
        return climb(
            (
                Step(self.lower, self.lower - self.hysteresis, self.low_first, 1.0),
                Step(self.upper, self.upper - self.hysteresis, self.low_second, self.high_second),
            ),
            view,
        )
