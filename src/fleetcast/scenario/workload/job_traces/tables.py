"""Reading CSV traces, with errors that name line and column."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path

from fleetcast.base.errors import SpecError

Row = tuple[str, dict[str, str]]


def table(path: Path, columns: Sequence[str]) -> list[Row]:
    """Returns (where, row) of each line of a CSV file (.gz or not) that has at least these columns.

    Raises:
        SpecError: a column is missing, a line is short, or there are no lines.
    """
    raw = path.read_bytes()
    reader = csv.DictReader(io.StringIO((gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")))
    for column in columns:
        if column not in (reader.fieldnames or ()):
            raise SpecError(
                path.name, "a column is missing", value=column, limit=f"has {', '.join(reader.fieldnames or ())}"
            )
    rows = [(f"{path.name} line {n}", row) for n, row in enumerate(reader, start=2)]
    if not rows:
        raise SpecError(path.name, "the trace has no jobs", limit="a line a job, below the names of columns")
    for where, row in rows:
        short = [column for column in columns if row[column] is None]
        if short:
            raise SpecError(
                f"{where}, column {short[0]}",
                "the line ends before this column",
                limit=f"{len(columns)} columns at least",
            )
    return rows


def number(row: Row, column: str, least: float) -> float:
    """Returns a number of a row.

    Raises:
        SpecError: it is none, or below ``least``.
    """
    where, text = row[0], row[1][column]
    try:
        value = float(text)
    except ValueError:
        raise SpecError(
            f"{where}, column {column}", "not a number", value=text, hint="Write 12.5, without a unit"
        ) from None
    if not least <= value < float("inf"):
        raise SpecError(f"{where}, column {column}", "out of range", value=text, limit=f"at least {least:g}")
    return value
