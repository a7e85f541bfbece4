"""Priority best-fit-decreasing: by priority, then the largest first, each on the node that it leaves the least free on.

A pod's size, and what is left, are sums of shares of the largest node over resources. With ``repack``, where a pod
has found no place, all pods that may move are packed anew in that order, and the result is taken if it serves the
tiers of priority better than leaving everybody where they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fleetcast.policy.place.pods import Placement, Pod, View
from fleetcast.policy.place.pods.greedy import Turned, decide, lay, units
from fleetcast.policy.place.pods.ledger import WHOLE, Ledger
from fleetcast.policy.place.pods.packing import Instance

if TYPE_CHECKING:
    from numpy.typing import NDArray


class BestFit:
    """Fills nodes up, the fullest first.

    Args:
        repack: whether running pods may be packed anew for one that has no place.
    """

    kind = "best_fit"

    def __init__(self, *, repack: bool = False) -> None:
        self.repack = repack

    def place(self, view: View) -> Placement:
        """Returns who goes where; with ``repack`` also who moves or leaves."""
        ledger = fill(view)
        if not self.repack or all(pod.name in ledger.laid for pod in view.waiting):
            return decide(view, ledger)
        found = Instance.of(view, ledger)
        first = found.state(ledger)
        anew = found.stay(found.packed(found.decreasing()))
        return decide(view, found.ledger(max(first, anew, key=found.worth)))


def fill(view: View) -> Ledger:
    """Returns the ledger after best-fit-decreasing of the waiting pods, nobody moved."""
    ledger = view.ledger.copy()
    scale = 1.0 / np.maximum(ledger.capacity.max(axis=0, initial=0), 1)
    turned = Turned()
    for unit in units(decreasing(ledger, view.waiting, scale)):
        key = turned.key(ledger, unit)
        if key not in turned.known and not lay(ledger, unit, choose) and key is not None:
            turned.known.add(key)
    return ledger


def decreasing(ledger: Ledger, pods: tuple[Pod, ...], scale: NDArray[np.float64]) -> list[Pod]:
    """Returns pods by priority and size."""
    size = {p.name: float(ledger.need(p).amount @ scale) + ledger.need(p).share / WHOLE / 8 for p in pods}
    return sorted(pods, key=lambda pod: (-pod.priority, -size[pod.name], pod.arrival))


def choose(ledger: Ledger, pod: Pod, mask: NDArray[np.bool_]) -> tuple[int, None]:
    """Returns the node that has the least left, summed over resources as shares of the largest node."""
    among = np.flatnonzero(mask)
    scale = 1.0 / np.maximum(ledger.capacity.max(axis=0), 1)
    left = ledger.free[among] * scale
    if ledger.gpu >= 0:
        left[:, ledger.gpu] = np.maximum(ledger.devices[among], 0).sum(axis=1) * (scale[ledger.gpu] / WHOLE)
    return int(among[np.argmin(left.sum(axis=1))]), None
