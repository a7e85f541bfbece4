"""Max-min fair rates: no flow can have more unless one that has no more has less (Bertsekas, Gallager, Data Networks).

Progressive filling: all rates rise together until a link is full, whose flows are then fixed; the rest goes on. Flows
with the same links have the same rate, so they are filled as one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def max_min(flow: Ints, link: Ints, count: int, capacity: Floats, weight: Floats | None = None) -> Floats:
    """Returns (count,) the rate of each flow.

    Args:
        flow: (n,) with ``link``: that flow crosses that link, each pair once.
        link: (n,).
        count: flows.
        capacity: (links,) B/s, above 0.
        weight: (count,) flows that each stands for; None = one each.

    A flow that crosses no link has an infinite rate.
    """
    weight = np.ones(count) if weight is None else weight
    rate = np.full(count, np.inf)
    left = capacity.astype(np.float64)
    open_ = np.zeros(count, dtype=bool)
    open_[flow] = True
    load = np.bincount(link, weight[flow], len(capacity))
    while open_.any():
        used = load > 1e-9
        share = np.full(len(capacity), np.inf)
        share[used] = np.maximum(left[used], 0.0) / load[used]
        least = share.min()
        full = share <= least * (1.0 + 1e-12)
        fixed = np.zeros(count, dtype=bool)
        fixed[flow[full[link]]] = True
        fixed &= open_
        rate[fixed] = least
        open_ &= ~fixed
        gone = fixed[flow]
        taken = np.bincount(link[gone], weight[flow[gone]], len(capacity))
        load = np.where(full, 0.0, load - taken)
        left = left - taken * least
    return rate
