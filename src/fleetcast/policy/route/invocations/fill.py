"""Clean regions are filled before dirty ones, and pods that are warm are left in peace: ours.

A request takes a warm pod wherever it is, unless a cleaner region has room to spare (``leave`` of its memory free); a
new pod goes to the cleanest region that has room (``keep`` of it free stays). Within a region nodes come in the order
of the function's hash. Two thresholds instead of one, for a region that is nearly full would otherwise take a pod for
every pod that ends, each of them cold.

What has idled long in a clean region will hardly be asked again before it ends: a new pod takes its place rather than
go on, which costs few cold starts and spares idle power. How long is long depends on what is won: ``rest`` is for
next to nothing, and less the more of the fleet's whole span of carbon intensities lies between the clean region and
where the pod would go else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fleetcast.policy.route.invocations.green import weights
from fleetcast.policy.route.invocations.hash import steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.policy.route.invocations import View


class Fill:
    """Regions from the cleanest on, with two thresholds.

    Args:
        keep: share of a region's memory that new pods leave free.
        leave: share that must be free for a warm pod elsewhere to be left.
        alike: regions whose greenness differs by less than this share count as equal.
        rest: s for which a pod must have idled before a new one may end it in a region that is hardly cleaner; less in
            proportion where more is won.
    """

    kind = "fill"

    def __init__(self, *, keep: float = 0.0, leave: float = 0.2, alike: float = 0.03, rest: float = 60.0) -> None:
        self.keep, self.leave, self.alike, self.rest = keep, leave, alike, rest

    def pick(self, view: View) -> int | None:
        """Returns a node with room: warm where that is clean enough, else clean."""
        if not view.room.any():
            return None
        walk = steps(view.name, len(view.region))
        of_region = np.zeros(int(view.region.max()) + 1)
        np.maximum.at(of_region, view.region, weights(view))
        order = np.argsort(-of_region, kind="stable").tolist()
        warm = walk[view.warm[walk] > 0]
        if not len(warm):
            return self._new(view, walk, of_region, order)
        best = max(of_region[view.region[warm]])
        for region in order:
            if of_region[region] <= best * (1 + self.alike):  # none cleaner has room to spare
                break
            roomy = _roomy(view, walk, region, self.leave)
            if len(roomy):
                return int(roomy[0])
        return int(warm[np.argmax(of_region[view.region[warm]])])

    def _new(self, view: View, walk: NDArray[np.int64], of_region: NDArray[np.float64], order: list[int]) -> int:
        """Returns a node for a new pod: the cleanest with room, or a cleaner one where a pod has idled for long."""
        open_ = ((region, _roomy(view, walk, region, self.keep)) for region in order)
        to, roomy = next(((region, found) for region, found in open_ if len(found)), (-1, walk[:0]))
        most = max(float(of_region.max()), 1e-300)
        carbon = most / np.maximum(of_region, 1e-9 * most)  # of the cleanest region 1
        dirtiest = float(carbon[of_region > 0].max(initial=1.0))
        else_, span = carbon[to] if to >= 0 else dirtiest, dirtiest - 1.0
        for region in order:
            if region == to:
                return int(roomy[0])
            won = (else_ - carbon[region]) / span if span > 0 else 0.0
            here = walk[view.region[walk] == region]
            old = here[view.room[here] & (view.idle[here] > self.rest * (1.0 - won))]
            if len(old):
                return int(old[np.argmax(view.idle[old])])
        found = walk[view.room[walk]]
        return int(found[np.argmax(view.idle[found])])


def _roomy(view: View, walk: NDArray[np.int64], region: int, spare: float) -> NDArray[np.int64]:
    """Returns the nodes of a region that have room without ending a pod, if more than a share of it is free."""
    here: NDArray[np.int64] = walk[view.region[walk] == region]
    size = float(view.size[here].sum())
    if np.isfinite(size) and not float(view.free[here].sum()) > spare * size:
        here = here[:0]
    found: NDArray[np.int64] = here[view.room[here] & (view.free[here] >= view.memory)]
    return found
