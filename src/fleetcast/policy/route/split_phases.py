"""Split phases: prompts go to prefill replicas, and each request moves with its cache to a decode replica.

Patel et al., "Splitwise: efficient generative LLM inference using phase splitting", ISCA 2024. A prompt goes where the
fewest prompt tokens wait, a request with its first token where the fewest requests are (join the shortest queue), both
per speed. Replicas of the role "all" take both, as the paper's mixed pool does. Beyond ``spill`` waiting prompt tokens
per prefill replica, decode replicas prefill too and keep what they prefilled: roles change with the load (conditional
disaggregation). Unlike the paper's scheduler the decode replica is chosen when the prefill ends, not at arrival.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from fleetcast.policy.route import Arrival, View


class SplitPhases:
    """The shortest line of prompt tokens to prefill, the shortest line of requests to decode."""

    kind = "split_phases"
    static = False

    def __init__(self, *, spill: Annotated[float, Meta(ge=0, le=1e12)] = 0.0, layerwise: bool = True) -> None:
        """Stores when roles give way and how caches move.

        Args:
            spill: prompt tokens waiting per prefill replica beyond which decode replicas prefill too; 0 = never.
            layerwise: layers of a cache leave as they are ready, not all when the prompt is done.
        """
        self.spill, self.layerwise = spill, layerwise

    def choose(self, arrival: Arrival, view: View, rng: np.random.Generator) -> int:
        """Returns the replica for the request's phase; roles that are not told count as "all"."""
        role = view.role or ["all"] * len(view.load)
        if arrival.phase == "decode":
            able = [i for i, r in enumerate(role) if r != "prefill"]
            return min(able, key=lambda i: ((view.load[i] + 1) / view.weight[i], i))
        tokens = view.waiting or [0] * len(view.load)
        line = [(tokens[i] + arrival.prompt) / view.weight[i] for i in range(len(role))]
        best = min((i for i, r in enumerate(role) if r != "decode"), key=lambda i: (line[i], i), default=-1)
        if best < 0 or (self.spill and line[best] > self.spill + arrival.prompt / view.weight[best]):
            return min(range(len(role)), key=lambda i: (line[i], i))
        return best
