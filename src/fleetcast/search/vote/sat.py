"""A small SAT solver: clauses learnt from conflicts, two watched literals, and which assumptions contradict each other.

Conflict-driven search as in MiniSat (Een and Sorensson 2003): decide, propagate, learn the first unique implication
point, jump back. Literals are +v and -v for variables v from 1. Ties go to the lower variable, so that equal formulas
have equal answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush

DECAY, RESCALE, RESTART = 0.95, 1e100, 100


class Unsettled(Exception):
    """The search met more conflicts than it may."""


class Solver:
    """Holds clauses and finds values that satisfy them.

    Args:
        limit: conflicts, of all calls together, after which it gives up.
    """

    def __init__(self, limit: int = 1_000_000) -> None:
        self._value: list[int] = [0]
        """Of each variable: 1, -1, or 0 = open."""
        self._level: list[int] = [0]
        self._reason: list[list[int] | None] = [None]
        self._phase: list[int] = [-1]
        self._activity: list[float] = [0.0]
        self._heap: list[tuple[float, int]] = []
        self._watch: dict[int, list[list[int]]] = {}
        self._trail: list[int] = []
        self._limits: list[int] = []
        self._head = 0
        self._step = 1.0
        self._broken = False
        self.conflicts, self._limit = 0, limit

    def variable(self, *, likely: bool = False) -> int:
        """Returns a new variable; ``likely`` is the value that is tried first."""
        v = len(self._value)
        for column, start in ((self._value, 0), (self._level, 0), (self._phase, 1 if likely else -1)):
            column.append(start)
        self._reason.append(None)
        self._activity.append(0.0)
        self._watch[v], self._watch[-v] = [], []
        heappush(self._heap, (0.0, v))
        return v

    def add(self, literals: Iterable[int]) -> None:
        """Adds a clause: at least one of the literals holds."""
        self._back(0)
        clause: list[int] = []
        for x in dict.fromkeys(literals):
            if self._of(x) > 0 or -x in clause:
                return
            if self._of(x) == 0:
                clause.append(x)
        if not clause:
            self._broken = True
        elif len(clause) == 1:
            self._set(clause[0], None)
            self._broken = self._broken or self._propagate() is not None
        else:
            self._attach(clause)

    def solve(self, assumed: Sequence[int] = ()) -> list[int] | None:
        """Looks for values under assumptions.

        Returns:
            None where there are some, which `holds` tells; else assumptions that the clauses contradict, in order
            (none of them: the clauses contradict themselves).

        Raises:
            Unsettled: neither was found within the limit.
        """
        self._back(0)
        if self._broken:
            return []
        budget, spent = RESTART, 0
        while True:
            conflict = self._propagate()
            if conflict is not None:
                self.conflicts += 1
                spent += 1
                if self.conflicts > self._limit:
                    raise Unsettled
                if not self._limits:
                    self._broken = True
                    return []
                self._learn(conflict)
                continue
            if spent >= budget:
                budget, spent = int(budget * 1.5), 0
                self._back(0)
                continue
            depth = len(self._limits)
            if depth < len(assumed):
                x = assumed[depth]
                if self._of(x) < 0:
                    guilty = self._blame(x)
                    return [y for y in assumed if y in guilty]
                self._limits.append(len(self._trail))
                if self._of(x) == 0:
                    self._set(x, None)
                continue
            v = self._open()
            if v == 0:
                return None
            self._limits.append(len(self._trail))
            self._set(v * self._phase[v], None)

    def holds(self, v: int) -> bool:
        """Returns a variable's value in the solution that `solve` found last."""
        return self._value[v] > 0

    def _of(self, x: int) -> int:
        return self._value[x] if x > 0 else -self._value[-x]

    def _attach(self, clause: list[int]) -> None:
        self._watch[clause[0]].append(clause)
        self._watch[clause[1]].append(clause)

    def _set(self, x: int, reason: list[int] | None) -> None:
        v = abs(x)
        self._value[v] = self._phase[v] = 1 if x > 0 else -1
        self._level[v], self._reason[v] = len(self._limits), reason
        self._trail.append(x)

    def _back(self, depth: int) -> None:
        if len(self._limits) <= depth:
            return
        for x in self._trail[self._limits[depth] :]:
            v = abs(x)
            self._value[v], self._reason[v] = 0, None
            heappush(self._heap, (-self._activity[v], v))
        del self._trail[self._limits[depth] :]
        del self._limits[depth:]
        self._head = len(self._trail)

    def _open(self) -> int:
        """Returns the liveliest variable without a value, 0 = none."""
        while self._heap:
            activity, v = heappop(self._heap)
            if self._value[v] == 0 and -activity == self._activity[v]:
                return v
        return 0

    def _propagate(self) -> list[int] | None:
        """Sets what follows; returns a clause that cannot hold, or None."""
        value, watch = self._value, self._watch
        while self._head < len(self._trail):
            false = -self._trail[self._head]
            self._head += 1
            watching, kept = watch[false], []
            for i, clause in enumerate(watching):
                if clause[0] == false:
                    clause[0], clause[1] = clause[1], false
                other = clause[0]
                now = value[other] if other > 0 else -value[-other]
                if now > 0:
                    kept.append(clause)
                    continue
                for k in range(2, len(clause)):
                    y = clause[k]
                    if (value[y] if y > 0 else -value[-y]) >= 0:
                        clause[1], clause[k] = y, false
                        watch[y].append(clause)
                        break
                else:
                    kept.append(clause)
                    if now < 0:
                        kept += watching[i + 1 :]
                        watch[false] = kept
                        self._head = len(self._trail)
                        return clause
                    self._set(other, clause)
            watch[false] = kept
        return None

    def _learn(self, conflict: list[int]) -> None:
        """Adds the clause of the first unique implication point and jumps back to where it decides."""
        seen: set[int] = set()
        learnt: list[int] = []
        now, left, at = len(self._limits), 0, len(self._trail)
        clause: list[int] | None = conflict
        while True:
            for y in clause or ():
                v = abs(y)
                if v not in seen and self._level[v] > 0:
                    seen.add(v)
                    self._bump(v)
                    if self._level[v] == now:
                        left += 1
                    else:
                        learnt.append(y)
            at -= 1
            while abs(self._trail[at]) not in seen:
                at -= 1
            x = self._trail[at]
            clause = self._reason[abs(x)]
            left -= 1
            if left == 0:
                break
        self._step /= DECAY
        learnt.sort(key=lambda y: -self._level[abs(y)])
        self._back(self._level[abs(learnt[0])] if learnt else 0)
        found = [-x, *learnt]
        if learnt:
            self._attach(found)
        self._set(-x, found if learnt else None)

    def _blame(self, x: int) -> set[int]:
        """Returns the assumptions that together make ``x``, itself assumed, false."""
        guilty, seen = {x}, {abs(x)}
        for y in reversed(self._trail):
            v = abs(y)
            if v not in seen or self._level[v] == 0:
                continue
            reason = self._reason[v]
            if reason is None:
                guilty.add(y)
            else:
                seen.update(abs(z) for z in reason)
        return guilty

    def _bump(self, v: int) -> None:
        self._activity[v] += self._step
        if self._activity[v] > RESCALE:
            self._activity = [a / RESCALE for a in self._activity]
            self._step /= RESCALE
            self._heap = [(-self._activity[w], w) for w in range(1, len(self._value)) if self._value[w] == 0]
            heapify(self._heap)
        elif self._value[v] == 0:
            heappush(self._heap, (-self._activity[v], v))
