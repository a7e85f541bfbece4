"""Each function keeps its pods as long as its own gaps say it pays, at one price of a cold start for all functions.

Fewest cold starts at given pod-seconds is a problem of Lagrange: with a price w (pod-seconds that a cold start is
worth) it falls apart into one for each function, and w is what meets the budget. Of its gaps g so far a function takes
the keep-alive T and the window [b, e] that least

    sum of min(g, T) + sum over g > b of min(g, e) - b + w x (gaps that neither T nor the window covers),

so that a timer gets a window of seconds, a busy function a keep-alive, and one that is asked rarely nothing; few gaps
are helped out by a law of all functions, as many gaps as ``prior`` spread evenly over the logarithm of time. A
function that others call may be warmed at their calls instead, where the lags say that it pays.

Ours. The parts are known: timers and callers from Joosen and others (EuroSys 2025), windows from Shahrad and others
(USENIX ATC 2020), keep-alive as renting or buying from Karlin and others (1988).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fleetcast.policy.scale import NEVER, Decision, View
from fleetcast.policy.scale.epochs import known

Array = NDArray[np.float64]
POINTS = 24
"""Gaps at which keep-alives and windows may end: all there are, or as many quantiles."""
LEAST = 2
"""Gaps that a window covers at least, where there are as many."""
PRIOR = np.exp(np.linspace(np.log(1.0), np.log(50_000.0), 40))
"""s, gaps of the law of all functions, equally likely."""
SHARES = np.linspace(0.0, 1.0, POINTS)
ALWAYS = np.concatenate([[0.0], PRIOR[::3]])


class Priced:
    """Keep-alives and windows at one price of a cold start.

    Args:
        worth: pod-seconds that a cold start is worth.
        prior: gaps that the law of all functions counts as.
        timer: the same of functions that a timer invokes: the first gap says almost all.
        slack: s, and half a hundredth of the time, by which a window is wider than the gaps that it covers.
        lead: starts, of average length, that a pod is begun before its window.
    """

    kind = "priced"
    knob = ("worth", 1.0, 1e6)

    def __init__(
        self, *, worth: float = 300.0, prior: float = 1.0, timer: float = 0.1, slack: float = 3.0,
        lead: float = 4.0,
    ) -> None:  # fmt: skip
        if not 0 <= worth <= 1e9 or not 0 < prior <= 1e6 or not 0 < timer <= 1e6 or not 0 <= slack <= 1e6:
            raise ValueError("worth and slack are 0 or more, prior and timer above 0")
        if not 0 <= lead <= 1000:
            raise ValueError("lead is out of range: 0 to 1000 starts")
        self.worth, self.prior, self.timer, self.slack, self.lead = worth, prior, timer, slack, lead

    def decide(self, view: View) -> Decision:
        """Returns the keep-alive and the window that pay, or that a pod follows the caller."""
        gaps, lags, stands = known(view)
        keep, begin, end, loss = self._windows(
            np.sort(gaps), view.start, self.timer if view.trigger.upper().startswith("TIMER") else self.prior
        )
        if view.calls and len(lags) and np.isfinite(lags).all():
            until, follows = self._following(lags, view)
            if follows < loss:
                return Decision(0.0, follow=until, stands=stands)
        return Decision(keep, begin, end, stands=stands)

    def _windows(self, gaps: Array, start: float, prior: float) -> tuple[float, float, float, float]:
        """Returns keep, begin, end and what they lose per gap."""
        each = prior / len(PRIOR)
        values = np.concatenate([gaps, PRIOR])
        order = np.argsort(values, kind="stable")
        values = values[order]
        weight = np.where(order < len(gaps), 1.0, each)
        counts = np.concatenate([[0.0], np.cumsum(weight)])
        sums = np.concatenate([[0.0], np.cumsum(weight * values)])
        total = counts[-1]

        def below(at: Array) -> tuple[Array, Array]:
            """Weight of gaps up to a time, and their sum."""
            i = np.searchsorted(values, at, side="right")
            return counts[i], sums[i]

        # keep-alives: end at a point
        points = gaps if len(gaps) <= POINTS else gaps[np.rint(SHARES * (len(gaps) - 1)).astype(np.int64)]
        keeps = np.sort(np.concatenate([ALWAYS, points, points * 1.05 + self.slack]))
        n, s = below(keeps)
        kept = s + keeps * (total - n) - self.worth * n
        best = np.minimum.accumulate(kept)
        keep_at = np.maximum.accumulate(np.where(kept == best, np.arange(len(kept)), 0))
        found = (float(best[-1]), float(keeps[keep_at[-1]]), NEVER, NEVER)
        if len(gaps):
            low = np.maximum(0.995 * points - self.slack, 0.0)
            high = 1.005 * keeps + self.slack
            early = low - self.lead * start
            n_low, _ = below(low - 1e-12)
            n_early, s_early = below(early)
            n_high, s_high = below(high)
            # a pod lives from early to the gap's end, or to the window's
            cost = (s_high[None, :] - s_early[:, None]) - early[:, None] * (n_high[None, :] - n_early[:, None])
            cost += (high[None, :] - early[:, None]) * (total - n_high)[None, :]
            cost -= self.worth * (n_high[None, :] - n_low[:, None])
            fits = (keeps[None, :] >= points[:, None]) & (early > 0.0)[:, None]
            # one gap of many proves no window
            fits &= n_high[None, :] - n_low[:, None] >= min(LEAST, len(gaps))
            before = np.searchsorted(keeps, early, side="left") - 1  # keep-alives that end before the pod begins
            cost += best[np.maximum(before, 0)][:, None]
            cost[~fits] = np.inf
            i, j = np.unravel_index(int(np.argmin(cost)), cost.shape)
            if cost[i, j] < found[0]:
                keep = float(keeps[keep_at[max(int(before[i]), 0)]])
                found = (float(cost[i, j]), keep, float(early[i]), float(high[j]))
        loss, keep, begin, end = found
        return keep, begin, end, loss / total + self.worth

    def _following(self, lags: Array, view: View) -> tuple[float, float]:
        """Returns for how long a pod is warmed at a caller's arrival, and what that loses per arrival."""
        until = 1.2 * float(np.sort(lags)[int(0.95 * (len(lags) - 1))]) + 1.0
        hit = float(((lags > view.start) & (lags <= until)).mean())
        calls = view.calls / view.seen
        held = float(np.minimum(lags, until).mean()) + max(calls - 1.0, 0.0) * until
        return until, held + self.worth * (1.0 - hit)
