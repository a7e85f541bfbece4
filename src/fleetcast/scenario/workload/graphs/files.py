"""Reads a graph's file by its name: .json is WfFormat, .hdag a hypergraph; both also with .gz."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from fleetcast.base.errors import SpecError
from fleetcast.scenario.workload.graphs.graph import TaskGraph
from fleetcast.scenario.workload.graphs.hdag import parse_hdag
from fleetcast.scenario.workload.graphs.wfformat import parse_wfformat

LARGEST = 4 << 30
"""Largest file that is read, bytes, after decompression."""


def read_graph(path: Path, *, called: str = "", work: float = 1e-3, size: float = 1e6) -> TaskGraph:
    """Returns the graph of a file.

    Args:
        path: .json or .hdag, also .gz.
        called: what messages call it; "" = the path.
        work: s that one unit of a .hdag's work stands for.
        size: bytes that one unit of its messages stands for.

    Raises:
        SpecError: absent, unreadable, another format, or what the file says cannot be.
    """
    called = called or str(path)
    kind = next((s.lower() for s in reversed(path.suffixes) if s.lower() != ".gz"), "")
    if kind not in (".json", ".hdag"):
        raise SpecError(
            called, "is no kind of file a graph is read from", limit=".json (WfFormat 1.5) or .hdag, also .gz",
            hint="Or build it in code: fleetcast.scenario.workload.graphs.TaskGraph.of",
        )  # fmt: skip
    try:
        if not path.is_file():
            raise SpecError(called, "is not a file", hint="Check the path; relative paths start at the scenario file")
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            with gzip.open(path) as file:
                data = file.read(LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise SpecError(called, "is not a whole gzip file", hint="Fetch or write it again") from None
    except OSError as error:
        raise SpecError(called, f"cannot be read: {error.strerror}", hint="Check its permissions") from None
    if len(data) > LARGEST:
        raise SpecError(called, "is too large", limit=f"at most {LARGEST:,} bytes")
    if kind == ".json":
        return parse_wfformat(data, called)
    return parse_hdag(data, called, work=work, size=size)
