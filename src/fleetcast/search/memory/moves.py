"""From an order of computes to moves: what is loaded before each, what is given up for room, and what is saved first.

An order lists (processor, node), a node more than once where it is computed again. The order says all of the future, so
that a value which nobody reads before it is computed anew is deleted, not saved; of values that are read again a policy
of `policy.evict` chooses which goes: `Belady` is OneStopParallel's FORESIGHT, `Lru` its LEAST_RECENTLY_USED, and
`Largest` its LARGEST_ID.
"""

from __future__ import annotations

from collections import deque

from fleetcast.cost.pebbling.game import COMPUTE, DELETE, LOAD, SAVE, Game, Move
from fleetcast.policy.evict import Policy, View
from fleetcast.search.memory.aligned import aligned

Order = list[tuple[int, int]]
"""(processor, node), in the order in which values are computed."""
NEVER = float("inf")


class Largest:
    """The value with the largest number goes first: the null policy. All rank alike, and of equals the last goes."""

    kind = "largest"
    offline = False

    def rank(self, view: View) -> float:
        """Returns 0."""
        return 0.0


def moves(of: Game, order: Order, rule: Policy) -> list[Move] | None:
    """Returns the moves that compute in this order, best lined up; None where memory or the order does not allow it."""
    found = _Desk(of, order, rule).run()
    return found if found is None else aligned(of, found)


class _Desk:
    """The memories while an order is carried out."""

    def __init__(self, of: Game, order: Order, rule: Policy) -> None:
        n, k = len(of.dag), of.processors
        self.of, self.order, self.rule = of, order, rule
        self.red: list[dict[int, None]] = [{} for _ in range(k)]
        self.used = [0.0] * k
        self.blue = [v in of.given for v in range(n)]
        self.sink = [not some and v not in of.given for v, some in enumerate(of.dag.children)]
        self.made: list[Move] = []
        self.touched: list[dict[int, tuple[int, int, int]]] = [{} for _ in range(k)]
        # What happens to each value on each processor: (when, it is read); read off from the left.
        self.events: list[dict[int, deque[tuple[int, bool]]]] = [{} for _ in range(k)]
        for i, (p, v) in enumerate(order):
            for u in of.dag.parents[v]:
                self.events[p].setdefault(u, deque()).append((i, True))
            self.events[p].setdefault(v, deque()).append((i, False))

    def run(self) -> list[Move] | None:
        size, parents = self.of.dag.size, self.of.dag.parents
        for i, (p, v) in enumerate(self.order):
            here = self.red[p]
            inputs = parents[v]
            if v in here:
                self._past(p, v, i)
                for u in inputs:
                    self._past(p, u, i)
                continue
            missing = [u for u in inputs if u not in here]
            for u in missing:
                if self.blue[u]:
                    continue
                owner = next((q for q in range(self.of.processors) if u in self.red[q]), None)
                if owner is None:
                    return None
                self._save(owner, u)
            if not self._room(p, size[v] + sum(size[u] for u in missing), {*inputs, v}, i):
                return None
            for u in missing:
                self._put(LOAD, p, u, i)
            self._put(COMPUTE, p, v, i)
            self._past(p, v, i)
            for u in inputs:
                self._past(p, u, i)
                stored, _, uses = self.touched[p][u]
                self.touched[p][u] = (stored, i, uses + 1)
            for u in (*inputs, v):
                if self._next(p, u) == NEVER and not self._last(p, u, i):
                    self._delete(p, u)
        for p, here in enumerate(self.red):
            for v in here:
                if self.sink[v] and not self.blue[v]:
                    self._save(p, v)
        return self.made

    def _put(self, kind: int, p: int, v: int, i: int) -> None:
        self.made.append((kind, p, v))
        self.red[p][v] = None
        self.used[p] += self.of.dag.size[v]
        self.touched[p][v] = (i, i, 0)

    def _save(self, p: int, v: int) -> None:
        self.made.append((SAVE, p, v))
        self.blue[v] = True

    def _delete(self, p: int, v: int) -> None:
        self.made.append((DELETE, p, v))
        del self.red[p][v]
        self.used[p] -= self.of.dag.size[v]

    def _past(self, p: int, v: int, i: int) -> None:
        ahead = self.events[p].get(v)
        while ahead and ahead[0][0] <= i:
            ahead.popleft()

    def _next(self, p: int, v: int) -> float:
        """When a processor next reads a value before it computes it anew."""
        ahead = self.events[p].get(v)
        return ahead[0][0] if ahead and ahead[0][1] else NEVER

    def _last(self, p: int, v: int, i: int) -> bool:
        """Whether this is the only copy of a value that is wanted."""
        if self.blue[v] or any(v in self.red[q] for q in range(self.of.processors) if q != p):
            return False
        return self.sink[v] or any(self._next(q, v) < NEVER for q in range(self.of.processors))

    def _room(self, p: int, need: float, kept: set[int], i: int) -> bool:
        """Gives up values until ``need`` fits; returns whether it does."""
        limit = self.of.red[p] * (1.0 + 1e-12)
        while self.used[p] + need > limit:
            those = [v for v in self.red[p] if v not in kept]
            if not those:
                return False
            victim = min(those, key=lambda v: (self._rank(p, v), -v))
            if self._last(p, victim, i):
                self._save(p, victim)
            self._delete(p, victim)
        return True

    def _rank(self, p: int, v: int) -> float:
        stored, used, uses = self.touched[p][v]
        return self.rule.rank(View(used, stored, uses, 0, int(self.of.dag.size[v]), self._next(p, v)))
