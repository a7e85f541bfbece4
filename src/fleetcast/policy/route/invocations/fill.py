"""Clean regions are filled before dirty ones, and pods that are warm are left in peace: ours.

A request takes a warm pod wherever it is, unless a cleaner region has room to spare (``leave`` of its memory free); a
new pod goes to the cleanest region that has room (``keep`` of it free stays). Within a region nodes come in the order
of the function's hash. Two thresholds instead of one, for a region that is nearly full would otherwise take a pod for
every pod that ends, each of them cold. What has idled long in a clean region will hardly be asked again before it ends:
a new pod takes its place (``rest``) rather than go on, which costs few cold starts and spares idle power.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fleetcast.policy.route.invocations.green import weights
from fleetcast.policy.route.invocations.hash import steps

if TYPE_CHECKING:
    from fleetcast.policy.route.invocations import View


class Fill:
    """Regions from the cleanest on, with two thresholds.

    Args:
        keep: share of a region's memory that new pods leave free.
        leave: share that must be free for a warm pod elsewhere to be left.
        alike: regions whose greenness differs by less than this share count as equal.
        rest: s for which a pod must have idled before a new one may end it in a cleaner region.
    """

    kind = "fill"

    def __init__(self, *, keep: float = 0.0, leave: float = 0.03, alike: float = 0.03, rest: float = 30.0) -> None:
        self.keep, self.leave, self.alike, self.rest = keep, leave, alike, rest

    def pick(self, view: View) -> int | None:
        """Returns a node with room: warm where that is clean enough, else clean."""
        if not view.room.any():
            return None
        walk = steps(view.name, len(view.region))
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
            if not len(warm):
                old = here[view.room[here] & (view.idle[here] > self.rest)]
                if len(old):
                    return int(old[np.argmax(view.idle[old])])
        found = warm if len(warm) else walk[view.room[walk]]
        return int(found[0])
