"""Equal nodes and few kinds of pods: what one node can hold, as patterns, and how often each pattern is best used.

Gilmore and Gomory's view of packing ("A linear programming approach to the cutting-stock problem", 1961): the
variables are how many nodes hold each pattern. The linear program bounds any packing, and whole numbers of patterns
are a packing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import linprog

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.policy.place.pods.packing import Instance, State

MOST = 20_000
"""Patterns up to which they are all written down."""
KINDS = 16
"""Kinds up to which patterns are looked for."""


def patterns(size: NDArray[np.int64], count: NDArray[np.int64], room: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Returns all patterns to which no pod can be added, i8[p, k]; None where there are too many.

    Args:
        size: i8[r, k].
        count: i8[k], pods of each kind.
        room: i8[r], of a node.
    """
    kinds = size.shape[1]
    sizes = [tuple(column) for column in size.T.tolist()]
    counts = count.tolist()
    found: list[list[int]] = []
    chosen = [0] * kinds

    def fits(k: int, left: tuple[int, ...]) -> int:
        most: int = min([counts[k], *(have // need for have, need in zip(left, sizes[k], strict=True) if need)])
        return most

    def walk(k: int, left: tuple[int, ...]) -> bool:
        if k == kinds:
            if all(chosen[i] == counts[i] or fits(i, left) < 1 for i in range(kinds)):
                found.append(list(chosen))
            return len(found) <= MOST
        for times in range(fits(k, left), -1, -1):
            chosen[k] = times
            if not walk(k + 1, tuple(have - times * need for have, need in zip(left, sizes[k], strict=True))):
                return False
        chosen[k] = 0
        return True

    return np.array(found, dtype=np.int64).reshape(len(found), kinds) if walk(0, tuple(room.tolist())) else None


class Grouped(NamedTuple):
    """Kinds of an instance whose nodes are all alike.

    Attributes:
        kind: i8[m], of each pod.
        size: i8[r, k].
        tier: i8[k].
        many: i8[k], pods of each.
        runs: i8[k], how many of them run.
        patterns: i8[p, k].
        nodes: how many.
    """

    kind: NDArray[np.int64]
    size: NDArray[np.int64]
    tier: NDArray[np.int64]
    many: NDArray[np.int64]
    runs: NDArray[np.int64]
    patterns: NDArray[np.int64]
    nodes: int

    @classmethod
    def of(cls, found: Instance) -> Grouped | None:
        """Returns the kinds; None where nodes differ, or where there are too many kinds or patterns."""
        n = found.free.shape[1]
        if n == 0 or len(found.pods) == 0 or not found.masks.all() or (found.free != found.free[:, :1]).any():
            return None
        both = np.vstack([found.size, found.tier])
        unlike, first, kind = np.unique(both, axis=1, return_index=True, return_inverse=True)
        if unlike.shape[1] > KINDS:
            return None
        kind = kind.ravel()
        count = np.bincount(kind)
        size = found.size[:, first]
        rows = np.flatnonzero(size.any(axis=1))
        all_ = patterns(size[rows], count, found.free[rows, 0])
        if all_ is None:
            return None
        runs = np.bincount(kind, found.now >= 0).astype(np.int64)
        return cls(kind, size, found.tier[first], count, runs, all_, n)

    def some(self, found: Instance, state: State, nodes: NDArray[np.int64]) -> Grouped:
        """Returns the same for a few nodes, the pods that lie on them and those that lie nowhere."""
        mine = (state < 0) | np.isin(state, nodes)
        k = len(self.many)
        count = np.bincount(self.kind[mine], minlength=k)
        runs = np.bincount(self.kind[mine], found.now[mine] >= 0, minlength=k).astype(np.int64)
        return self._replace(many=count, runs=runs, nodes=len(nodes))

    def most(self, goals: list[Rung]) -> tuple[int, NDArray[np.float64]]:
        """Returns a bound of the last goal, the others as high as they say or higher, and each pattern's use.

        Raises:
            ValueError: the goals cannot be met.
        """
        p, k = self.patterns.shape
        # variables: patterns, placed by kind, kept by kind
        held = np.hstack([-self.patterns.T, np.eye(k), np.zeros((k, k))])
        kept = np.hstack([np.zeros((k, p)), -np.eye(k), np.eye(k)])
        used = np.hstack([np.ones((1, p)), np.zeros((1, 2 * k))])
        weights = [np.concatenate([np.zeros(p), rung.placed, rung.kept]) for rung in goals]
        rows = [held, kept, used, *(-weight[None, :] for weight in weights[:-1])]
        high = np.concatenate([np.zeros(2 * k), [self.nodes], [-rung.least for rung in goals[:-1]]]).astype(float)
        limits = np.concatenate([np.full(p, self.nodes), self.many, self.runs]).astype(float)
        solved = linprog(
            -weights[-1], A_ub=np.vstack(rows), b_ub=high, bounds=np.column_stack([np.zeros(p + 2 * k), limits]),
            method="highs-ds",
        )  # fmt: skip
        if solved.x is None:
            raise ValueError(solved.message)
        return int(np.floor(-solved.fun + 1e-6)), solved.x[:p]

    def laid(
        self, found: Instance, state: State, nodes: NDArray[np.int64], times: NDArray[np.float64]
    ) -> tuple[State, list[int]]:
        """Returns a state in which nodes hold whole numbers of patterns, and the nodes that are left over, empty.

        Args:
            found: the instance.
            state: before.
            nodes: to pack anew.
            times: how often each pattern is used, cut down to whole numbers.
        """
        whole = np.floor(times + 1e-6).astype(np.int64)
        used = np.repeat(np.arange(len(whole)), whole).tolist()
        mine = (state < 0) | np.isin(state, nodes)
        after = np.where(mine, -1, state)
        queue = [np.flatnonzero(mine & (self.kind == i)).tolist()[::-1] for i in range(len(self.many))]
        for node, pattern in zip(nodes.tolist(), used, strict=False):
            for i, many in enumerate(self.patterns[pattern].tolist()):
                for _ in range(min(many, len(queue[i]))):  # those that run come first
                    after[queue[i].pop()] = node
        return after, nodes[len(used) :].tolist()


class Rung(NamedTuple):
    """A goal: weight of each kind's pods placed and of those kept, and at least how much."""

    placed: NDArray[np.int64]
    kept: NDArray[np.int64]
    least: int


def ladder(
    grouped: Grouped, above: list[tuple[int, int, int]], tier: int, *, keep: bool, equals: bool, kept: int
) -> list[Rung]:
    """Returns the goals up to a tier: those above at least as high as found.

    Args:
        grouped: kinds.
        above: tiers above with their pods kept and placed.
        tier: in question.
        keep: whether its pods kept are asked, else those placed.
        equals: whether pods kept do not count.
        kept: of the tier, kept so far.
    """
    none = np.zeros(len(grouped.many), dtype=np.int64)
    goals: list[Rung] = []
    for other, held, placed in above:
        mine = (grouped.tier == other).astype(np.int64)
        goals += [*([] if equals else [Rung(none, mine, held)]), Rung(mine, none, placed)]
    mine = (grouped.tier == tier).astype(np.int64)
    if keep:
        return [*goals, Rung(none, mine, 0)]
    return [*goals, *([] if equals else [Rung(none, mine, kept)]), Rung(mine, none, 0)]


def climb(grouped: Grouped, tiers: tuple[int, ...], *, equals: bool) -> NDArray[np.float64]:
    """Returns how often each pattern is used where tier after tier is served as well as can be, cut pods allowed.

    Raises:
        ValueError: the solver found no way.
    """
    above: list[tuple[int, int, int]] = []
    times = np.zeros(len(grouped.patterns))
    for tier in tiers:
        kept = 0
        if not equals:
            kept, times = grouped.most(ladder(grouped, above, tier, keep=True, equals=False, kept=0))
        placed, times = grouped.most(ladder(grouped, above, tier, keep=False, equals=equals, kept=kept))
        above.append((tier, kept, placed))
    return times
