"""A small pebble game in bits: what is useful to hold, what must still be paid, what may be given up for room."""

from __future__ import annotations

from functools import lru_cache

from fleetcast.cost.pebbling.game import Game

Left = tuple[float, float, float, float, float, float]
"""Still to be paid: (computes, those on the longest path, those for the neediest sink, loads, saves, either)."""


class Bits:
    """A game in bits, with what is useful to hold and what is still to pay."""

    def __init__(self, of: Game) -> None:
        dag, n = of.dag, len(of.dag)
        self.of, self.n, self.k = of, n, of.processors
        self.parents = [sum(1 << u for u in some) for some in dag.parents]
        self.children = [sum(1 << c for c in some) for some in dag.children]
        self.size = dag.size
        self.works = [of.work(p) for p in range(self.k)]
        self.io = [[g * s for s in dag.size] for g in of.g]
        self.given = sum(1 << v for v in of.given)
        self.sinks = sum(1 << v for v in dag.sinks)
        self.least_work = [min(row[v] for row in self.works) for v in range(n)]
        self.least_io = [min(row[v] for row in self.io) for v in range(n)]
        self.order = dag.order
        self.upwards = dag.order[::-1]
        # An input is never computed, so it is useful only where a child is.
        self.makeable = [v for v in self.order if not self.given >> v & 1]
        numbers = [*self.least_work, *self.least_io, *(x for row in (*self.works, *self.io) for x in row)]
        self.whole = all(x == int(x) for x in numbers)
        self.unit = self.whole and of.alike and {*self.size, *self.works[0]} == {1.0}
        self._useful: dict[int, int] = {}
        self._left: dict[int, Left] = {}
        self._room: dict[tuple[int, int, float, int], list[int]] = {}

    def useful(self, blue: int) -> int:
        """Returns the values from which a way leads to a sink that slow memory lacks, such sinks themselves too."""
        lacking = self.sinks & ~blue
        found = self._useful.get(lacking)
        if found is None:
            found = lacking
            for v in self.upwards:
                if self.children[v] & found:
                    found |= 1 << v
            self._useful[lacking] = found
        return found

    def weight(self, mask: int) -> float:
        """Returns the size of some values."""
        return sum(self.size[v] for v in members(mask))

    def left(self, held: int, blue: int) -> Left:
        """Returns what must still be paid on the cheapest processor.

        A value that nobody holds must be computed if a sink that is lacking needs it; its inputs likewise, or, if slow
        memory holds them, loaded or computed again.
        """
        key = held << self.n | blue
        known = self._left.get(key)
        if known is not None:
            return known
        lacking = self.sinks & ~blue
        must = lacking & ~held
        fetched = 0
        for v in self.upwards:
            if must >> v & 1:
                missing = self.parents[v] & ~held
                fetched |= missing & blue
                must |= missing & ~blue
        loads = either = 0.0
        for u in members(fetched):
            if self.given >> u & 1 or not self.of.again:
                loads += self.least_io[u]
            else:
                either += min(self.least_io[u], self.least_work[u])
        work = longest = alone = 0.0
        if must:
            tail, above = [0.0] * self.n, [0] * self.n
            for v in self.order:
                if must >> v & 1:
                    work += self.least_work[v]
                    most = 0.0
                    reads = 1 << v
                    for u in self.of.dag.parents[v]:
                        reads |= above[u]
                        if tail[u] > most:
                            most = tail[u]
                    above[v] = reads
                    tail[v] = self.least_work[v] + most
                    if tail[v] > longest:
                        longest = tail[v]
            for v in members(must & lacking):
                alone = max(alone, sum(self.least_work[u] for u in members(above[v])))
        saves = sum(self.least_io[v] for v in members(lacking))
        found = (work, longest, alone, loads, saves, either)
        self._left[key] = found
        return found

    def room(self, red: int, kept: int, need: float, p: int) -> list[int]:
        """Returns the smallest sets of values to give up until ``need`` more fits; [0] where it does."""
        key = (red, kept, need, p)
        found = self._room.get(key)
        if found is None:
            over = self.weight(red) + need - self.of.red[p] * (1.0 + 1e-12)
            found = self._room[key] = [0] if over <= 0 else self._smallest(red & ~kept, over)
        return found

    def _smallest(self, those: int, over: float) -> list[int]:
        """Returns the sets of values of at least a size that do not reach it without any one member."""
        found: list[int] = []
        items = members(those)

        def grow(at: int, mask: int, lacks: float) -> None:
            for i in range(at, len(items)):
                with_ = mask | 1 << items[i]
                rest = lacks - self.size[items[i]]
                if rest > 0:
                    grow(i + 1, with_, rest)
                elif all(rest + self.size[v] > 0 for v in members(with_)):
                    found.append(with_)

        grow(0, 0, over)
        return found


@lru_cache(maxsize=1 << 18)
def members(mask: int) -> tuple[int, ...]:
    """Returns the values of a set, lowest first."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return tuple(found)
