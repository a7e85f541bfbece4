"""Graphs whose pebbling is known: chains, trees, pyramids, grids, butterflies, products, and one for two processors."""

from __future__ import annotations

from itertools import pairwise

from fleetcast.cost.pebbling.dag import Dag, unit


def chain(n: int) -> Dag:
    """Returns n values, each computed from the one before."""
    return unit([() if i == 0 else (i - 1,) for i in range(n)])


def tree(height: int) -> Dag:
    """Returns the complete binary tree of 2^height leaves, its root last."""
    parents: list[tuple[int, ...]] = [()] * 2**height
    row = list(range(2**height))
    while len(row) > 1:
        pairs = list(zip(row[::2], row[1::2], strict=True))
        row = [len(parents) + i for i in range(len(pairs))]
        parents += pairs
    return unit(parents)


def pyramid(height: int) -> Dag:
    """Returns height + 1 rows of height + 1, height, ..., 1 values, each computed from two neighbours below."""
    parents: list[tuple[int, ...]] = [()] * (height + 1)
    row = list(range(height + 1))
    while len(row) > 1:
        pairs = list(pairwise(row))
        row = [len(parents) + i for i in range(len(pairs))]
        parents += pairs
    return unit(parents)


def grid(rows: int, columns: int) -> Dag:
    """Returns the diamond: a value in each cell, computed from those to the left and above."""
    parents = []
    for i in range(rows):
        for j in range(columns):
            above, left = [(i - 1) * columns + j] if i else [], [i * columns + j - 1] if j else []
            parents.append(above + left)
    return unit(parents)


def butterfly(points: int) -> Dag:
    """Returns the graph of a fast Fourier transform of 2^m points: m rows of butterflies above its inputs."""
    parents: list[tuple[int, ...]] = [()] * points
    span = 1
    while span < points:
        last = len(parents) - points
        parents += [(last + i, last + (i ^ span)) for i in range(points)]
        span *= 2
    return unit(parents)


def product(n: int) -> Dag:
    """Returns C = A B of n x n matrices: 2 n^2 inputs and n^3 multiply-adds, each adding to the one before it.

    Node i n + j is A[i, j], n^2 + i n + j is B[i, j], and 2 n^2 + (i n + j) n + l the l-th sum of C[i, j].
    """
    square = n * n
    parents: list[tuple[int, ...]] = [()] * (2 * square)
    for i in range(n):
        for j in range(n):
            for step in range(n):
                inputs = (i * n + step, square + step * n + j)
                parents.append((*inputs, len(parents) - 1) if step else inputs)
    return unit(parents)


def alternating(steps: int, table: int) -> Dag:
    """Returns a chain whose even steps read one table and whose odd steps read another.

    A processor whose memory holds one table fetches the other at every step. Two processors keep a table each and hand
    on the chain's value, so that they can be more than twice as fast though never two steps run at once.

    Args:
        steps: nodes of the chain, of size 1.
        table: size of each of the two sources, which come first.
    """
    chain_ = [(i % 2, *([i + 1] if i else [])) for i in range(steps)]
    names = ("A", "B", *(f"x{i + 1}" for i in range(steps)))
    return Dag(((), (), *chain_), (1.0,) * (steps + 2), (float(table),) * 2 + (1.0,) * steps, names)
