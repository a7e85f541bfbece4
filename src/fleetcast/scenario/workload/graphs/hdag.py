"""Hypergraphs of computations (.hdag), as HyperDAG_DB and OneStopParallel keep them.

A file has comments that begin with %, a line with the numbers of hyperedges, nodes and pins, and then one of two
forms: hyperedges (index, bytes), nodes (index, work), pins (hyperedge, node); or pins and then nodes (index, work,
bytes of its result). The first pin of a hyperedge is the node whose result its others read: data that travel once to a
device. Weights that a line leaves out are 1; they have no unit, a scenario says what one stands for.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.base.numbers import Malformed, parse_table
from fleetcast.scenario.workload.graphs.graph import TaskGraph, assemble

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 100_000_000
"""Most lines of a file."""


def parse_hdag(data: bytes, path: str, *, work: float = 1e-3, size: float = 1e6) -> TaskGraph:
    """Returns the graph of a file's bytes.

    Args:
        data: the file.
        path: for errors.
        work: s that a weight of one stands for.
        size: bytes that a weight of one stands for.

    Raises:
        SpecError: not this format, a number out of range, a pin twice, a cycle; names the line.
    """
    rows = _Rows(data, path)
    hyperedges, nodes, pins = rows.header()
    left = rows.left
    if left == hyperedges + nodes + pins:
        edge_weight = _weights(rows, hyperedges, "hyperedge", 1)
        node_weight = _weights(rows, nodes, "node", 1)
        pin = rows.take(pins, 2, need=2)
        data_size = edge_weight[:, 0]
    elif left == pins + nodes:
        pin = rows.take(pins, 2, need=2)
        node_weight = _weights(rows, nodes, "node", 2)
        data_size = None
    else:
        raise SpecError(
            path, f"has {left:,} lines below its header", limit=(
                f"{hyperedges:,} hyperedges, {nodes:,} nodes and {pins:,} pins, or pins and nodes alone"
            ), hint="Is it cut off?",
        )  # fmt: skip
    for column, count, what in ((0, hyperedges, "hyperedge"), (1, nodes, "node")):
        _refuse_range(pin[:, column], count, what, path)
    edge, node = pin[:, 0].astype(np.int64), pin[:, 1].astype(np.int64)
    edge, node = _once(edge, node, nodes)
    heads = np.ones(len(edge), bool)
    heads[1:] = edge[1:] != edge[:-1]
    source = node[heads][np.cumsum(heads) - 1]
    keep = ~heads & (source != node)
    parent, child, datum = source[keep], node[keep], edge[keep]
    sizes = node_weight[parent, 1] if data_size is None else data_size[datum]
    return assemble(
        name=path.rpartition("/")[2], names=[f"n{i}" for i in range(nodes)], kernels=("node",),
        kernel=np.zeros(nodes, np.int32), work=node_weight[:, 0] * work, unit="s", parent=parent, child=child,
        size=sizes * size, datum=datum, source=f"{path}, hyperDAG", path=path,
    )  # fmt: skip


class _Rows:
    """The lines of a file, comments left out."""

    def __init__(self, data: bytes, path: str) -> None:
        self._path = path
        lines = data.replace(b"\r\n", b"\n").split(b"\n")
        while lines and not lines[-1].strip():
            lines.pop()
        if len(lines) > MOST:
            raise SpecError(path, "is too long", value=len(lines), limit=f"at most {MOST:,} lines")
        self._first = 0
        while self._first < len(lines) and lines[self._first].lstrip().startswith(b"%"):
            self._first += 1
        self._lines = lines
        self._at = self._first

    @property
    def left(self) -> int:
        """Lines not taken yet."""
        return len(self._lines) - self._at

    def header(self) -> tuple[int, int, int]:
        """The numbers of hyperedges, nodes and pins."""
        if self.left <= 0:
            raise SpecError(self._path, "has no header", limit="three numbers: hyperedges, nodes, pins")
        row = self.take(1, 3, need=3)[0].tolist()
        counts = tuple(int(x) if abs(x) < 2**53 else -1 for x in row)  # neither infinite nor no number
        if any(c != x or c < 0 for c, x in zip(counts, row, strict=True)) or counts[1] < 1:
            raise SpecError(
                f"{self._path} line {self._first + 1}", "is no header", value=row,
                limit="whole numbers of hyperedges, nodes (at least one) and pins", hint="Is it a .hdag file?",
            )  # fmt: skip
        return counts[0], counts[1], counts[2]

    def take(self, count: int, width: int, *, need: int) -> NDArray[np.float64]:
        """The next ``count`` lines' first ``width`` numbers; what a line leaves out behind the ``need``-th is 1."""
        part = self._lines[self._at : self._at + count]
        begin, self._at = self._at, self._at + count
        if not part:
            return np.empty((0, width))
        columns = len(part[0].split())
        if width <= columns <= 16:
            # lines of unlike lengths, empty ones, further blanks or a comment: read slowly, and blamed precisely
            with suppress(Malformed):
                table = parse_table(b"\n".join(part), columns, range(width), delimiter=" ").T
                if len(table) == len(part):
                    return table
        found = np.ones((len(part), width))
        for i, line in enumerate(part):
            words = line.partition(b"%")[0].split()
            try:
                numbers = [float(word) for word in words[:width]]
            except ValueError:
                numbers = []
            if len(numbers) < need:
                raise SpecError(
                    f"{self._path} line {begin + i + 1}", "is too short or not numbers", value=line.decode("latin-1"),
                    limit=f"{need} or more numbers with blanks between", hint="Is it a .hdag file?",
                )  # fmt: skip
            found[i, : len(numbers)] = numbers
        return found


def _once(edge: NDArray[np.int64], node: NDArray[np.int64], nodes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pins by hyperedge, in the order listed, one that is listed again left out."""
    _, first = np.unique(edge * nodes + node, return_index=True)
    first.sort()
    order = first[np.argsort(edge[first], kind="stable")]
    return edge[order], node[order]


def _weights(rows: _Rows, count: int, what: str, weights: int) -> NDArray[np.float64]:
    """The weights of hyperedges or nodes by their index."""
    table = rows.take(count, 1 + weights, need=1)
    _refuse_range(table[:, 0], count, what, rows._path)
    index = table[:, 0].astype(np.int64)
    if len(np.unique(index)) < count:
        twice = int(np.flatnonzero(np.bincount(index, minlength=count) > 1)[0])
        raise SpecError(rows._path, f"lists a {what} twice", value=twice, limit="each once", hint="Remove one")
    found = np.ones((count, weights))
    found[index] = table[:, 1:]
    return found


def _refuse_range(index: NDArray[np.float64], count: int, what: str, path: str) -> None:
    bad = ~((index >= 0) & (index < count) & (index == np.floor(index)))
    if bad.any():
        value = float(index[int(np.argmax(bad))])
        raise SpecError(path, f"names a {what} that is not there", value=value, limit=f"0 to {count - 1:,}",
                        hint="Check the counts in its header")  # fmt: skip
