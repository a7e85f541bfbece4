"""Equal stages in the order of the fleet, one network for all: what an engine does that knows nothing of its links.

Ranks whose network cards do not understand each other all talk over the link that every one of them has.
"""

from __future__ import annotations

from fleetcast.policy.place.stages import Placement, View


class Blind:
    """Equal stages in the order of the fleet, over the network that joins all groups."""

    kind = "blind"

    def place(self, view: View) -> Placement:
        """Returns stages of as equal a number of layers as there can be, the longer ones first."""
        groups = tuple(group for group, count in enumerate(view.stages) for _ in range(count))
        each, more = divmod(view.layers, len(groups))
        return Placement(groups, tuple(each + (stage < more) for stage in range(len(groups))), own_links=False)
