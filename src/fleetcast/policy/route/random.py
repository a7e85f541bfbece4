"""Random: each request goes to a replica drawn by weight.

The memoryless dispatcher that Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 2001,
takes as its baseline. Weights follow the replicas' speeds, so unlike devices get unlike shares.
"""

from __future__ import annotations

import numpy as np

from fleetcast.policy.route import Arrival, View


class Random:
    """Replicas are drawn independently, in proportion to their speed."""

    kind = "random"
    static = True

    def choose(self, arrival: Arrival, view: View, rng: np.random.Generator) -> int:
        """Returns a replica drawn by weight."""
        edges = np.cumsum(view.weight)
        return int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
