"""Graphs that schedules of the pebble game are compared on: frozen in pebbling_dags.txt, made here.

Small ones (up to 12 nodes) are named graphs and random ones; large ones named graphs, and sparse products and powers,
fine-grained as in OneStopParallel's HyperDAG data: a node for each entry, product and sum, work = inputs. All are
synthetic but the pattern of ``spmv-6``, which is that of its ``instance_spmv_N6_nzP0d4`` (Apache-2.0). ``python -m
benchmarks.pebbling_dags`` writes the file anew, the same every time.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

from fleetcast.base.files import write_atomic
from fleetcast.base.rng import rng
from fleetcast.cost.pebbling import families
from fleetcast.cost.pebbling.dag import Dag, parse, unit, write

FILE = Path(__file__).parent / "pebbling_dags.txt"
ROWS_6 = ((0, 1, 3, 4, 5), (0, 2, 4), (0, 1, 4), (0,), (1, 3, 4), (0, 1, 2))
"""Columns that are not zero, row by row, of OneStopParallel's matrix of 6 x 6."""
Rows = tuple[tuple[int, ...], ...]


def frozen() -> dict[str, Dag]:
    """Returns the graphs by name, as they are frozen."""
    parts = FILE.read_text(encoding="utf-8").split("% graph: ")[1:]
    return {part.split("\n", 1)[0]: parse(part.split("\n", 1)[1], part.split("\n", 1)[0]) for part in parts}


def small(seed: int, nodes: int, most: int) -> Dag:
    """Returns a random graph: each node reads up to ``most`` of the four before it."""
    draw = rng(seed, "pebbling", "small")
    parents: list[tuple[int, ...]] = []
    for v in range(nodes):
        before = list(range(max(0, v - 4), v))
        count = int(draw.integers(1, most + 1)) if v > 1 else 0
        chosen = draw.permutation(before)[:count].tolist()
        parents.append(tuple(sorted(chosen)))
    return unit(parents)


def pattern(seed: int, n: int, share: float) -> Rows:
    """Returns a random pattern of n x n with about this share of entries, and no empty row."""
    draw = rng(seed, "pebbling", "pattern")
    rows = []
    for _ in range(n):
        columns = [j for j in range(n) if draw.random() < share]
        rows.append(tuple(columns or [int(draw.integers(n))]))
    return tuple(rows)


def powers(rows: Rows, times: int) -> Dag:
    """Returns A^times x, entry by entry: what is read of the matrix is read again in each power."""
    parents: list[tuple[int, ...]] = [() for _ in rows]
    vector = list(range(len(rows)))
    entries: dict[tuple[int, int], int] = {}
    for _ in range(times):
        sums = []
        for i, columns in enumerate(rows):
            products = []
            for j in columns:
                if (i, j) not in entries:
                    entries[i, j] = len(parents)
                    parents.append(())
                products.append(len(parents))
                parents.append((vector[j], entries[i, j]))
            sums.append(products)
        vector = []
        for products in sums:
            vector.append(len(parents))
            parents.append(tuple(products))
    used = {u for some in parents for u in some} | {v for v in range(len(rows), len(parents))}
    keep = [v for v in range(len(parents)) if v in used]
    at = {v: i for i, v in enumerate(keep)}
    kept = tuple(tuple(at[u] for u in parents[v]) for v in keep)
    return Dag(kept, tuple(float(max(1, len(some))) for some in kept), (1.0,) * len(kept))


def made() -> dict[str, Dag]:
    """Returns the graphs by name, made anew."""
    found = {
        "chain-8": families.chain(8), "tree-2": families.tree(2), "pyramid-3": families.pyramid(3),
        "grid-3x3": families.grid(3, 3), "grid-2x6": families.grid(2, 6), "grid-3x4": families.grid(3, 4),
        "butterfly-4": families.butterfly(4), "alternating-6": families.alternating(6, 4),
    }  # fmt: skip
    found |= {f"random-{n}-{seed}": small(seed, n, 2 + seed % 2) for seed, n in enumerate((8, 8, 9, 9, 10, 10, 11, 12))}
    found |= {
        "spmv-6": powers(ROWS_6, 1), "spmv-8": powers(pattern(1, 8, 0.3), 1),
        "power-5x2": powers(pattern(2, 5, 0.4), 2),
        "power-6x3": powers(pattern(3, 6, 0.3), 3), "power-8x4": powers(pattern(4, 8, 0.2), 4),
        "butterfly-16": families.butterfly(16), "product-4": families.product(4), "grid-8x8": families.grid(8, 8),
        "pyramid-8": families.pyramid(8), "tree-5": families.tree(5),
    }  # fmt: skip
    return found


def main() -> None:
    """Writes the file."""
    text = "".join(f"% graph: {name}\n{write(dag)}" for name, dag in made().items())
    write_atomic(FILE, "% Synthetic, but for the pattern of spmv-6; see pebbling_dags.py.\n" + text)


if __name__ == "__main__":
    main()
