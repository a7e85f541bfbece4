"""Synthetic jobs: random arrivals, long tails. SYNTHETIC: made for examples and tests, fitted to no cluster."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from fleetcast.base.rng import rng
from fleetcast.base.units import Quantity
from fleetcast.scenario.workload.jobs import Jobs, of

__all__ = ["Synthetic"]

Time = Annotated[float, Quantity("s", low=1e-3, high=1e9)]
WIDTHS = ((1, 0.6), (2, 0.1), (4, 0.15), (8, 0.12), (16, 0.03))
"""Devices of a job and how often: one is most common, powers of two."""


class Synthetic:
    """Poisson arrivals; lognormal durations; widths by `WIDTHS`. Synthetic.

    Args:
        jobs: how many.
        every: s between arrivals, on average.
        median: s, of durations.
        spread: standard deviation of the durations' logarithm; 1.5: the longest tenth are 7 times the median and more.
        widest: devices that a job may ask for; wider ones ask for as many.
        elastic: whether each job runs on a quarter to twice what it asks for.
        users: whose the jobs are, the first's twice as many as the second's, and so on.
    """

    kind = "synthetic"

    def __init__(
        self, *, jobs: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 200, every: Time = 120.0,
        median: Time = 1200.0, spread: Annotated[float, msgspec.Meta(ge=0, le=4)] = 1.5,
        widest: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 16, elastic: bool = False,
        users: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1,
    ) -> None:  # fmt: skip
        self.count, self.every, self.median, self.spread = jobs, every, median, spread
        self.widest, self.elastic, self.users = widest, elastic, users

    def jobs(self, seed: int) -> Jobs:
        """Returns the jobs of a seed."""
        draw, n = rng(seed, "jobs", "synthetic"), self.count
        arrival = np.cumsum(draw.exponential(self.every, n))
        seconds = self.median * np.exp(self.spread * draw.standard_normal(n))
        width, share = zip(*WIDTHS, strict=True)
        demand = np.minimum(draw.choice(width, n, p=share), self.widest)
        weights = 0.5 ** np.arange(self.users)
        user = draw.choice(self.users, n, p=weights / weights.sum())
        return of(
            arrival - arrival[0], demand, seconds,
            least=np.maximum(1, demand // 4) if self.elastic else demand, most=2 * demand if self.elastic else demand,
            user=user if self.users > 1 else None, users=tuple(f"user {i}" for i in range(self.users)),
            source=f"synthetic, seed {seed}",
        )  # fmt: skip
