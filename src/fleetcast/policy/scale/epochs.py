"""At which arrivals a policy that learns looks at a function anew: ever more of them lie between two looks.

What k gaps teach changes little with the next; so the looks are at 1, 2, 3, ... arrivals and then at every quarter
more. A function of a million arrivals is looked at some sixty times, and both worlds find the same decisions.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from fleetcast.policy.scale import View

Array = NDArray[np.float64]
LOOKS = [1]
while LOOKS[-1] < 10**12:
    LOOKS.append(max(LOOKS[-1] + 1, LOOKS[-1] * 5 // 4))
RECENT = 2048
"""Gaps that are looked at, the latest."""


def known(view: View) -> tuple[Array, Array, int]:
    """Returns the gaps and lags that a policy looks at now, and for how many arrivals it does not look again.

    Args:
        view: a function.
    """
    at = bisect_right(LOOKS, view.seen) - 1
    seen = LOOKS[at]
    begin = max(0, seen - 1 - RECENT)
    return view.gaps[begin : seen - 1], view.lags[begin:seen], LOOKS[at + 1] - view.seen
