"""Moves lined up so that processors make the same kind at once: each processor's in order, but for what is free.

Runs of one kind are taken from all processors at a time. Where one has less to do than the busiest, moves of that kind
are taken from further back in its queue: a save as soon as the value is there, a load or a compute as soon as all that
it needs is there and memory has room for it until its turn.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleetcast.cost.pebbling.check import cost
from fleetcast.cost.pebbling.game import COMPUTE, DELETE, LOAD, SAVE, Game, Move, costs

AHEAD = 16
"""Moves of a queue that are looked through for free ones."""
_AFTER = {COMPUTE: (SAVE, LOAD, COMPUTE), SAVE: (LOAD, COMPUTE, SAVE), LOAD: (COMPUTE, SAVE, LOAD)}


def aligned(of: Game, made: list[Move]) -> list[Move]:
    """Returns the same moves, lined up by the better of two rules: the kind most are ready for, or each in turn."""
    if of.processors == 1 or of.timing == "asynchronous":
        return made
    return min((made, *(_Line(of, made).up(most) for most in (True, False))), key=lambda some: cost(of, some))


class _Line:
    """What each processor still has to do, and what its memory holds meanwhile."""

    def __init__(self, of: Game, made: Sequence[Move]) -> None:
        self.of, k = of, of.processors
        prices = costs(of, made)
        self.queues: list[list[Move]] = [[] for _ in range(k)]
        self.prices: list[list[float]] = [[] for _ in range(k)]
        for move, price in zip(made, prices, strict=True):
            self.queues[move[1]].append(move)
            self.prices[move[1]].append(price)
        # What is saved on the way is not there from the start.
        self.waits = {v for kind, _, v in made if kind == SAVE}
        self.red: list[set[int]] = [set() for _ in range(k)]
        self.used = [0.0] * k
        self.found: list[Move] = []

    def up(self, most: bool) -> list[Move]:
        last = LOAD
        while any(self.queues):
            ready = [0, 0, 0]
            for p, queue in enumerate(self.queues):
                while queue and queue[0][0] == DELETE:
                    self._take(p, 0)
                if queue and self._there(queue[0]):
                    ready[queue[0][0]] += 1
            turn = [kind for kind in _AFTER[last] if ready[kind]]
            if not turn:
                break
            last = max(turn, key=lambda kind: ready[kind]) if most else turn[0]
            busy = [self._run(p, last) for p in range(self.of.processors)]
            for p, own in enumerate(busy):
                self._fill(p, last, max(busy) - own)
        return self.found

    def _there(self, move: Move) -> bool:
        return move[0] != LOAD or move[2] not in self.waits

    def _run(self, p: int, kind: int) -> float:
        """Takes what a processor does next of a kind; returns what it costs."""
        queue, total = self.queues[p], 0.0
        while queue and queue[0][0] in (kind, DELETE) and self._there(queue[0]):
            total += self._take(p, 0)
        return total

    def _fill(self, p: int, kind: int, slack: float) -> None:
        """Takes moves of a kind from further back, as long as they cost no more than ``slack``."""
        i, queue = 0, self.queues[p]
        while slack > 0 and i < min(AHEAD, len(queue)):
            if queue[i][0] == kind and self.prices[p][i] <= slack and self._early(p, i):
                slack -= self._take(p, i)
            else:
                i += 1

    def _early(self, p: int, at: int) -> bool:
        """Whether a move may be made now instead of in its turn."""
        queue, red = self.queues[p], self.red[p]
        kind, _, v = queue[at]
        if kind == SAVE:
            return v in red
        if v in red or not self._there(queue[at]):
            return False
        if kind == COMPUTE and any(u not in red for u in self.of.dag.parents[v]):
            return False
        size = self.of.dag.size
        fill = most = self.used[p]
        for before, _, u in queue[:at]:
            if u == v:
                return False
            if before == DELETE:
                fill -= size[u]
            elif before != SAVE:
                fill += size[u]
                most = max(most, fill)
        return most + size[v] <= self.of.red[p] * (1.0 + 1e-12)

    def _take(self, p: int, at: int) -> float:
        move = self.queues[p].pop(at)
        kind, _, v = move
        if kind == DELETE:
            self.red[p].discard(v)
            self.used[p] -= self.of.dag.size[v]
        elif kind == SAVE:
            self.waits.discard(v)
        else:
            self.red[p].add(v)
            self.used[p] += self.of.dag.size[v]
        self.found.append(move)
        return self.prices[p].pop(at)
