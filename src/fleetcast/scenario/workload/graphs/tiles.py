"""Graphs of tiled algorithms: tasks in the order of the sequential programme, edges by the tiles they read and write.

A task reads the last version of each of its tiles and writes new ones; an edge carries a tile from the task that wrote
it. What nobody has written yet is read from outside. A tile read by several tasks on one device travels there once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from fleetcast.scenario.workload.graphs.graph import TaskGraph, assemble


class Tiles:
    """Collects tasks.

    Args:
        size: bytes of a tile.
    """

    def __init__(self, size: float) -> None:
        self._size = size
        self._names: list[str] = []
        self._kernels: dict[str, int] = {}
        self._kernel: list[int] = []
        self._work: list[float] = []
        self._memory: list[float] = []
        self._inputs: list[float] = []
        self._edges: list[tuple[int, int, float, int]] = []
        self._version: dict[Hashable, tuple[int, int]] = {}
        self._data = 0

    def task(
        self, kernel: str, at: Sequence[int], work: float, *, reads: Sequence[Hashable] = (),
        writes: Sequence[Hashable] = (), makes: Sequence[Hashable] = (), part: float = 1.0,
    ) -> None:  # fmt: skip
        """Adds a task.

        Args:
            kernel: what it runs.
            at: its indices, for its name.
            work: FLOP.
            reads: tiles that it only reads.
            writes: tiles that it changes.
            makes: tiles that it writes without reading them.
            part: share of a tile that is read.
        """
        task = len(self._work)
        self._names.append(f"{kernel}({','.join(map(str, at))})")
        self._kernel.append(self._kernels.setdefault(kernel, len(self._kernels)))
        self._work.append(work)
        self._memory.append((len(reads) + len(writes) + len(makes)) * self._size)
        outside = 0.0
        for tile in (*reads, *writes):
            size = self._size if tile in writes else self._size * part
            if tile in self._version:
                writer, datum = self._version[tile]
                self._edges.append((writer, task, size, datum))
            else:
                outside += size
        self._inputs.append(outside)
        for tile in (*writes, *makes):
            self._version[tile] = task, self._data
            self._data += 1

    def graph(self, name: str, source: str) -> TaskGraph:
        """Returns the graph of all tasks so far."""
        columns = list(zip(*self._edges, strict=True)) or [(), (), (), ()]
        return assemble(
            name=name, names=tuple(self._names), kernels=tuple(self._kernels), kernel=self._kernel, work=self._work,
            unit="FLOP", parent=columns[0], child=columns[1], size=columns[2], datum=columns[3], memory=self._memory,
            inputs=self._inputs, source=source,
        )  # fmt: skip
