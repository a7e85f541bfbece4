"""Pods that lie anywhere they have room, as columns: what repacking, exchanges and bounds work on.

A pod is *plain* where nothing but its size, its priority and a mask of nodes matters: no gang, no share of a device, no
rule about other pods, no disruption budget, movable. All others stay where a ledger has them. A state is an i8[m] of
nodes, -1 = nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from fleetcast.policy.place.pods import Pod, View
from fleetcast.policy.place.pods.ledger import Ledger
from fleetcast.policy.place.pods.match import company

if TYPE_CHECKING:
    from numpy.typing import NDArray

    State = NDArray[np.int64]


@dataclass(frozen=True)
class Instance:
    """Plain pods and what nodes have for them.

    Attributes:
        pods: m of them, running ones first.
        base: the ledger without them.
        size: i8[r, m].
        free: i8[r, n], of ``base``.
        tier: i8[m], priority.
        tiers: priorities that occur, highest first.
        now: i8[m], where each runs, -1 = it waits.
        masks: bool[k, n], nodes that a pod may lie on.
        mask: i8[m], which of them is each pod's.
        scale: f8[r], 1 over the largest node's capacity.
    """

    pods: tuple[Pod, ...]
    base: Ledger
    size: NDArray[np.int64]
    free: NDArray[np.int64]
    tier: NDArray[np.int64]
    tiers: tuple[int, ...]
    now: State
    masks: NDArray[np.bool_]
    mask: NDArray[np.int64]
    scale: NDArray[np.float64]

    @classmethod
    def of(cls, view: View, filled: Ledger | None = None) -> Instance:
        """Returns the instance of a view.

        Args:
            view: of the cluster.
            filled: a ledger after some waiting pods were placed; those of them that are not plain stay there.
        """
        base = (view.ledger if filled is None else filled).copy()
        pods, now = [], []
        for pod in view.running:
            laid = base.laid.get(pod.name)
            if laid is not None and pod.movable and plain(base, pod) and not covered(view, pod):
                pods.append(pod)
                now.append(laid.node)
                base.remove(pod.name)
        for pod in view.waiting:
            if plain(base, pod):
                if pod.name in base.laid:
                    base.remove(pod.name)
                pods.append(pod)
                now.append(-1)
        needs = [base.need(pod).amount for pod in pods]
        rows: dict[bytes, int] = {}
        masks: list[NDArray[np.bool_]] = []
        mask = np.zeros(len(pods), dtype=np.int64)
        seen: dict[object, int] = {}
        lonely = base.plain
        for i, pod in enumerate(pods):
            allowed = base.allowed(pod)
            settled = now[i] < 0 or bool(allowed[now[i]])
            key = (id(allowed), None if lonely else tuple(pod.labels.items()), -1 if settled else now[i])
            if key not in seen:
                row = allowed if lonely else allowed & base.welcome(pod)
                if not settled:  # it runs where it would not be let on today
                    row = row.copy()
                    row[now[i]] = True
                seen[key] = rows.setdefault(row.tobytes(), len(masks))
                if seen[key] == len(masks):
                    masks.append(row)
            mask[i] = seen[key]
        tier = np.array([pod.priority for pod in pods], dtype=np.int64)
        size = np.array(needs, dtype=np.int64).reshape(len(pods), len(base.resources)).T
        return cls(
            tuple(pods), base, np.ascontiguousarray(size), np.ascontiguousarray(base.free.T), tier,
            tuple(sorted(set(tier.tolist()), reverse=True)), np.array(now, dtype=np.int64),
            np.array(masks, dtype=bool).reshape(len(masks), len(base.nodes)), mask,
            1.0 / np.maximum(base.capacity.max(axis=0, initial=0), 1),
        )  # fmt: skip

    def state(self, ledger: Ledger) -> State:
        """Returns where a ledger has the pods."""
        found = [ledger.laid.get(pod.name) for pod in self.pods]
        return np.array([-1 if laid is None else laid.node for laid in found], dtype=np.int64)

    def left(self, state: State) -> NDArray[np.int64]:
        """Returns what a state leaves free, i8[r, n]."""
        free = self.free.copy()
        placed = state >= 0
        for r in range(len(free)):
            free[r] -= np.bincount(state[placed], self.size[r, placed], minlength=free.shape[1]).astype(np.int64)
        return free

    def ledger(self, state: State) -> Ledger:
        """Returns the ledger of a state."""
        found = self.base.copy()
        for pod, node in zip(self.pods, state.tolist(), strict=True):
            if node >= 0:
                found.place(pod, node)
        return found

    def worth(self, state: State) -> tuple[int, ...]:
        """Returns what is compared: by tier, highest first, those kept and those placed; then -evictions, -moves."""
        placed, runs = state >= 0, self.now >= 0
        found: list[int] = []
        for tier in self.tiers:
            mine = self.tier == tier
            found += [int((mine & placed & runs).sum()), int((mine & placed).sum())]
        evicted = runs & ~placed
        return (*found, -int(evicted.sum()), -int((runs & placed & (state != self.now)).sum()))

    def decreasing(self, stretch: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
        """Returns the order by tier, then size; ``stretch`` f8[m] is what sizes are multiplied with."""
        volume = self.scale @ self.size
        if stretch is not None:
            volume = volume * stretch
        return np.lexsort((-volume, -self.tier))

    def packed(self, order: Sequence[int] | NDArray[np.int64]) -> State:
        """Returns the state of best fit in an order, from nothing."""
        free, size = self.free.copy(), self.size
        slack = self.scale @ free
        volume = (self.scale @ size).tolist()
        state = np.full(len(self.pods), -1, dtype=np.int64)
        rows = [r for r in range(len(free)) if size[r].any()]
        columns = [(free[r], size[r].tolist()) for r in rows]
        which = self.mask.tolist()
        for i in np.asarray(order).tolist():
            fits: NDArray[np.bool_] = self.masks[which[i]].copy()
            for have, asked in columns:
                fits &= have >= asked[i]
            node = int(np.where(fits, slack, np.inf).argmin()) if len(fits) else -1
            if node < 0 or not bool(fits[node]):
                continue
            state[i] = node
            for have, asked in columns:
                have[node] -= asked[i]
            slack[node] -= volume[i]
        return state

    def stay(self, state: State) -> State:
        """Returns a state with equal nodes renamed so that as many pods as can be stay (an assignment problem)."""
        alike: dict[bytes, list[int]] = {}
        for node in range(self.free.shape[1]):
            alike.setdefault(self.free[:, node].tobytes() + self.masks[:, node].tobytes(), []).append(node)
        both = (state >= 0) & (self.now >= 0)
        n = self.free.shape[1]
        overlap = np.bincount(state[both] * n + self.now[both], minlength=n * n).reshape(n, n)
        renamed = np.arange(n)
        for nodes in alike.values():
            if len(nodes) > 1:
                rows, columns = linear_sum_assignment(-overlap[np.ix_(nodes, nodes)])
                renamed[np.array(nodes)[rows]] = np.array(nodes)[columns]
        return self.swapped(np.where(state >= 0, renamed[state], -1))

    def swapped(self, state: State) -> State:
        """Returns a state in which equal pods change places so that more of them are where they run."""
        kinds: dict[tuple[bytes, int, int], list[int]] = {}
        for i in range(len(self.pods)):
            kinds.setdefault((self.size[:, i].tobytes(), int(self.tier[i]), int(self.mask[i])), []).append(i)
        found = state.copy()
        for same in kinds.values():
            if len(same) < 2:
                continue
            room: dict[int, int] = {}
            for i in same:
                if state[i] >= 0:
                    room[int(state[i])] = room.get(int(state[i]), 0) + 1
            rest = []
            for i in same:
                node = int(self.now[i])
                if node >= 0 and room.get(node, 0):
                    room[node] -= 1
                    found[i] = node
                else:
                    rest.append(i)
            # running ones first: a waiting one that stays out costs no eviction
            rest.sort(key=lambda i: self.now[i] < 0)
            free = [node for node, count in room.items() for _ in range(count)]
            for k, i in enumerate(rest):
                found[i] = free[k] if k < len(free) else -1
        return found


def plain(ledger: Ledger, pod: Pod) -> bool:
    """Returns whether nothing but size, priority and a mask of nodes matters of a pod."""
    need = ledger.need(pod)
    return not (pod.group or need.share or need.absent or company(pod)) and pod.preempts


def covered(view: View, pod: Pod) -> bool:
    """Returns whether a disruption budget is for the pod."""
    return any(all(pod.labels.get(k) == v for k, v in labels.items()) for labels, _ in view.budgets.values())
