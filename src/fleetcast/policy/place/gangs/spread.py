"""Devices one by one on the node with most free: what a scheduler does that knows nothing of gangs."""

from __future__ import annotations

from collections.abc import Mapping

from fleetcast.policy.place.gangs import View


class Spread:
    """Spreads a gang over the emptiest nodes."""

    kind = "spread"

    def place(self, view: View, devices: int) -> Mapping[int, int] | None:
        """Returns one device after the other on the emptiest node, the first of several."""
        free = list(view.free)
        if sum(free) < devices:
            return None
        chosen: dict[int, int] = {}
        for _ in range(devices):
            node = max(range(len(free)), key=lambda n: (free[n], -n))
            free[node] -= 1
            chosen[node] = chosen.get(node, 0) + 1
        return chosen
