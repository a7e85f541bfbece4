"""Red-blue pebbling: gaps of schedules to the least cost and to bounds, classic counts, more than twice as fast on two.

Graphs are frozen in pebbling_dags.txt; I/O costs 2, computes 1 (of sparse products: their inputs). Memory is the least
in which every value can be computed, and one pebble more (of large graphs: twice it). The null of every schedule is
two-stage: an order found without regard to memory, then Belady's evictions.
"""

from __future__ import annotations

import math
import sys
from functools import cache
from pathlib import Path
from statistics import geometric_mean

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

from benchmarks.pebbling_dags import frozen
from benchmarks.records import Null, Ours, Paper, Record, cpu_seconds, main
from fleetcast.cost.pebbling import families
from fleetcast.cost.pebbling.bounds import (
    Bound,
    butterfly_io,
    lower_bound,
    matrix_product_io,
    matrix_product_tight,
)
from fleetcast.cost.pebbling.check import prove
from fleetcast.cost.pebbling.dag import Dag, unit
from fleetcast.cost.pebbling.game import COMPUTE, DELETE, LOAD, SAVE, Game, Move, game
from fleetcast.policy.evict import Belady, Lru
from fleetcast.search.memory.exact import exact
from fleetcast.search.memory.found import Exact
from fleetcast.search.memory.holistic import by_greed, holistic, two_stage
from fleetcast.search.memory.moves import Largest, Order, moves

G = 2.0
STATES = 150_000
TRIES = 6000
WAYS = ("exact", "holistic", "belady", "lru", "largest", "greedy")
NUMBERS: tuple[tuple[str, Dag, int], ...] = (
    ("chain of 8", families.chain(8), 2),
    ("tree of height 2", families.tree(2), 4), ("tree of height 3", families.tree(3), 5),
    ("pyramid of height 2", families.pyramid(2), 4), ("pyramid of height 3", families.pyramid(3), 5),
    ("pyramid of height 4", families.pyramid(4), 6),
    ("grid of 3 x 3", families.grid(3, 3), 4), ("grid of 4 x 4", families.grid(4, 4), 5),
)  # fmt: skip
"""Graphs and the fewest pebbles that move nothing but the result: h + 2 of trees and pyramids, m + 1 of grids."""


def of(dag: Dag, more: float, processors: int) -> Game:
    """Returns the game in the least memory, and ``more`` beside it."""
    least = max((need for need, some in zip(game(dag, red=1).needs, dag.parents, strict=True) if some), default=1.0)
    return game(dag, red=least + more, g=G, processors=processors)


@cache
def small(quick: bool) -> list[tuple[str, dict[str, float], bool]]:
    """Returns (case, cost by way, whether the least is proven) of the small graphs."""
    found = []
    for name, dag in frozen().items():
        if len(dag) > 12 or (quick and len(dag) > 9):
            continue
        for k in (1, 2):
            for more in (0, 1):
                it = of(dag, more, k)
                least = exact(it, states=STATES)
                costs = schedules(it)
                assert prove(it, least.moves).legal
                found.append((f"{name} on {k}, {it.red[0]:g} pebbles", {"exact": least.cost} | costs, least.proven))
    return found


@cache
def large(quick: bool) -> list[tuple[str, dict[str, float]]]:
    """Returns (case, cost by way and "bound") of the large graphs."""
    found = []
    for name, dag in frozen().items():
        if len(dag) <= 12 or (quick and len(dag) > 50):
            continue
        for k in (1, 2, 4):
            base = of(dag, 0, k)
            for red in (base.red[0], 2 * base.red[0]):
                it = game(dag, red=red, g=G, processors=k)
                found.append(
                    (f"{name} on {k}, {red:g} pebbles", {"bound": lower_bound(it).value} | schedules(it, TRIES // 3))
                )
    return found


def schedules(it: Game, tries: int = TRIES) -> dict[str, float]:
    """Returns the cost of each way's schedule, after proving it legal."""
    made = {
        "holistic": holistic(it, tries=tries), "belady": two_stage(it, Belady()), "lru": two_stage(it, Lru()),
        "largest": two_stage(it, Largest()), "greedy": by_greed(it),
    }  # fmt: skip
    for schedule in made.values():
        assert prove(it, schedule.moves, Bound(0.0, "", {})).legal
    return {name: schedule.cost for name, schedule in made.items()}


def over(cases: list[dict[str, float]], way: str, base: str) -> float:
    """Returns the geometric mean of a way's cost over another's."""
    return geometric_mean(costs[way] / costs[base] for costs in cases)


def records(quick: bool) -> list[Record]:
    """Returns what is claimed of system 61."""
    command = "python -m benchmarks.pebbling" + (" --quick" if quick else "")
    return [
        *gaps(quick, command), pebble_numbers(command), matrix(quick, command), fourier(command),
        superlinear(command), linear_factor(command), recomputing(command), checking(quick, command),
    ]  # fmt: skip


def gaps(quick: bool, command: str) -> list[Record]:
    """Returns the gaps to the least cost, and to the bounds."""
    start = cpu_seconds()
    found = small(quick)
    proven = [costs for _, costs, sure in found if sure]
    ratios = {way: over(proven, way, "exact") for way in WAYS[1:]}
    worst = max(costs["holistic"] / costs["exact"] for costs in proven)
    best = sum(costs["holistic"] <= costs["exact"] for costs in proven)
    never = all(costs["exact"] <= costs["holistic"] <= min(costs["belady"], costs["greedy"]) for _, costs, _ in found)
    one = Record(
        system=61, claim="cost of local search over the least cost, small graphs on one and two processors",
        paper=Paper(value=None, setting="its ILP is better than two stages on small DAGs; sizes of the gain not read"),
        ours=Ours(
            value=round(ratios["holistic"], 3), unit="x",
            spread=f"the least in {best} of {len(proven)}, at most {worst:.2f}x; LRU {ratios['lru']:.2f}x, largest "
            f"number {ratios['largest']:.2f}x, greedy {ratios['greedy']:.2f}x",
            setting=f"{len(proven)} of {len(found)} games proven within {STATES:,} states; 7 to 12 nodes, g = 2",
        ),
        null=Null(value=round(ratios["belady"], 3), what="two stages, Belady's evictions"),
        bar="never above two stages or greedy, never below the least, within 1.1x of it on average",
        holds=never and ratios["holistic"] <= 1.1, reproduced="other setting",
        reason="its ILP and its 20 DAGs need a solver and minutes each; ours is local search on graphs of our own",
        seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip
    start = cpu_seconds()
    cases = large(quick)
    rows = [costs for _, costs in cases]
    gains = [costs["holistic"] / costs["belady"] for costs in rows]
    fewer = sum(costs["belady"] <= costs["lru"] for costs in rows)
    two = Record(
        system=61, claim="cost of local search over that of two stages, larger graphs on one, two and four processors",
        paper=Paper(value=None, setting="two stages may be a linear factor from the least; its ILP beats them"),
        ours=Ours(
            value=round(geometric_mean(gains), 3), unit="x",
            spread=f"{min(gains):.2f}x to {max(gains):.2f}x; over the lower bound {over(rows, 'holistic', 'bound'):.2f}"
            f"x, two stages {over(rows, 'belady', 'bound'):.2f}x; Belady at most LRU in {fewer} of {len(rows)}",
            setting=f"{len(rows)} games on graphs of 45 to 96 nodes, one of them OneStopParallel's pattern; g = 2",
        ),
        null=Null(value=round(over(rows, "lru", "belady"), 3), what="LRU's evictions instead of Belady's"),
        bar="never dearer than two stages, and cheaper on average",
        holds=max(gains) <= 1.0 and geometric_mean(gains) < 1.0, reproduced="other setting",
        reason="local search instead of its ILP; the bound is far where processors talk, so gaps to it are no gaps to "
        "the least", seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip
    return [one, two]


def pebble_numbers(command: str) -> Record:
    """Returns how many of the known pebble numbers come out."""
    start, right = cpu_seconds(), 0
    dear = 1000.0
    for _, dag, number in NUMBERS:
        made = sum(1.0 for _ in dag.parents)
        enough = exact(game(dag, red=number, g=dear, inputs="computed"))
        fine = enough.proven and enough.cost == made + dear
        if number > 1 + max(map(len, dag.parents)):
            less = exact(game(dag, red=number - 1, g=dear, inputs="computed", again=False))
            fine = fine and less.least >= made + 2 * dear
        right += fine
    return Record(
        system=61, claim="pebble numbers of chains, trees, pyramids and grids, by exact search",
        paper=Paper(value=len(NUMBERS), setting="h + 2 of trees and pyramids of height h, m + 1 of grids of m rows"),
        ours=Ours(value=right, unit="of " + str(len(NUMBERS)), setting=", ".join(name for name, _, _ in NUMBERS)),
        null=Null(
            value=sum(number == 1 + max(map(len, dag.parents)) for _, dag, number in NUMBERS),
            what="one more than the inputs of a value, which is right of the chain",
        ),
        bar="all: with so many pebbles nothing but the result moves, with one less something must",
        holds=right == len(NUMBERS), reproduced="yes", seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


def blocked(n: int, b: int) -> Order:
    """Returns the order of a product of n x n in blocks of b x b of the result."""
    order = []
    for i0 in range(0, n, b):
        for j0 in range(0, n, b):
            for step in range(n):
                for j in range(j0, j0 + b):
                    order += [(0, 2 * n * n + (i * n + j) * n + step) for i in range(i0, i0 + b)]
    return order


def matrix(quick: bool, command: str) -> Record:
    """Returns the I/O of blocked matrix products beside formula and bounds."""
    start = cpu_seconds()
    n, b = (8, 4) if quick else (16, 4)
    red = b * b + b + 2
    it = game(families.product(n), red=red, g=1.0)
    found = moves(it, blocked(n, b), Belady())
    assert found is not None
    proof = prove(it, found, Bound(0.0, "", {}))
    formula = 2 * n**3 / b + n * n
    bound, tight = matrix_product_io(n, red), matrix_product_tight(n, red)
    least = exact(game(families.product(2), red=4, g=1.0))
    two = prove(game(families.product(2), red=4, g=1.0), least.moves)
    return Record(
        system=61, claim="loads and saves of a matrix product, blocked, over 2 n^3/sqrt(M) + n^2",
        paper=Paper(value=1.0, unit="x", setting="Kwasniewski and others, SC 2019 (recalled): none below, one near"),
        ours=Ours(
            value=round(proof.moved / tight, 3), unit="x",
            spread=f"{proof.moved:,.0f} moved, the formula 2 n^3/b + n^2 says {formula:,.0f}; Hong and Kung's count "
            f"{bound:,.0f}; 2 x 2 with 4 pebbles exactly {two.moved:.0f}",
            setting=f"{n} x {n}, blocks of {b} x {b}, {red} pebbles",
        ),
        null=Null(
            value=round(prove(it, two_stage(it).moves, Bound(0.0, "", {})).moved / tight, 3),
            what="the depth-first order, Belady's evictions",
        ),
        bar="legal, as many as the formula at most, and none of the bounds undercut",
        holds=proof.legal and bound <= proof.moved <= formula and proof.moved >= tight and two.moved >= 12.0,
        reproduced="yes", seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


def levels(points: int, block: int) -> Order:
    """Returns a Fourier transform's order: as many rows at a time as ``block`` points can hold, block by block."""
    rows, step, order = int(math.log2(points)), int(math.log2(block)), []
    for low in range(0, rows, step):
        high = min(rows, low + step)
        inner = 2**low
        seen: set[int] = set()
        for first in range(points):
            if first in seen:
                continue
            group = [first + inner * i for i in range(2 ** (high - low))]
            group = [x for x in group if x // (inner * 2 ** (high - low)) == first // (inner * 2 ** (high - low))]
            seen.update(group)
            for row in range(low, high):
                for x in group:
                    if not x & 2**row:
                        order += [(0, (row + 1) * points + y) for y in (x, x ^ 2**row)]
    return order


def fourier(command: str) -> Record:
    """Returns the I/O of blocked Fourier transforms beside formula and bound."""
    start = cpu_seconds()
    points, block = 64, 4
    it = game(families.butterfly(points), red=block + 2, g=1.0)
    found = moves(it, levels(points, block), Belady())
    assert found is not None
    proof = prove(it, found, Bound(0.0, "", {}))
    formula = 2 * points * math.ceil(math.log2(points) / math.log2(block))
    exacts = {r: exact(game(families.butterfly(4), red=r, g=1000.0)) for r in (3, 4, 5, 6)}
    counts = {r: round(found.cost // 1000) for r, found in exacts.items()}
    return Record(
        system=61, claim="loads and saves of a Fourier transform, row blocks, over 2 n log n / log B",
        paper=Paper(value=1.0, unit="x", setting="Hong and Kung, STOC 1981: of the order of n log n / log M"),
        ours=Ours(
            value=round(proof.moved / formula, 3), unit="x",
            spread=f"{proof.moved:,.0f} moved of {points} points; Hong and Kung's count "
            f"{butterfly_io(points, block + 2):,.0f}; 4 points exactly "
            + ", ".join(f"{n} with {r}" for r, n in counts.items()),
            setting=f"{points} points, blocks of {block}, {block + 2} pebbles",
        ),
        null=Null(
            value=round(prove(it, two_stage(it).moves, Bound(0.0, "", {})).moved / formula, 3),
            what="the depth-first order, Belady's evictions",
        ),
        bar="legal, at most the formula, no less than the bound; 4 points with 6 pebbles move inputs and results alone",
        holds=proof.legal and butterfly_io(points, block + 2) <= proof.moved <= formula and counts[6] == 8
        and all(found.proven for found in exacts.values()),
        reproduced="yes", seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


def pair(table: int) -> tuple[Exact, Exact]:
    """Returns the least cost of the alternating chain on one processor and on two."""
    dag = families.alternating(10, table)
    one, two = (exact(game(dag, red=table + 2, processors=k)) for k in (1, 2))
    return one, two


def superlinear(command: str) -> Record:
    """Returns the speed-up of two processors over one, exactly."""
    start = cpu_seconds()
    found = {table: pair(table) for table in (5, 10, 20)}
    ratios = {table: one.cost / two.cost for table, (one, two) in found.items()}
    proven = all(one.proven and two.proven for one, two in found.values())
    one, two = found[10]
    return Record(
        system=61, claim="speed-up of two processors over one, both at the least cost",
        paper=Paper(value=None, unit="x", setting="superlinear speed-ups exist: more processors have more fast memory"),
        ours=Ours(
            value=round(ratios[10], 3), unit="x",
            spread=", ".join(f"{ratio:.2f}x with tables of {table}" for table, ratio in ratios.items()),
            setting=f"a chain of 10 that reads two tables in turn, memories of one table and two values, g = 1: "
            f"{one.cost:g} against {two.cost:g}",
        ),
        null=Null(value=2.0, what="processors, the most where memory is no matter"),
        bar="above 2 with tables of 10, both costs proven least", holds=proven and ratios[10] > 2.0, reproduced="yes",
        seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


def linear_factor(command: str) -> Record:
    """Returns how far two stages are from local search as tables grow."""
    start = cpu_seconds()
    ratios = {}
    for table in (5, 10, 20, 40):
        it = game(families.alternating(20, table), red=table + 2, processors=2)
        ratios[table] = two_stage(it).cost / holistic(it, tries=1000).cost
    grows = [b / a for a, b in zip([*ratios.values()], [*ratios.values()][1:], strict=False)]
    return Record(
        system=61, claim="two stages over local search where order and memory must be chosen together",
        paper=Paper(value=None, unit="x", setting="separate stages can be a linear factor from the least (2507.17411)"),
        ours=Ours(
            value=round(ratios[40], 2), unit="x",
            spread=", ".join(f"{ratio:.2f}x with tables of {table}" for table, ratio in ratios.items()),
            setting="the alternating chain of 20 on two processors: an order without regard to memory keeps it on one",
        ),
        null=Null(value=1.0, what="two stages"), bar="grows with the table, 1.5x or more each time it doubles",
        holds=min(grows) >= 1.5, reproduced="yes", seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


RECOMPUTED = unit([(), (0,), (1,), (1, 2), (3, 2), (4, 1), (5, 0)])
"""A value is read at the start and at the end, and memory is too small to keep it."""


def recomputing(command: str) -> Record:
    """Returns what computing twice saves where moving is dear."""
    start = cpu_seconds()
    once, twice = (exact(game(RECOMPUTED, red=3, g=4, again=again)) for again in (False, True))
    proof = prove(game(RECOMPUTED, red=3, g=4), twice.moves)
    return Record(
        system=61, claim="the least cost where values may be computed again, over that where they may not",
        paper=Paper(value=None, unit="x", setting="the game allows it"),
        ours=Ours(value=round(twice.cost / once.cost, 3), unit="x", spread=f"{twice.cost:g} against {once.cost:g}, "
                  f"{proof.again} computed again", setting="seven nodes, three pebbles, g = 4"),
        null=Null(value=1.0, what="each value once"), bar="less, both proven least, and legal",
        holds=once.proven and twice.proven and proof.legal and twice.cost < once.cost, reproduced="yes",
        seconds=cpu_seconds() - start, command=command,
    )  # fmt: skip


def checking(quick: bool, command: str) -> Record:
    """Returns how many moves are checked in a second of CPU time."""
    start = cpu_seconds()
    n = 50_000 if quick else 200_000
    it = game(families.chain(n), red=2)
    made: list[Move] = [(LOAD, 0, 0)]
    for v in range(1, n):
        made += [(COMPUTE, 0, v), (DELETE, 0, v - 1)]
    made.append((SAVE, 0, n - 1))
    rates = []
    for _ in range(3):
        before = cpu_seconds()
        assert prove(it, made, Bound(0.0, "", {})).legal
        rates.append(len(made) / (cpu_seconds() - before))
    # A wider graph: two inputs a value, sixteen at hand.
    wide = game(families.grid(16, n // 64), red=18)
    order = [(0, v) for v in range(1, len(wide.dag))]
    found = moves(wide, sorted(order, key=lambda x: (x[1] % (n // 64), x[1])), Belady())
    assert found is not None
    before = cpu_seconds()
    assert prove(wide, found, Bound(0.0, "", {})).legal
    grid = len(found) / (cpu_seconds() - before)
    return Record(
        system=61, claim="moves checked in a second of CPU time",
        ours=Ours(
            value=round(max(rates) / 1e6, 2), unit="M/s", spread=f"a grid of 16 rows {grid / 1e6:.2f} M/s",
            setting=f"a chain of {n:,} values, {len(made):,} moves, plain Python, best of three",
        ),
        null=Null(value=1.0, what="the bar"), bar="at least 1 M/s on both", holds=min(max(rates), grid) >= 1e6,
        reproduced="other setting", reason="nobody says how quick a checker is", seconds=cpu_seconds() - start,
        command=command,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
