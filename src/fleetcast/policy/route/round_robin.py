"""Round robin: request i goes to replica i mod n. The null of this family.

The default of nginx and of most load balancers; analysed as "cyclic dispatch" by Ephremides, Varaiya and Walrand,
"A simple dynamic routing problem", IEEE Transactions on Automatic Control, 1980.
"""

from __future__ import annotations

import numpy as np

from fleetcast.policy.route import Arrival, View


class RoundRobin:
    """Replicas take turns."""

    kind = "round_robin"
    static = True

    def choose(self, arrival: Arrival, view: View, rng: np.random.Generator) -> int:
        """Returns the request's number modulo the replicas."""
        return arrival.id % len(view.load)
