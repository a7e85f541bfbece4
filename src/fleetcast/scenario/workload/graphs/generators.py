"""Graphs that a scenario generates: tiled factorisations, a stencil, random layers, fork and join.

Each is a class like a policy's: ``graph = { kind = "cholesky", tiles = 16 }``; its keywords are the keys. The operation
counts of tiles are those of Golub and Van Loan, Matrix Computations; those of the QR kernels without inner blocking are
from Bouwmeester, Jacquelin, Langou and Robert, "Tiled QR factorization algorithms", SC 2011. All are synthetic.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from fleetcast.base.rng import rng
from fleetcast.base.units import Quantity
from fleetcast.scenario.workload.graphs.graph import TaskGraph, assemble
from fleetcast.scenario.workload.graphs.tiles import Tiles

__all__ = ["Cholesky", "ForkJoin", "Layered", "Lu", "Qr", "Stencil"]

Tile = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
Width = Annotated[int, msgspec.Meta(ge=1, le=8)]
Side = Annotated[int, msgspec.Meta(ge=1, le=192)]
Many = Annotated[int, msgspec.Meta(ge=1, le=4_000_000)]
Flop = Annotated[float, Quantity("FLOP", high=1e24)]
Size = Annotated[float, Quantity("B", high=1e18)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Factorisation:
    """A tiled factorisation of a square matrix.

    Args:
        tiles: along a side of the matrix.
        tile: elements along a side of a tile.
        element: bytes of a number.
    """

    kind = ""

    def __init__(self, *, tiles: Side = 16, tile: Tile = 960, element: Width = 4) -> None:
        self.tiles, self.tile, self.element = tiles, tile, element

    def start(self) -> tuple[int, float, Tiles]:
        """Returns tiles along a side, elements of a tile times its side, and the tiles, untouched."""
        return self.tiles, float(self.tile) ** 3, Tiles(float(self.element) * self.tile**2)

    def end(self, found: Tiles) -> TaskGraph:
        """Returns the graph of what was done to the tiles."""
        size = f"{self.tiles} x {self.tiles} tiles of {self.tile}"
        return found.graph(f"{self.kind} of {size}", "synthetic: the tiled algorithm")


class Cholesky(_Factorisation):
    """Tiled Cholesky factorisation of a symmetric matrix, right-looking: POTRF, TRSM, SYRK, GEMM."""

    kind = "cholesky"

    def graph(self, seed: int = 0) -> TaskGraph:
        """Returns the graph; its FLOP are a third of the matrix's side cubed."""
        n, cube, found = self.start()
        for k in range(n):
            found.task("POTRF", (k,), cube / 3, writes=[(k, k)])
            for i in range(k + 1, n):
                found.task("TRSM", (i, k), cube, reads=[(k, k)], writes=[(i, k)])
            for i in range(k + 1, n):
                found.task("SYRK", (i, k), cube, reads=[(i, k)], writes=[(i, i)])
                for j in range(k + 1, i):
                    found.task("GEMM", (i, j, k), 2 * cube, reads=[(i, k), (j, k)], writes=[(i, j)])
        return self.end(found)


class Lu(_Factorisation):
    """Tiled LU factorisation without pivoting, right-looking: GETRF, TRSM, GEMM."""

    kind = "lu"

    def graph(self, seed: int = 0) -> TaskGraph:
        """Returns the graph; its FLOP are two thirds of the matrix's side cubed."""
        n, cube, found = self.start()
        for k in range(n):
            found.task("GETRF", (k,), 2 * cube / 3, writes=[(k, k)])
            for i in range(k + 1, n):
                found.task("TRSM", (i, k), cube, reads=[(k, k)], writes=[(i, k)])
                found.task("TRSM", (k, i), cube, reads=[(k, k)], writes=[(k, i)])
            for i in range(k + 1, n):
                for j in range(k + 1, n):
                    found.task("GEMM", (i, j, k), 2 * cube, reads=[(i, k), (k, j)], writes=[(i, j)])
        return self.end(found)


class Qr(_Factorisation):
    """Tiled QR factorisation with a flat tree: GEQRT, UNMQR, TSQRT, TSMQR."""

    kind = "qr"

    def graph(self, seed: int = 0) -> TaskGraph:
        """Returns the graph; its FLOP are four thirds of the matrix's side cubed."""
        n, cube, found = self.start()
        for k in range(n):
            # the reflectors lie below the diagonal, R on and above it: they change hands apart
            found.task("GEQRT", (k,), 4 * cube / 3, writes=[(k, k)], makes=[("v", k)])
            for j in range(k + 1, n):
                found.task("UNMQR", (k, j), 2 * cube, reads=[("v", k)], writes=[(k, j)], part=0.5)
            for i in range(k + 1, n):
                found.task("TSQRT", (i, k), 2 * cube, writes=[(k, k), (i, k)])
                for j in range(k + 1, n):
                    found.task("TSMQR", (i, j, k), 4 * cube, reads=[(i, k)], writes=[(k, j), (i, j)])
        return self.end(found)


class Stencil:
    """Heat on a square, explicit steps: every block reads itself and the rims of its four neighbours.

    Args:
        blocks: along a side of the square.
        block: points along a side of a block.
        steps: in time.
        element: bytes of a number.
    """

    kind = "stencil"

    def __init__(self, *, blocks: Side = 16, block: Tile = 2048, steps: Side = 16, element: Width = 4) -> None:
        self.blocks, self.block, self.steps, self.element = blocks, block, steps, element

    def graph(self, seed: int = 0) -> TaskGraph:
        """Returns the graph; six FLOP a point and step."""
        n, count = self.blocks, self.blocks**2
        tasks = count * self.steps
        at = np.arange(tasks)
        step, row, column = at // count, at % count // n, at % n
        tail, head, size, datum = [], [], [], []
        whole, rim = float(self.element) * self.block**2, float(self.element) * self.block
        for which, (down, right) in enumerate(((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))):
            r, c = row + down, column + right
            there = (step > 0) & (r >= 0) & (r < n) & (c >= 0) & (c < n)
            parent = ((step - 1) * count + r * n + c)[there]
            tail.append(parent)
            head.append(at[there])
            size.append(np.full(len(parent), rim if which else whole))
            datum.append(parent * 5 + which)
        names = [f"HEAT({s},{i},{j})" for s, i, j in zip(step.tolist(), row.tolist(), column.tolist(), strict=True)]
        return assemble(
            name=f"heat on {n} x {n} blocks of {self.block}, {self.steps} steps", names=names, kernels=("STENCIL",),
            kernel=np.zeros(tasks, np.int32), work=np.full(tasks, 6.0 * self.block**2), unit="FLOP",
            parent=np.concatenate(tail), child=np.concatenate(head), size=np.concatenate(size),
            datum=np.concatenate(datum), memory=np.full(tasks, 2 * whole), inputs=np.where(step == 0, whole, 0.0),
            source="synthetic: an explicit scheme of five points",
        )  # fmt: skip


class Layered:
    """Random layers: a task reads what some random tasks of the layer before have made.

    Args:
        tasks: in all.
        width: tasks of a layer.
        degree: parents drawn for each task; one drawn twice counts once.
        work: mean FLOP of a task.
        spread: a task's work and bytes lie within this share of their means, evenly.
        size: mean bytes of an edge.
    """

    kind = "layered"

    def __init__(
        self, *, tasks: Many = 1000, width: Many = 50, degree: Width = 3, work: Flop = 1e9, spread: Share = 0.5,
        size: Size = 1e6,
    ) -> None:  # fmt: skip
        self.tasks, self.width, self.degree = tasks, width, degree
        self.work, self.spread, self.size = work, spread, size

    def graph(self, seed: int = 0) -> TaskGraph:
        """Returns the graph of a seed."""
        draw = rng(seed, "graph", "layered")
        width = min(self.width, self.tasks)
        child = np.repeat(np.arange(width, self.tasks), self.degree)
        parent = (child // width - 1) * width + draw.integers(0, width, len(child))
        pairs = np.unique(parent * self.tasks + child)
        within = (1 - self.spread, 1 + self.spread)
        return assemble(
            name=f"{self.tasks:,} tasks in random layers of {width:,}", names=[f"t{i}" for i in range(self.tasks)],
            kernels=("task",), kernel=np.zeros(self.tasks, np.int32),
            work=self.work * draw.uniform(*within, self.tasks), unit="FLOP",
            parent=pairs // self.tasks, child=pairs % self.tasks,
            size=self.size * draw.uniform(*within, len(pairs)), source=f"synthetic: seed {seed}",
        )  # fmt: skip


class ForkJoin:
    """Stages that fork into equal tasks and join again.

    Args:
        stages: one after the other.
        width: tasks of a stage, between a fork and a join.
        work: FLOP of a task.
        size: bytes to and from each.
    """

    kind = "fork_join"

    def __init__(self, *, stages: Side = 4, width: Many = 32, work: Flop = 1e9, size: Size = 1e6) -> None:
        self.stages, self.width, self.work, self.size = stages, width, work, size

    def graph(self, seed: int = 0) -> TaskGraph:
        """Returns the graph; a join is the fork of the next stage."""
        step, stages = self.width + 1, self.stages
        joints = np.arange(stages + 1) * step
        inner = (joints[:-1, None] + np.arange(1, step)).ravel()
        before, after = np.repeat(joints[:-1], self.width), np.repeat(joints[1:], self.width)
        total = stages * step + 1
        kernel = np.ones(total, np.int32)
        kernel[joints] = 0
        names = [f"join{i // step}" if i % step == 0 else f"task{i // step}.{i % step}" for i in range(total)]
        return assemble(
            name=f"{stages} stages of {self.width:,} tasks", names=names, kernels=("JOIN", "task"), kernel=kernel,
            work=np.where(kernel == 0, 0.0, self.work), unit="FLOP", parent=np.concatenate((before, inner)),
            child=np.concatenate((inner, after)), size=np.full(2 * len(inner), self.size),
            source="synthetic: fork and join",
        )  # fmt: skip
