"""Pods and nodes from CSV files: our columns, or those of Alibaba's openb traces (cluster-trace-gpu-v2023).

A file is recognised by its header; further columns are ignored. Text may be compressed with gzip.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from fleetcast.base.errors import SpecError, closest
from fleetcast.scenario.workload.pods.columns import Nodes, Pods

LARGEST = 1 << 30
"""Largest file that is read, bytes, after decompression."""
MIB = float(1 << 20)
SUFFIXES: Final = {
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "m": 1e-3,
}  # fmt: skip
OPENB_PODS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
OPENB_NODES = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
OUR_PODS = (
    "name", "cpu", "memory", "gpu", "gpu_share", "priority", "arrival", "departure", "models", "labels", "selector",
    "tolerations", "group", "apart",
)  # fmt: skip
OUR_NODES = ("name", "cpu", "memory", "gpu", "model", "labels", "taints", "down_from", "down_until")


class _Row:
    """A line of a file, read cell by cell; errors name line and column."""

    def __init__(self, cells: Mapping[str, str], where: str) -> None:
        self.cells, self.where = cells, where

    def text(self, column: str) -> str:
        return (self.cells.get(column) or "").strip()

    def error(self, column: str, problem: str, limit: str) -> SpecError:
        return SpecError(f"{self.where}, column {column}", problem, value=self.text(column), limit=limit,
                         hint="Correct that row or leave it out")  # fmt: skip

    def number(self, column: str, usual: float | None = None, *, high: float = 1e18, whole: bool = False) -> float:
        said = self.text(column)
        if not said and usual is not None:
            return usual
        suffix = next((s for s in SUFFIXES if said.endswith(s)), "")
        try:
            value = float(said.removesuffix(suffix)) * SUFFIXES.get(suffix, 1.0)
        except ValueError:
            raise self.error(column, "is not a number", "a number, as 2, 500m or 16Gi") from None
        if not 0 <= value <= high:
            raise self.error(column, "is out of range", f"0 to {high:g}")
        if whole and value != int(value):
            raise self.error(column, "is not a whole number", f"0 to {high:g}")
        return value

    def words(self, column: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in self.text(column).split("|") if word.strip())

    def pairs(self, column: str) -> dict[str, str]:
        found = {}
        for word in self.words(column):
            key, equals, value = word.partition("=")
            if not equals or not key.strip():
                raise self.error(column, "is not a list of labels", "key=value, several with | between")
            found[key.strip()] = value.strip()
        return found


def read_pods(path: str | Path, *, called: str = "") -> Pods:
    """Returns the pods of a file, in order of arrival.

    Args:
        path: .csv, also .gz.
        called: what messages call it; "" = the path.

    Raises:
        SpecError: absent, unreadable, no known columns, a wrong value (line, column, value), a name twice.
    """
    return parse_pods(_bytes(Path(path), called or str(path)), called or str(path))


def read_nodes(path: str | Path, *, called: str = "") -> Nodes:
    """Returns the nodes of a file; arguments and errors as `read_pods`."""
    return parse_nodes(_bytes(Path(path), called or str(path)), called or str(path))


def parse_pods(data: bytes, called: str) -> Pods:
    """Returns the pods of a file's bytes; errors as `read_pods`."""
    header, rows = _rows(data, called)
    openb = set(OPENB_PODS) <= set(header)
    if not openb and not {"name", "cpu", "memory"} <= set(header):
        raise _unknown(header, called, "pods", OUR_PODS[:3], OPENB_PODS)
    found = [_openb_pod(row) if openb else _our_pod(row) for row in rows]
    _once([f["name"] for f in found], called, "pod")
    found.sort(key=lambda f: f["arrival"])
    numbers = {
        k: np.array([f[k] for f in found], dtype=np.float64) for k in ("cpu", "memory", "share", "arrival", "departure")
    }

    def some(key: str) -> tuple[Any, ...]:
        column = tuple(f[key] for f in found)
        return column if any(column) else ()

    return Pods(
        tuple(f["name"] for f in found), numbers["cpu"], numbers["memory"],
        np.array([f["devices"] for f in found], dtype=np.int32), numbers["share"],
        np.array([f["priority"] for f in found], dtype=np.int32), numbers["arrival"], numbers["departure"],
        some("models"), some("labels"), some("selector"), some("tolerations"), some("group"), some("apart"), called,
    )  # fmt: skip


def _openb_pod(row: _Row) -> dict[str, Any]:
    count, milli = row.number("num_gpu", high=64, whole=True), row.number("gpu_milli", 0.0, high=1000, whole=True)
    shares = count == 1 and 0 < milli < 1000
    begin = row.number("creation_time", 0.0)
    end = row.number("deletion_time", math.inf, high=math.inf)
    return _pod(
        row, cpu=row.number("cpu_milli", high=1e9) / 1000, memory=row.number("memory_mib", high=1e12) * MIB,
        devices=0 if shares else int(count), share=milli / 1000 if shares else 0.0, arrival=begin,
        departure=max(begin, end), models=row.words("gpu_spec"),
    )  # fmt: skip


def _our_pod(row: _Row) -> dict[str, Any]:
    devices, share = int(row.number("gpu", 0.0, high=1e6, whole=True)), row.number("gpu_share", 0.0, high=1.0)
    if share >= 1.0 or (share and devices):
        raise row.error(
            "gpu_share", "is no share of one device", "above 0 and below 1, and gpu 0; whole devices go under gpu"
        )
    begin = row.number("arrival", 0.0)
    end = row.number("departure", math.inf, high=math.inf)
    if end < begin:
        raise row.error("departure", "is before the arrival", f"at least {begin:g} s")
    said = row.text("priority") or "0"
    try:
        priority = int(said)
    except ValueError:
        raise row.error("priority", "is not a whole number", "-2147483648 to 2147483647") from None
    if abs(priority) >= 1 << 31:
        raise row.error("priority", "is out of range", "-2147483648 to 2147483647")
    return _pod(
        row, cpu=row.number("cpu", high=1e6), memory=row.number("memory"), devices=devices, share=share, arrival=begin,
        departure=end, models=row.words("models"), priority=priority, labels=row.pairs("labels"),
        selector=row.pairs("selector"), tolerations=row.words("tolerations"), group=row.text("group"),
        apart=row.text("apart"),
    )  # fmt: skip


def _pod(row: _Row, **said: object) -> dict[str, Any]:
    name = row.text("name")
    if not name:
        raise row.error("name", "is empty", "a name each")
    usual = {"priority": 0, "labels": {}, "selector": {}, "tolerations": (), "group": "", "apart": ""}
    return usual | said | {"name": name}


def parse_nodes(data: bytes, called: str) -> Nodes:
    """Returns the nodes of a file's bytes; errors as `read_pods`."""
    header, rows = _rows(data, called)
    openb = set(OPENB_NODES) <= set(header)
    if not openb and not {"name", "cpu", "memory"} <= set(header):
        raise _unknown(header, called, "nodes", OUR_NODES[:3], OPENB_NODES)
    names, cpu, memory, devices, models = [], [], [], [], []
    labels, taints, down = [], [], []
    for row in rows:
        name = row.text("sn" if openb else "name")
        if not name:
            raise row.error("sn" if openb else "name", "is empty", "a name each")
        names.append(name)
        cpu.append(row.number("cpu_milli", high=1e9) / 1000 if openb else row.number("cpu", high=1e6))
        memory.append(row.number("memory_mib", high=1e12) * MIB if openb else row.number("memory"))
        devices.append(int(row.number("gpu", 0.0, high=64, whole=True)))
        models.append(row.text("model"))
        labels.append(row.pairs("labels"))
        taints.append(row.words("taints"))
        gone = row.number("down_from", math.inf, high=math.inf)
        down.append((gone, max(gone, row.number("down_until", math.inf, high=math.inf))))
    _once(names, called, "node")
    return Nodes(
        tuple(names), np.array(cpu), np.array(memory), np.array(devices, dtype=np.int32), tuple(models),
        tuple(labels) if any(labels) else (), tuple(taints) if any(taints) else (),
        tuple(down) if any(gone < math.inf for gone, _ in down) else (), called,
    )  # fmt: skip


def _once(names: list[str], called: str, what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SpecError(called, f"has {what} '{name}' twice", value=name, limit="a name each", hint="Rename one")
        seen.add(name)


def _unknown(header: list[str], called: str, what: str, ours: tuple[str, ...], openb: tuple[str, ...]) -> SpecError:
    missing = next(c for c in ours if c not in header)
    near = closest(missing, header)
    return SpecError(
        called, f"has no columns of {what}", value=", ".join(header[:8]),
        limit=f"{', '.join(ours)} (ours) or {', '.join(openb)} (openb)", hint=near or f"Column {missing} is missing",
    )  # fmt: skip


def _bytes(path: Path, called: str) -> bytes:
    try:
        if not path.is_file():
            raise SpecError(called, "is not a file", hint="Check the path; relative paths start at the scenario file")
        if path.stat().st_size > LARGEST:
            raise SpecError(called, "is too large", value=path.stat().st_size, limit=f"{LARGEST:,} bytes")
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            with gzip.open(io.BytesIO(data)) as file:
                data = file.read(LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise SpecError(called, "is not a whole gzip file", hint="Fetch or write it again") from None
    except OSError as error:
        raise SpecError(called, f"cannot be read: {error.strerror}", hint="Check its permissions") from None
    if len(data) > LARGEST:
        raise SpecError(called, "is too large when decompressed", limit=f"at most {LARGEST:,} bytes")
    return data


def _rows(data: bytes, called: str) -> tuple[list[str], Iterator[_Row]]:
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        raise SpecError(called, f"is not text: byte {error.start}", limit="UTF-8", hint="Save it as UTF-8") from None
    lines = csv.reader(io.StringIO(text))
    header: list[str] = []
    try:
        while not header:
            row = next(lines, None)
            if row is None:
                raise SpecError(called, "is empty", limit="a header line and at least one row")
            header = [cell.strip() for cell in row]
    except csv.Error as error:
        raise SpecError(called, f"is not CSV: {error}", hint="Check quotes and line ends") from None
    found: list[_Row] = []
    try:
        for row in lines:
            if not any(cell.strip() for cell in row):
                continue
            where = f"{called}, line {lines.line_num}"
            if len(row) != len(header):
                raise SpecError(where, f"has {len(row)} fields", limit=f"{len(header)} as in the header",
                                hint="Is a line cut off, or a text with commas not quoted?")  # fmt: skip
            found.append(_Row(dict(zip(header, row, strict=True)), where))
    except csv.Error as error:
        raise SpecError(f"{called}, line {lines.line_num}", f"is not CSV: {error}", hint="Check quotes") from None
    if not found:
        raise SpecError(called, "has a header and no rows", limit="at least one row below it")
    return header, iter(found)
