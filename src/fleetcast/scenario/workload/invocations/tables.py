"""Tables of a published trace: CSV with a header, gzip or not, read into columns of text and numbers."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetcast.base.errors import SpecError, closest

LARGEST = 4 << 30
"""Largest file that is read, bytes, once unpacked."""


@dataclass(frozen=True)
class Table:
    """A file's rows.

    Attributes:
        name: what errors call the file.
        head: names of the columns.
        rows: cells of each row.
    """

    name: str
    head: tuple[str, ...]
    rows: list[list[str]]

    def has(self, *names: str) -> bool:
        """Whether there are all these columns."""
        return all(name in self.head for name in names)

    def texts(self, name: str) -> list[str]:
        """Returns a column as it stands.

        Raises:
            SpecError: no such column.
        """
        if name not in self.head:
            raise SpecError(
                f"{self.name}, column {name}", "is missing", value=",".join(self.head[:8]), limit="a header with it",
                hint=closest(name, self.head),
            )  # fmt: skip
        at = self.head.index(name)
        return [row[at].strip() for row in self.rows]

    def numbers(self, name: str, *, empty: float = math.nan) -> list[float]:
        """Returns a column of finite numbers; an empty cell is ``empty``, which nan forbids.

        Raises:
            SpecError: no such column, or a cell that is no number from 0 on; names the row.
        """
        found = []
        for number, cell in enumerate(self.texts(name), 1):
            try:
                value = float(cell) if cell else empty
            except ValueError:
                value = math.nan
            if not math.isfinite(value) or value < 0:
                raise SpecError(
                    f"{self.name}, row {number}, {name}", "is no number", value=cell, limit="a number, 0 and above"
                )
            found.append(value)
        return found


def read_table(path: Path, name: str = "") -> Table:
    """Returns the table of a .csv or .csv.gz file.

    Raises:
        SpecError: it cannot be read, has no header or no rows, or a row is short; names the row.
    """
    called = name or str(path)
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(data)) as packed:
                data = packed.read(LARGEST + 1)
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, ValueError) as error:
        problem = f"cannot be read: {getattr(error, 'strerror', None) or 'neither text nor gzip'}"
        raise SpecError(called, problem, limit="a .csv or .csv.gz file", hint="Check the path") from None
    if len(data) > LARGEST:
        raise SpecError(called, "is too large", limit=f"{LARGEST:,} bytes", hint="Cut it")
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    try:
        rows = list(csv.reader(lines))
    except csv.Error as error:
        raise SpecError(called, f"is no CSV: {error}", limit="comma-separated rows") from None
    if not rows:
        raise SpecError(called, "is empty", limit="a header and at least one row")
    head = tuple(cell.strip() for cell in rows[0])
    for number, row in enumerate(rows[1:], 1):
        if len(row) < len(head):
            raise SpecError(
                f"{called}, row {number}", "is short", value=",".join(row)[:60], limit=f"{len(head)} columns"
            )
    if len(rows) == 1:
        raise SpecError(called, "has no rows", limit="a header and at least one row")
    return Table(called, head, rows[1:])


def numbered(values: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """Returns the distinct values in order of their first, and of each row its number."""
    known: dict[str, int] = {}
    rows = [known.setdefault(value, len(known)) for value in values]
    return tuple(known), rows
