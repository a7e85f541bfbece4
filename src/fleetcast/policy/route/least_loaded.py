"""Least loaded: the replica with the fewest outstanding requests gets the next one.

Join the shortest queue: Winston, "Optimality of the shortest line discipline", Journal of Applied Probability, 1977;
"lor" in Vidur (Agrawal et al., MLSys 2024). Outstanding = waiting and running; loads are divided by the replicas'
relative speed; ties go to the lowest index.
"""

from __future__ import annotations

import numpy as np

from fleetcast.policy.route import Arrival, View


class LeastLoaded:
    """The shortest line, weighted by speed."""

    kind = "least_loaded"
    static = False

    def choose(self, arrival: Arrival, view: View, rng: np.random.Generator) -> int:
        """Returns the replica with the least load per speed, counting the new request."""
        return min(range(len(view.load)), key=lambda i: ((view.load[i] + 1) / view.weight[i], i))
