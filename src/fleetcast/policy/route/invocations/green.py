"""How willingly nodes should be used: less carbon is greener, and so is more stored sun. What carbon routes share."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.policy.route.invocations import View

CLEANEST = 1.0
"""g/kWh below which grids count as equally clean: their inverse would otherwise take everything."""


def weights(view: View) -> NDArray[np.float64]:
    """Returns f8[N], a node's share of what is sent by greenness, not yet divided by their sum.

    On a grid the inverse of its carbon intensity; on sun and battery the joules that it has left. A fleet of both
    counts a node without a grid as the cleanest grid there is, as long as it has energy.
    """
    grid = 1.0 / np.maximum(view.carbon, CLEANEST)
    isolated = np.isfinite(view.energy)
    if not isolated.any():
        return grid
    if isolated.all():
        return np.maximum(view.energy, 0.0)
    return np.where(isolated, np.where(view.energy > 0, 1.0 / CLEANEST, 0.0), grid)


@lru_cache(maxsize=65536)
def places(name: str, count: int) -> NDArray[np.float64]:
    """Returns f8[count] in (0, 1): the hash of a function's name with each node's number."""
    made = b"".join(hashlib.blake2b(f"{name}/{node}".encode(), digest_size=8).digest() for node in range(count))
    found: NDArray[np.float64] = (np.frombuffer(made, "<u8") >> 11).astype(np.float64) / 2.0**53
    return np.maximum(found, 2.0**-54)
