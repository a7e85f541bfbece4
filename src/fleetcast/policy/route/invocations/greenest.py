"""The greenest node with room: least carbon on a grid, most energy left on sun and battery. GreenWhisk's greedy.

GreenWhisk (Serenari, Sreekumar, Zhao, Sarkar and Lee, IC2E 2024). In its published simulator of grids the metric is the
emission with a minus, sorted ascending, which takes the dirtiest first; here more carbon never attracts load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fleetcast.policy.route.invocations.green import weights
from fleetcast.policy.route.invocations.hash import steps

if TYPE_CHECKING:
    from fleetcast.policy.route.invocations import View


class Greenest:
    """Nodes from the greenest on; among equals in the order of the function's hash."""

    kind = "greenest"

    def pick(self, view: View) -> int | None:
        """Returns the greenest node that has room."""
        walk = steps(view.name, len(view.region))
        open_ = walk[view.room[walk]]
        return int(open_[np.argmax(weights(view)[open_])]) if len(open_) else None
