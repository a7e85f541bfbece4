"""Traces from files: CSV, JSON lines and Parquet; columns as ours or those of published traces.

A file is recognised by its column names (`columns.FORMATS`), whatever their order; further columns
are ignored. Any text file may be compressed with gzip.
"""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.base.numbers import Malformed, parse_table, row_position
from fleetcast.scenario.workload.columns import LISTS, assemble, match
from fleetcast.scenario.workload.requests import Requests

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST = 8 << 30
"""Largest file that is read, bytes, after decompression."""


def read_file(path: str | Path, *, name: str = "") -> Requests:
    """Reads a trace.

    Args:
        path: .csv, .jsonl, .ndjson or .parquet; the text formats also with .gz.
        name: what messages call it; default the path.

    Raises:
        SpecError: absent, unreadable, no known columns, or a wrong value (line, column, value).
        MissingExtra: Parquet without pyarrow.
    """
    path = Path(path)
    called = name or str(path)
    kind = next((s.lower() for s in reversed(path.suffixes) if s.lower() != ".gz"), "")
    if kind in (".parquet", ".pq"):
        _check_file(path, called)
        return _read_parquet(path, called)
    data = _read_bytes(path, called)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SpecError(called, "is UTF-16 text", limit="UTF-8", hint="Save it as UTF-8")
    if data.startswith(b"PAR1"):
        return _read_parquet(path, called)
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise SpecError(called, "is empty", limit="a header line and at least one request")
    if kind in (".jsonl", ".ndjson", ".json") or data.lstrip()[:1] == b"{":
        return _read_json_lines(data, called)
    return _read_csv(data, called)


def _check_file(path: Path, called: str) -> None:
    if not path.exists():
        hint = "Check the path; 'fleetcast catalog traces' lists the packaged ones"
        raise SpecError(called, "is not there", hint=hint)
    if not path.is_file():
        raise SpecError(called, "is not a file", hint="Name the trace file itself")


def _read_bytes(path: Path, called: str) -> bytes:
    _check_file(path, called)
    try:
        if path.stat().st_size > LARGEST:
            raise SpecError(called, "is too large", value=path.stat().st_size, limit=f"{LARGEST:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise SpecError(called, f"cannot be read: {error.strerror}", hint="Check the file's permissions") from None
    if not data.startswith(b"\x1f\x8b"):
        return data
    import gzip

    try:
        with gzip.open(io.BytesIO(data)) as file:
            text = file.read(LARGEST + 1)
    except (EOFError, OSError, zlib.error):
        hint = "Fetch or write it again"
        raise SpecError(called, "is not a whole gzip file", hint=hint) from None
    if len(text) > LARGEST:
        raise SpecError(called, "is too large when decompressed", limit=f"at most {LARGEST:,} bytes")
    return text


def _read_csv(data: bytes, called: str) -> Requests:
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    begin = len(data) - len(data.lstrip())
    end = data.find(b"\n", begin)
    line = data[begin:] if end < 0 else data[begin:end]
    try:
        first = line.decode("utf-8").rstrip("\r")
    except UnicodeDecodeError:
        raise SpecError(called, "is not text", hint="CSV, JSON lines and Parquet are read") from None
    delimiter = next((d for d in ",;\t" if d in first), ",")
    header = next(csv.reader([first], delimiter=delimiter))
    format_, names = match(header, called)
    start = len(data) if end < 0 else end + 1
    if not data[start:].strip():
        raise SpecError(called, "has a header and no requests", limit="at least one row below it")

    def place(row: int) -> str:
        at = row_position(data, len(header), row, begin=start, delimiter=delimiter)
        return _line(data, at)

    index = {column: header.index(name) for column, name in names.items() if column not in LISTS}
    columns: dict[str, Any] = {}
    texts = [c for c in index if c == "session"]
    if "arrival" in index and _holds_text(data, start, index["arrival"], delimiter):
        texts.append("arrival")
    numeric = [c for c in index if c not in texts]
    try:
        table = parse_table(data, len(header), [index[c] for c in numeric], begin=start, delimiter=delimiter)
    except Malformed as error:
        raise _explain(error, data, header, called) from None
    columns |= dict(zip(numeric, table, strict=True))
    for column in texts:
        columns[column] = _text_column(data, start, index[column], delimiter)
    return assemble(columns, names, format_, called, place)


def _explain(error: Malformed, data: bytes, header: Sequence[str], called: str) -> SpecError:
    line = _line(data, error.position)
    if error.text:
        return SpecError(
            f"{called}, {line}, column {header[error.column].strip()}", error.problem,
            value=error.text, limit="a number", hint="Correct that row or leave it out",
        )  # fmt: skip
    many = "more" if "many" in error.problem else f"only {error.column}"
    return SpecError(
        f"{called}, {line}", f"has {many} fields", limit=f"{len(header)} as in the header",
        hint="Is a line cut off, or a text with commas not quoted?",
    )  # fmt: skip


def _line(data: bytes, position: int) -> str:
    newlines = data.count(b"\n", 0, position)
    return f"line {newlines + 1}"


def _rows(data: bytes, start: int, delimiter: str) -> Iterator[list[str]]:
    text = io.TextIOWrapper(io.BytesIO(data[start:]), encoding="utf-8", errors="replace", newline="")
    return (row for row in csv.reader(text, delimiter=delimiter) if row)


def _holds_text(data: bytes, start: int, index: int, delimiter: str) -> bool:
    """Whether a column's first field is something else than a number."""
    row = next(_rows(data[start : start + 65536], 0, delimiter), [])
    try:
        float(row[index])
    except ValueError:
        return bool(row[index].strip())
    except IndexError:
        return False
    return False


def _text_column(data: bytes, start: int, index: int, delimiter: str) -> list[str]:
    return [row[index] for row in _rows(data, start, delimiter)]


def _read_json_lines(data: bytes, called: str) -> Requests:
    lines = data.split(b"\n")
    filled = [i for i, line in enumerate(lines) if line.strip()]

    def place(row: int) -> str:
        return f"line {filled[row] + 1}"

    decode = msgspec.json.Decoder().decode
    items: list[dict[str, Any]] = []
    for row, i in enumerate(filled):
        try:
            item = decode(lines[i])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            hint = "Write one object a line" if row == 0 else "Is the line cut off?"
            raise SpecError(f"{called}, {place(row)}", f"is not JSON: {error}", hint=hint) from None
        if not isinstance(item, dict):
            limit = "one object a line with arrival_s, prompt_tokens and output_tokens"
            raise SpecError(f"{called}, {place(row)}", "is not a JSON object", limit=limit)
        items.append(item)
    format_, names = match(list(items[0]), called)
    columns: dict[str, Any] = {c: [item.get(name) for item in items] for c, name in names.items()}
    for column, values in columns.items():
        texts = column == "session" or (column == "arrival" and isinstance(values[0], str))
        if not texts and column not in LISTS:
            columns[column] = _floats(values, partial(_cell, called, place, names[column]))
    return assemble(columns, names, format_, called, place)


def _cell(called: str, place: Callable[[int], str], column: str, row: int) -> str:
    return f"{called}, {place(row)}, column {column}"


def _floats(values: Sequence[object], cell: Callable[[int], str]) -> NDArray[np.float64]:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        for row, value in enumerate(values):
            try:
                np.array([value], dtype=np.float64).reshape(1)
            except (TypeError, ValueError, OverflowError):
                raise SpecError(
                    cell(row), "is not a number", value=value, limit="a number",
                    hint="Correct that row or leave it out",
                ) from None  # fmt: skip
        raise


def _read_parquet(path: Path, called: str) -> Requests:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra("pyarrow", "data") from None
    try:
        file = pq.ParquetFile(path)
        format_, names = match(file.schema_arrow.names, called)
        table = file.read(columns=list(names.values()))
    except (pa.ArrowException, OSError) as error:
        problem = f"cannot be read as Parquet: {str(error).splitlines()[0]}"
        raise SpecError(called, problem, hint="Write the file again") from None
    if not table.num_rows:
        raise SpecError(called, "holds no requests", limit="at least one row")

    def place(row: int) -> str:
        return f"row {row + 1}"

    columns: dict[str, Any] = {}
    for column, name in names.items():
        values = table.column(name)
        kind = values.type
        if column == "session" or column in LISTS or (column == "arrival" and pa.types.is_string(kind)):
            columns[column] = values.to_pylist()
        elif pa.types.is_timestamp(kind) and column == "arrival":
            columns[column] = values.cast(pa.timestamp("ns")).to_numpy()
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            columns[column] = values.to_numpy()
        else:
            columns[column] = _floats(values.to_pylist(), partial(_cell, called, place, name))
    return assemble(columns, names, format_, called, place)
