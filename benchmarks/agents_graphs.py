"""The 55 synthetic graphs that agents are measured on: five shapes, eleven of each, drawn from one seed and frozen.

UFO3's tasks are sentences for language models and are not public; what its paper says of their graphs is that there
are 55, on five machines, 1.72 wide on average. These are as many and about as wide: tasks over levels, 1.7 on average.
A graph nearer to a chain than 1.3 is drawn again, for nothing can be saved there, and so is one wider than 2.4.
`DIGEST` is the hash of them all; they were committed before anything was run on them.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

from fleetcast.base.rng import rng

if TYPE_CHECKING:
    import numpy as np

SEED = 28
AGENTS = 5
NARROWEST, WIDEST = 1.3, 2.4
DIGEST = "011bb1c308cf87507acab2a6f6984d5d74d46f89896d28e7c3af251aaac98b85"


@dataclass(frozen=True)
class Drawn:
    """A graph: how long each task takes, in units of the shortest that may be, and which follows which.

    Attributes:
        name: shape and number.
        units: 1 to 3 of each task.
        edges: (before, after), indices.
    """

    name: str
    units: tuple[float, ...]
    edges: tuple[tuple[int, int], ...]

    @property
    def levels(self) -> int:
        """Tasks on the longest chain."""
        return int(longest(tuple(1.0 for _ in self.units), self.edges))

    @property
    def width(self) -> float:
        """Tasks over levels."""
        return len(self.units) / self.levels

    def seconds(self, shortest: float, *, equal: bool = False) -> tuple[float, ...]:
        """Returns how long each task takes (s): ``shortest`` times its units, or ``shortest`` each."""
        return tuple(shortest if equal else round(shortest * u, 6) for u in self.units)


def longest(seconds: tuple[float, ...], edges: tuple[tuple[int, int], ...]) -> float:
    """Returns the length of the longest chain; edges lead from lower to higher indices."""
    ends = list(seconds)
    for before, after in sorted(edges, key=lambda e: e[1]):
        ends[after] = max(ends[after], ends[before] + seconds[after])
    return max(ends)


def _spine(draw: np.random.Generator) -> list[tuple[int, int]]:
    """A chain, with tasks beside it that leave it and come back a few steps later."""
    length, beside = int(draw.integers(4, 8)), int(draw.integers(2, 7))
    between: list[tuple[int, int]] = []
    for _ in range(beside):
        first = int(draw.integers(0, length - 1))
        between.append((first, min(length - 1, first + int(draw.integers(2, 4)))))
    places = sorted([(float(i), -1) for i in range(length)] + [(f + 0.5, n) for n, (f, _) in enumerate(between)])
    order = {place: i for i, place in enumerate(places)}
    spine = {i: order[(float(i), -1)] for i in range(length)}
    edges = [(spine[i], spine[i + 1]) for i in range(length - 1)]
    for n, (first, last) in enumerate(between):
        own = order[(first + 0.5, n)]
        edges.append((spine[first], own))
        if last > first + 1:
            edges.append((own, spine[last]))
    return edges


def _fork_join(draw: np.random.Generator) -> list[tuple[int, int]]:
    """Stages one after another, each a fork of two to four tasks or one task alone, joined."""
    edges: list[tuple[int, int]] = []
    last, count = 0, 1
    for _ in range(int(draw.integers(2, 5))):
        ways = int(draw.integers(2, 5))
        middle = range(count, count + ways)
        join = count + ways
        edges += [(last, m) for m in middle] + [(m, join) for m in middle]
        last, count = join, join + 1
        if draw.random() < 0.6:
            edges.append((last, count))
            last, count = count, count + 1
    return edges


def _reduction(draw: np.random.Generator) -> list[tuple[int, int]]:
    """Some chains that are joined two by two until one is left, and a chain after it."""
    heads, count = [], 0
    edges: list[tuple[int, int]] = []
    for _ in range(int(draw.integers(2, 5))):
        length = int(draw.integers(1, 4))
        edges += [(i, i + 1) for i in range(count, count + length - 1)]
        count += length
        heads.append(count - 1)
    while len(heads) > 1:
        a, b, *rest = heads
        edges += [(a, count), (b, count)]
        heads = [*rest, count]
        count += 1
    for _ in range(int(draw.integers(1, 4))):
        edges.append((count - 1, count))
        count += 1
    return edges


def _layers(draw: np.random.Generator) -> list[tuple[int, int]]:
    """Levels of one to four tasks; each follows one or two of the level before."""
    edges: list[tuple[int, int]] = []
    before, count = [0], 1
    for _ in range(int(draw.integers(4, 9))):
        here = list(range(count, count + int(draw.choice([1, 1, 2, 2, 3, 4]))))
        for task in here:
            parents = draw.choice(before, size=min(len(before), int(draw.integers(1, 3))), replace=False)
            edges += [(int(p), task) for p in sorted(parents)]
        before, count = here, count + len(here)
    return edges


def _nested(draw: np.random.Generator) -> list[tuple[int, int]]:
    """Series and parallel parts inside each other, two deep."""
    edges: list[tuple[int, int]] = []
    count = 1

    def part(start: int, depth: int) -> int:
        nonlocal count
        last = start
        for _ in range(int(draw.integers(1, 4))):
            if depth and draw.random() < 0.55:
                ends = [part(last, depth - 1) for _ in range(2)]
                edges.extend((end, count) for end in dict.fromkeys(ends))
            else:
                edges.append((last, count))
            last, count = count, count + 1
        return last

    part(0, 2)
    return edges


SHAPES: dict[str, Callable[[np.random.Generator], list[tuple[int, int]]]] = {
    "spine": _spine, "fork-join": _fork_join, "reduction": _reduction, "layers": _layers, "nested": _nested,
}  # fmt: skip


def graphs(each: int = 11, seed: int = SEED) -> list[Drawn]:
    """Returns the graphs, shape by shape.

    Args:
        each: of every shape; fewer are the first of as many.
        seed: of all draws; another gives other graphs, to calibrate on.
    """
    found = []
    for shape, rule in SHAPES.items():
        kept = 0
        draw = rng(seed, "agents", shape)
        while kept < each:
            edges = tuple(sorted(set(rule(draw))))
            count = 1 + max(b for _, b in edges)
            units = tuple(round(float(min(3.0, 1.0 + draw.exponential(0.7))), 3) for _ in range(count))
            graph = Drawn(f"{shape}-{kept + 1}", units, edges)
            if NARROWEST <= graph.width <= WIDEST:
                found.append(graph)
                kept += 1
    return found


def digest(drawn: list[Drawn]) -> str:
    """Returns the hash of every number of the graphs."""
    return hashlib.sha256(repr([(g.name, g.units, g.edges) for g in drawn]).encode()).hexdigest()


if __name__ == "__main__":
    rows = graphs()
    print(f"{'graph':<14}{'tasks':>6}{'levels':>7}{'width':>7}{'work/path':>10}")
    for g in rows:
        ratio = sum(g.units) / longest(g.units, g.edges)
        print(f"{g.name:<14}{len(g.units):>6}{g.levels:>7}{g.width:>7.2f}{ratio:>10.2f}")
    print(f"mean width {sum(g.width for g in rows) / len(rows):.3f}, sha256 {digest(rows)}")
