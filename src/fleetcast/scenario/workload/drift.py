"""What pods really use, and how it drifts: SYNTHETIC, for clusters of which only requests are known.

A node is filled by what its pods use on average, as operators do who overcommit, so that it is overloaded once several
of them use more at the same time. Generators are frozen: nothing in them was changed after a policy saw them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.base.rng import rng

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP = 300.0
"""Seconds between two readings of what is used, as in Google's and Azure's traces."""
DAY = 86_400.0


@dataclass(frozen=True)
class Filled:
    """A cluster filled with pods.

    Attributes:
        capacity: f8[n, r] of n nodes and r resources.
        request: f8[t, r] of t pods.
        mean: f8[t, r], what each uses on average.
        node: i4[t], where each lies at first.
        memory: i, the resource that a move has to carry over (B).
    """

    capacity: NDArray[np.float64]
    request: NDArray[np.float64]
    mean: NDArray[np.float64]
    node: NDArray[np.int32]
    memory: int = 1


def drawn(
    capacity: NDArray[np.float64], requests: NDArray[np.float64], nodes: int, load: float, seed: int, most: float = 0.9
) -> Filled:
    """Returns a cluster of nodes and pods drawn from real ones, filled until pods use ``load`` of its CPU on average.

    Args:
        capacity: f8[n, 3] of real nodes: cores, bytes, devices.
        requests: f8[t, 3] of real pods.
        nodes: how many to draw, with replacement; that of ``capacity`` = all of them, each once.
        load: mean share of the CPU that is used, 0 to 1.
        seed: of the draw.
        most: share of a node's cores and bytes that pods placed on it may use on average.

    Each pod goes to the fullest of eight nodes drawn at random that still hold it (random first fit packs unevenly, as
    clusters are); one that none of them holds is left out. Devices are never shared beyond what there is.
    """
    random = rng(seed, "drift", "cluster", str(nodes))
    rows = np.arange(nodes) if nodes == len(capacity) else random.integers(0, len(capacity), nodes)
    have = capacity[rows]
    left = have * np.array([most, most, 1.0])
    wanted, used = load * float(have[:, 0].sum()), 0.0
    chosen: list[int] = []
    means: list[NDArray[np.float64]] = []
    where: list[int] = []
    for _ in range(60 * nodes):
        if used >= wanted:
            break
        pod = int(random.integers(0, len(requests)))
        share = np.array([random.beta(4.0, 4.0), random.uniform(0.4, 0.9), 1.0])
        need = requests[pod] * share
        tried = random.integers(0, nodes, 8)
        room = left[tried]
        fits = (room >= need).all(axis=1)
        if not fits.any():
            continue
        node = int(tried[np.where(fits, room[:, 0], np.inf).argmin()])
        left[node] -= need
        chosen.append(pod)
        means.append(need)
        where.append(node)
        used += float(need[0])
    return Filled(have, requests[chosen], np.array(means), np.array(where, np.int32))


def drift(filled: Filled, steps: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yields f8[t, 3], what pods use in each step of `STEP` seconds.

    Cores: the mean, times a day's wave (amplitude up to 0.3, its peak within two hours of noon for all), times the
    exponential of an AR(1) process (0.95 a step, standard deviation 0.25), at most 1.5 times the request. Memory: the
    mean times a slow AR(1) of standard deviation 0.08, at most the request. Devices: the request.
    """
    random = rng(seed, "drift", "use")
    t = len(filled.mean)
    amplitude, peak = random.uniform(0.0, 0.3, t), DAY / 2 + random.uniform(-7200.0, 7200.0, t)
    fast, slow = random.normal(0.0, 0.25, t), random.normal(0.0, 0.08, t)
    for step in range(steps):
        wave = amplitude * np.cos(2 * np.pi * (step * STEP - peak) / DAY)
        use = filled.mean.copy()
        use[:, 0] = np.minimum(use[:, 0] * np.exp(wave + fast - 0.25**2 / 2), 1.5 * filled.request[:, 0])
        use[:, 1] = np.minimum(use[:, 1] * np.exp(slow), filled.request[:, 1])
        yield use
        fast = 0.95 * fast + random.normal(0.0, 0.25 * np.sqrt(1 - 0.95**2), t)
        slow = 0.99 * slow + random.normal(0.0, 0.08 * np.sqrt(1 - 0.99**2), t)
