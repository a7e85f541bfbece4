"""Room for a pod by moving one or two others: what a scheduler that may move pods tries before any solver.

For a pod w and a node n, from the cheapest: w fits; some p of n moves to a node with room and w takes its place; p of
n and q of another node change places. The condition on (p, q) is one of vectors: what n lacks <= p - q <= what q's
node has left. Where nothing helps, the fewest pods of lower priority leave n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fleetcast.policy.place.pods.packing import Instance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.policy.place.pods.packing import State


class Exchange:
    """A state under work, with what is free and who lies where.

    Attributes:
        state: i8[m].
        free: i8[r, n].
        steps: array operations so far, weighted by their length, s of one core, about.
    """

    def __init__(self, found: Instance, state: State) -> None:
        self.found = found
        self.state = state.copy()
        self.free = found.left(state)
        self.steps = 0.0
        self.on: list[set[int]] = [set() for _ in range(self.free.shape[1])]
        for i, node in enumerate(self.state.tolist()):
            if node >= 0:
                self.on[node].add(i)

    def put(self, i: int, node: int) -> None:
        """Lays a pod on a node, or nowhere (-1)."""
        old = int(self.state[i])
        if old >= 0:
            self.free[:, old] += self.found.size[:, i]
            self.on[old].discard(i)
        self.state[i] = node
        if node >= 0:
            self.free[:, node] -= self.found.size[:, i]
            self.on[node].add(i)

    def serve(self, w: int, targets: int) -> bool:
        """Finds room for a pod that lies nowhere, nobody leaving; tries that many nodes."""
        found = self.found
        size, mask = found.size[:, w], found.masks[found.mask[w]]
        lacks = size[:, None] - self.free
        self.steps += 2e-5 + lacks.size * 4e-9
        fits = (lacks <= 0).all(axis=0) & mask
        if fits.any():
            slack = found.scale @ self.free
            self.put(w, int(np.where(fits, slack, np.inf).argmin()))
            return True
        short = np.where(mask, found.scale @ np.maximum(lacks, 0), np.inf)
        order = np.argsort(short, kind="stable")[:targets].tolist()
        laid = np.flatnonzero(self.state >= 0)
        for node in order:
            if np.isfinite(short[node]) and self._one(w, node, lacks[:, node]):
                return True
        return any(np.isfinite(short[node]) and self._two(w, node, lacks[:, node], laid) for node in order)

    def _own(self, node: int) -> NDArray[np.int64]:
        return np.array(sorted(self.on[node]), dtype=np.int64)

    def _one(self, w: int, node: int, lacks: NDArray[np.int64]) -> bool:
        """Moves one pod off a node to where it fits."""
        found, own = self.found, self._own(node)
        own = own[(found.size[:, own] >= lacks[:, None]).all(axis=0)]
        if not len(own):
            return False
        self.steps += 3e-5 + len(own) * self.free.size * 4e-9
        room = (self.free[:, None, :] >= found.size[:, own, None]).all(axis=0) & found.masks[found.mask[own]]
        room[:, node] = False
        which, where = np.nonzero(room)
        if not len(which):
            return False
        # a pod that has moved already, or is new, costs nothing more; then the tightest fit
        cost = (self._cost(own[which], where)).astype(np.float64)
        cost += 1e-3 * (found.scale @ (self.free[:, where] - found.size[:, own[which]]))
        k = int(cost.argmin())
        self.put(int(own[which[k]]), int(where[k]))
        self.put(w, node)
        return True

    def _two(self, w: int, node: int, lacks: NDArray[np.int64], laid: NDArray[np.int64]) -> bool:
        """Lets a pod of a node and one of another change places."""
        found, own = self.found, self._own(node)
        if not len(own):
            return False
        self.steps += 6e-5 + len(own) * len(laid) * 1.2e-8
        there = self.state[laid]
        good = np.repeat(there[None, :] != node, len(own), axis=0)
        for r in range(len(lacks)):
            gap = found.size[r, own][:, None] - found.size[r, laid][None, :]
            good &= (gap >= lacks[r]) & (gap <= self.free[r, there][None, :])
        which, other = np.nonzero(good)
        if not len(which):
            return False
        p, q = own[which], laid[other]
        allowed = found.masks[found.mask[p], there[other]] & found.masks[found.mask[q], node]
        if not allowed.any():
            return False
        p, q = p[allowed], q[allowed]
        cost = (self._cost(p, self.state[q]) + self._cost(q, np.full(len(q), node))).astype(np.float64)
        gap = found.size[:, p] - found.size[:, q]
        cost += 1e-3 * (found.scale @ (self.free[:, self.state[q]] - gap))
        k = int(cost.argmin())
        to = int(self.state[q[k]])
        self.put(int(p[k]), to)
        self.put(int(q[k]), node)
        self.put(w, node)
        return True

    def _cost(self, pods: NDArray[np.int64], to: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many more moves there are once pods lie elsewhere."""
        now, here = self.found.now[pods], self.state[pods]
        more: NDArray[np.int64] = ((now >= 0) & (to != now)).astype(np.int64) - ((now >= 0) & (here != now))
        return more

    def displace(self, w: int) -> list[int]:
        """Finds room for a pod by sending pods of lower priority away; returns them, [] = it helps nowhere."""
        found = self.found
        tier = int(found.tier[w])
        lower = np.flatnonzero((found.tier < tier) & (self.state >= 0))
        if not len(lower):
            return []
        could = self.free.copy()
        for r in range(len(could)):
            sums = np.bincount(self.state[lower], found.size[r, lower], minlength=could.shape[1])
            could[r] += sums.astype(np.int64)
        hopeful = (could >= found.size[:, w, None]).all(axis=0) & found.masks[found.mask[w]]
        self.steps += 1e-4 + could.size * 1e-8
        best: tuple[tuple[int, int, int], list[int], int] | None = None
        for node in np.flatnonzero(hopeful).tolist():
            need = found.size[:, w] - self.free[:, node]
            out: list[int] = []
            # lowest priority first; of those, the largest covers what is short with the fewest
            mine = sorted(
                (i for i in self.on[node] if found.tier[i] < tier),
                key=lambda i: (found.tier[i], -float(found.scale @ found.size[:, i]), i),
            )
            for i in mine:
                if (need <= 0).all():
                    break
                need = need - found.size[:, i]
                out.append(i)
            for i in list(out):  # whoever need not leave stays
                if (need + found.size[:, i] <= 0).all():
                    need = need + found.size[:, i]
                    out.remove(i)
            self.steps += 2e-5
            key = (max(int(found.tier[i]) for i in out), len(out), node) if out else (0, 0, node)
            if best is None or key < best[0]:
                best = key, out, node
        if best is None:
            return []
        for i in best[1]:
            self.put(i, -1)
        self.put(w, best[2])
        return best[1]


def improve(
    found: Instance, state: State, *, targets: int, budget: float, displace: bool = True
) -> tuple[State, float]:
    """Returns a state in which more pods lie somewhere, and what it took, s of one core, about.

    Tiers are served from the highest, in each the smallest pods first: as many as can be. A pod of a lower tier that
    has to leave is served when its tier's turn comes.
    """
    work = Exchange(found, state)
    volume = found.scale @ found.size
    for tier in found.tiers:
        waiting = np.flatnonzero((found.tier == tier) & (work.state < 0))
        # pods that run now come before those that never did: nobody leaves for an equal
        order = waiting[np.lexsort((volume[waiting], found.now[waiting] < 0))].tolist()
        failed: list[int] = []
        for w in order:
            if work.steps > budget:
                return work.state, work.steps
            if not work.serve(w, targets):
                failed.append(w)
        for w in failed if displace else ():
            if work.steps > budget:
                break
            if not work.serve(w, 4):
                work.displace(w)
    return work.state, work.steps
