"""Fragmentation gradient descent: each pod where it lets the cluster's fragmentation grow least.

Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent" (USENIX ATC
2023). What is left of a node's devices is a fragment for a kind of pod m: all of it where m does not fit there (or asks
for no device), else those devices on which less is left than m takes of one. The fragmentation of a node is the mean
over the kinds of pods, weighted by how often they come:

    F_n(M) = sum_m p_m F_n(m),   F_n(m) = sum_g R_ng [m does not fit, or R_ng < min(D_m, 1)]

Differs from the paper: the kinds are counted from the pods that wait and run now unless they are given; increases are
compared exactly (the published scheduler rounds them to 0 to 100).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fleetcast.policy.place.pods import Placement, Pod, View
from fleetcast.policy.place.pods.greedy import Turned, decide, lay, queue, units
from fleetcast.policy.place.pods.ledger import WHOLE, Ledger

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Kinds(NamedTuple):
    """Kinds of pods, columns of length k.

    Attributes:
        cpu: thousandths of a core.
        share: thousandths of each device that one takes: below 1000 of one, 1000 of whole ones, 0 = it takes none.
        devices: that it takes.
        weight: how often it comes; sums to 1.
        allowed: bool[k, n], nodes that let it on.
    """

    cpu: NDArray[np.int64]
    share: NDArray[np.int64]
    devices: NDArray[np.int64]
    weight: NDArray[np.float64]
    allowed: NDArray[np.bool_]


class Fgd:
    """Places pods down the gradient of fragmentation.

    Args:
        popular: share of pods that the kinds counted must make up, the most frequent first (published: 0.95).
        typical: pods that stand for the workload; empty: those that wait and run.
    """

    kind = "fgd"

    def __init__(self, *, popular: float = 1.0, typical: Sequence[Pod] = ()) -> None:
        if not 0 < popular <= 1:
            raise ValueError(f"popular is above 0 and at most 1, not {popular}")
        self.popular = popular
        self.typical = typical

    def place(self, view: View) -> Placement:
        """Returns who goes where; nobody moves or leaves."""
        ledger = view.ledger.copy()
        slope = self._slope(view, ledger)
        turned = Turned()
        for unit in units(queue(view.waiting)):
            key = turned.key(ledger, unit)
            if key not in turned.known and not lay(ledger, unit, slope.choose) and key is not None:
                turned.known.add(key)
        return decide(view, ledger)

    def _slope(self, view: View, ledger: Ledger) -> Slope:
        known: Slope | None = self.__dict__.get("_known")
        if known is None or known.nodes is not view.nodes or not self.typical:
            kinds = count(ledger, self.typical or (*view.running, *view.waiting), self.popular)
            known = Slope(view, ledger, kinds)
            if self.typical:
                self.__dict__["_known"] = known  # what has been reckoned holds as long as the nodes are the same
        return known


def count(ledger: Ledger, pods: Iterable[Pod], popular: float) -> Kinds:
    """Returns the most frequent kinds among pods that make up a share of them."""
    found: Counter[tuple[int, int, int, int]] = Counter()
    masks: dict[int, NDArray[np.bool_]] = {}
    cpu = ledger.column.get("cpu", -1)
    for pod in pods:
        need, mask = ledger.need(pod), ledger.allowed(pod)
        masks[id(mask)] = mask
        whole = int(need.amount[ledger.gpu]) if ledger.gpu >= 0 else 0
        share, devices = (need.share, 1) if need.share else (WHOLE if whole else 0, whole)
        found[int(need.amount[cpu]) if cpu >= 0 else 0, share, devices, id(mask)] += 1
    total, seen = sum(found.values()), 0
    rows = []
    for kind, times in found.most_common():
        if seen >= popular * total:
            break
        seen += times
        rows.append((*kind, times))
    return Kinds(
        np.array([r[0] for r in rows], dtype=np.int64), np.array([r[1] for r in rows], dtype=np.int64),
        np.array([r[2] for r in rows], dtype=np.int64), np.array([r[4] / seen for r in rows], dtype=np.float64),
        np.array([masks[r[3]] for r in rows], dtype=bool).reshape(len(rows), len(ledger.nodes)),
    )  # fmt: skip


def fragmentation(
    cpu: NDArray[np.int64], devices: NDArray[np.int64], allowed: NDArray[np.bool_], kinds: Kinds
) -> NDArray[np.float64]:
    """Returns the fragmentation of states of nodes, in devices.

    Args:
        cpu: i8[s], thousandths of a core left.
        devices: i8[s, g], thousandths left of each device, below 0 where there is none.
        allowed: bool[k, s].
        kinds: of pods.
    """
    left = np.maximum(devices, 0)
    total = left.sum(axis=1)
    whole = (devices == WHOLE).sum(axis=1)
    most = devices.max(axis=1, initial=-1)
    share = kinds.share[:, None]
    room = np.where(share < WHOLE, most >= share, whole >= kinds.devices[:, None])
    fits = allowed & (share > 0) & (cpu >= kinds.cpu[:, None]) & room
    # the share of devices on which less is left than a kind takes, by kind
    levels, which = np.unique(kinds.share, return_inverse=True)
    small = np.stack([np.where(left < level, left, 0).sum(axis=1) for level in levels])[which]
    amount: NDArray[np.float64] = (kinds.weight[:, None] * np.where(fits, small, total)).sum(axis=0) / WHOLE
    return amount


class Slope:
    """How fragmentation would grow, by kind of pod and node; rows that have not changed are kept."""

    def __init__(self, view: View, ledger: Ledger, kinds: Kinds) -> None:
        self.nodes = view.nodes
        self.kinds = kinds
        self.cpu = ledger.column.get("cpu", -1)
        self._seen: dict[tuple[int, int, int], tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]] = {}

    def choose(self, ledger: Ledger, pod: Pod, mask: NDArray[np.bool_]) -> tuple[int, tuple[int, ...] | None]:
        """Returns the node on which fragmentation grows least, the first of several, and the device if it is shared."""
        need = ledger.need(pod)
        cpu = int(need.amount[self.cpu]) if self.cpu >= 0 else 0
        whole = int(need.amount[ledger.gpu]) if ledger.gpu >= 0 and not need.share else 0
        growth, device = self.growth(ledger, cpu, need.share, whole)
        node = int(np.where(mask, growth, np.inf).argmin())
        return node, (int(device[node]),) if need.share else None

    def growth(self, ledger: Ledger, cpu: int, share: int, whole: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Returns by node how fragmentation would grow, in devices, and the device to share."""
        left = ledger.free[:, self.cpu] if self.cpu >= 0 else np.zeros(len(ledger.nodes), dtype=np.int64)
        rows = np.column_stack([left, ledger.devices])
        key = (cpu, share, whole)
        known = self._seen.get(key)
        if known is None:
            growth, device = np.zeros(len(rows)), np.full(len(rows), -1, dtype=np.int64)
            stale = np.arange(len(rows))
        else:
            old, growth, device = known
            stale = np.flatnonzero((old != rows).any(axis=1))
        if len(stale):
            growth[stale], device[stale] = self._reckon(rows[stale], self.kinds.allowed[:, stale], key)
        self._seen[key] = rows, growth, device
        return growth, device

    def _reckon(
        self, rows: NDArray[np.int64], allowed: NDArray[np.bool_], key: tuple[int, int, int]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        # nodes in equal states under equal masks are reckoned once
        together = np.column_stack([rows, np.packbits(allowed, axis=0).T])
        _, first, back = np.unique(together, axis=0, return_index=True, return_inverse=True)
        growth, device = self._distinct(rows[first], allowed[:, first], *key)
        return growth[back.ravel()], device[back.ravel()]

    def _distinct(
        self, rows: NDArray[np.int64], allowed: NDArray[np.bool_], cpu: int, share: int, whole: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        left, devices = rows[:, 0], rows[:, 1:]
        before = fragmentation(left, devices, allowed, self.kinds)
        if not share:
            taken = devices.copy()
            free = devices == WHOLE
            taken[free & (np.cumsum(free, axis=1) <= whole)] = 0
            return fragmentation(left - cpu, taken, allowed, self.kinds) - before, np.full(
                len(rows), -1, dtype=np.int64
            )
        best, device = np.full(len(rows), np.inf), np.full(len(rows), -1, dtype=np.int64)
        for g in range(devices.shape[1]):
            on = np.flatnonzero(devices[:, g] >= share)
            if len(on):
                taken = devices[on]
                taken[:, g] -= share
                growth = fragmentation(left[on] - cpu, taken, allowed[:, on], self.kinds) - before[on]
                better = growth < best[on] - 1e-12
                best[on[better]], device[on[better]] = growth[better], g
        return best, device
