"""Clean regions are filled before dirty ones, and pods that are warm are left in peace: ours.

A request takes a warm pod wherever it is, unless a cleaner region has room to spare (``leave`` of its memory free); a
new pod goes to the cleanest region that has room (``keep`` of it free stays). Within a region nodes come in the order
of the function's hash. Two thresholds instead of one, for a region that is nearly full would otherwise take a pod for
every pod that ends, each of them cold. What is idle in a clean region keeps others out: new pods of some functions
(``push``, by their hash; more of them in a full fleet) end idle pods there rather than go on, which costs cold starts
and spares idle power.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fleetcast.policy.route.invocations.green import places, weights
from fleetcast.policy.route.invocations.hash import steps

if TYPE_CHECKING:
    from fleetcast.policy.route.invocations import View


FULL = 0.7
"""Share of all memory from which on more functions push: idle pods are ended there in any case."""


class Fill:
    """Regions from the cleanest on, with two thresholds.

    Args:
        keep: share of a region's memory that new pods leave free.
        leave: share that must be free for a warm pod elsewhere to be left.
        alike: regions whose greenness differs by less than this share count as equal.
        push: share of functions whose new pods may end idle pods of others in a cleaner region, rather than go on.
    """

    kind = "fill"

    def __init__(self, *, keep: float = 0.0, leave: float = 0.03, alike: float = 0.03, push: float = 0.27) -> None:
        self.keep, self.leave, self.alike, self.push = keep, leave, alike, push

    def pick(self, view: View) -> int | None:
        """Returns a node with room: warm where that is clean enough, else clean."""
        if not view.room.any():
            return None
        walk = steps(view.name, len(view.region))
        with np.errstate(invalid="ignore"):
            full = 1.0 - float(np.nan_to_num(view.free.sum() / view.size.sum(), nan=1.0))
        share = self.push + (1.0 - self.push) * min(max((full - FULL) / (1 - FULL), 0.0), 1.0)
        pushes = not (view.warm > 0).any() and places(view.name, 1)[0] < share
        regions = int(view.region.max()) + 1
        green = weights(view)
        of_region = np.zeros(regions)
        np.maximum.at(of_region, view.region, green)
        size = np.bincount(view.region, view.size, regions)
        with np.errstate(invalid="ignore", divide="ignore"):
            spare = np.where(np.isfinite(size), np.bincount(view.region, view.free, regions) / size, 1.0)
        spare = np.nan_to_num(spare, nan=1.0)
        order = np.argsort(-of_region, kind="stable")
        warm = walk[view.warm[walk] > 0]
        best = max((of_region[view.region[n]] for n in warm.tolist()), default=0.0)
        for region in order.tolist():
            here = walk[view.region[walk] == region]
            if len(warm) and of_region[region] <= best * (1 + self.alike):  # none cleaner has room to spare
                return int(warm[np.argmax(of_region[view.region[warm]])])
            if spare[region] > (self.leave if len(warm) else self.keep):
                roomy = here[view.room[here] & (view.free[here] >= view.memory)]
                if len(roomy):
                    return int(roomy[0])
            if pushes and view.room[here].any():
                return int(here[view.room[here]][0])
        found = warm if len(warm) else walk[view.room[walk]]
        return int(found[0])
