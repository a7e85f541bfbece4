"""Reads a pipeline from a workbook: sheets Detectors and Processors (and Global), a row a node.

The layout is the one in which the CMS and FCC systems were published with "SystemFlow" (APL Mach. Learn. 2(4) 046113).
Nothing of those files is in Fleetcast; a user who has them names them.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fleetcast.base.errors import MissingExtra, SpecError, closest
from fleetcast.scenario.workload.scores import Classifier
from fleetcast.scenario.workload.streams import Repair, StreamLink, StreamNode

MOST_BYTES, MOST_UNPACKED = 16 << 20, 256 << 20
MOST_ROWS, MOST_COLUMNS = 5_000, 200
ROUTING: Final = 0.9e-6
"""Seconds that routing takes in a node of such a system, as the published program has it."""
NOTHING: Final = ("dummy", "none", "")
"""What the column Classifier says of a node that passes everything."""

_SIZE, _LINK, _OPS = "Data (bytes)", "Link Efficiency (J/bit)", "Op Efficiency (J/op)"
_RATIO, _CHOICE = "Reduction Ratio", "Classifier"
_SENSORS = {"to": "Category", "name": "Detector", "size": _SIZE, "rate": "Sample Rate"}
_PROCESSORS = {"name": "Name", "to": "Output", "size": _SIZE}
_SHEETS = ("Detectors", "Processors", "Global")


def read_system(path: Path, repair: Repair) -> tuple[list[StreamNode], list[str]]:
    """Returns the nodes of a workbook, and notes.

    Args:
        path: the .xlsx file.
        repair: what it calls by another name or lacks.

    Raises:
        MissingExtra: openpyxl is absent.
        SpecError: no workbook, or a sheet, column or cell that cannot be; names the repair.
    """
    tables = _open(path)
    for name in repair.sheets:
        if name not in _SHEETS:
            raise SpecError("workload.repair.sheets", "is not a sheet of ours", value=name,
                            limit=f"sheets: {', '.join(_SHEETS)}", hint=closest(name, _SHEETS))  # fmt: skip
    for name in _SHEETS[:2]:
        if (called := repair.sheets.get(name, name)) not in tables:
            raise SpecError(
                f"{path.name}", f"has no sheet {called}", limit=f"sheets: {', '.join(tables) or 'none'}",
                hint=f'Where another sheet is meant, write repair = {{ sheets = {{ {name} = "..." }} }}',
            )  # fmt: skip
    detectors, processors = (_sheet(path, tables, name, repair) for name in _SHEETS[:2])
    notes = []
    year = next((row.get("Year") for row in _rows(tables.get(repair.sheets.get("Global", "Global"), []))), None)
    if isinstance(year, int | float):
        notes.append(f"{path.name} is of the year {year:g}: workload.year = {year:g} takes what is saved until then")
    nodes = [_sensor(path, i, row) for i, row in enumerate(detectors)]
    nodes += [_processor(path, i, row) for i, row in enumerate(processors)]
    seen: set[str] = set()
    for node in nodes:
        if node.name in seen:
            raise SpecError(f"{path.name}", "has a node twice", value=node.name, limit="one row of each name")
        seen.add(node.name)
    return nodes, notes


def _open(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    if not path.is_file():
        raise SpecError("workload.system", "is not a file", value=str(path),
                        hint="Check the path; relative paths start at the scenario file")  # fmt: skip
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise MissingExtra("openpyxl", "data") from None
    if path.stat().st_size > MOST_BYTES:
        raise SpecError("workload.system", "is too large", value=path.stat().st_size,
                        limit=f"at most {MOST_BYTES:,} bytes")  # fmt: skip
    try:
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(part.file_size for part in packed.infolist())
        if unpacked > MOST_UNPACKED:
            raise SpecError("workload.system", "unpacks to too much", value=unpacked,
                            limit=f"at most {MOST_UNPACKED:,} bytes")  # fmt: skip
        book = load_workbook(path, read_only=True, data_only=True)
        try:
            return {
                sheet.title: list(sheet.iter_rows(max_row=MOST_ROWS, max_col=MOST_COLUMNS, values_only=True))
                for sheet in book.worksheets
            }
        finally:
            book.close()
    except (SpecError, MemoryError):
        raise
    except Exception as error:  # a broken workbook makes openpyxl raise anything
        said = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        raise SpecError("workload.system", f"is not a workbook that can be read: {said}", value=path.name,
                        limit="an .xlsx file", hint="Save it again from the spreadsheet program") from None  # fmt: skip


def _rows(table: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Rows below the header as dictionaries; empty rows and columns without a head fall out."""
    if not table:
        return []
    head = [str(cell).strip() if cell is not None else "" for cell in table[0]]
    found = ({k: v for k, v in zip(head, row, strict=False) if k and v is not None} for row in table[1:])
    return [row for row in found if row]


def _sheet(path: Path, tables: Mapping[str, list[tuple[Any, ...]]], name: str, repair: Repair) -> list[dict[str, Any]]:
    """Returns a sheet's rows under our names of its columns, gaps filled as the repair says."""
    called = repair.sheets.get(name, name)
    rows = _rows(tables[called])
    if not rows:
        raise SpecError(f"{path.name}: {called}", "has no rows", hint="Add a row for each node below the header")
    head = {str(cell).strip() for cell in tables[called][0] if cell is not None}
    others = tuple(f"{sheet}/" for sheet in _SHEETS if sheet != name)
    given = {k.removeprefix(f"{name}/"): v for k, v in repair.fill.items() if not k.startswith(others)}
    own = (_SENSORS if name == "Detectors" else _PROCESSORS).values()
    wanted = [*own, _LINK, _OPS] + ([_RATIO] if name == "Processors" else [])
    for column in wanted:
        theirs = repair.columns.get(column, column)
        if (
            theirs not in head
            and column not in given
            and not (column == _RATIO and {"True Pass", "True Discard"} <= head)
        ):
            guess = closest(column, head) or (
                f"Did you mean '{column.split()[0]}'?" if column.split()[0] in head else ""
            )
            raise SpecError(
                f"{path.name}: {called}", "lacks a column", value=theirs,
                limit=f"columns: {', '.join(sorted(head)[:14])}",
                hint=f"{guess} Write repair = {{ columns = {{ \"{column}\" = \"...\" }} }}, or fill = "
                f'{{ "{name}/{column}" = a value }}'.strip(),
            )  # fmt: skip
    found = []
    for row in rows:
        named = dict(row)
        for column in (*wanted, _CHOICE, "Compression", "Skill mean", "Skill variance"):
            theirs = repair.columns.get(column, column)
            if theirs in row:
                named[column] = row[theirs]
            elif theirs not in head and column in given:
                named[column] = given[column]
        if _RATIO not in named and {"True Pass", "True Discard"} <= set(row):
            passed, left = (_number(path, called, named, c) for c in ("True Pass", "True Discard"))
            if passed <= 0:
                raise SpecError(f"{path.name}: {called}", "passes nothing", value=passed, limit="True Pass above 0")
            named[_RATIO] = 1.0 + left / passed
        found.append(named)
    return found


def _number(path: Path, where: str, row: Mapping[str, Any], column: str, default: float | None = None) -> float:
    value = row.get(column, default)
    bad = isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0
    if bad:
        name = row.get("Detector", row.get("Name", "a row"))
        raise SpecError(f"{path.name}: {where}, {name}, {column}", "is not a number from 0", value=value,
                        limit="a finite number, 0 or more", hint="Correct the cell")  # fmt: skip
    assert isinstance(value, int | float)
    return float(value)


def _name(path: Path, where: str, number: int, row: Mapping[str, Any], column: str) -> str:
    value = str(row.get(column, "")).strip()
    if not value:
        raise SpecError(f"{path.name}: {where}, row {number + 2}, {column}", "is empty", hint="Name the node")
    return value


def _energies(path: Path, where: str, row: Mapping[str, Any]) -> dict[str, Any]:
    squeeze = _number(path, where, row, "Compression", 0.0)
    if squeeze >= 1:
        raise SpecError(f"{path.name}: {where}, Compression", "leaves nothing", value=squeeze, limit="0 to below 1")
    return {
        "compression": squeeze, "latency": ROUTING,
        "op_energy": _number(path, where, row, _OPS, 0.0),
        "link": StreamLink(energy=_number(path, where, row, _LINK, 0.0)),
    }  # fmt: skip


def _sensor(path: Path, number: int, row: dict[str, Any]) -> StreamNode:
    where = "Detectors"
    rate = _number(path, where, row, "Sample Rate")
    if rate == 0:
        raise SpecError(f"{path.name}: {where}, Sample Rate", "is out of range", value=0, limit="above 0 Hz")
    return StreamNode(
        name=_name(path, where, number, row, "Detector"), to=_name(path, where, number, row, "Category"),
        rate=rate, size=_number(path, where, row, _SIZE), **_energies(path, where, row),
    )  # fmt: skip


def _processor(path: Path, number: int, row: dict[str, Any]) -> StreamNode:
    where, name = "Processors", _name(path, "Processors", number, row, "Name")
    ratio = _number(path, where, row, _RATIO)
    if ratio < 1:
        raise SpecError(f"{path.name}: {where}, {name}, {_RATIO}", "is out of range", value=ratio, limit="at least 1")
    to = str(row.get("Output") or "").strip()
    return StreamNode(
        name=name, to=None if to.lower() in ("none", "") else to, size=_number(path, where, row, _SIZE, 0.0),
        ratio=ratio, classifier=_choice(path, name, row) if ratio > 1 else None, **_energies(path, where, row),
    )  # fmt: skip


def _choice(path: Path, name: str, row: Mapping[str, Any]) -> str | Classifier | None:
    """Returns by what a node chooses: the word in its column, or skill and variance where there is none."""
    word = str(row.get(_CHOICE, "")).strip()
    if word.lower() not in (*NOTHING, "gaussian"):
        return word
    skill, variance = (_number(path, "Processors", row, column, 0.0) for column in ("Skill mean", "Skill variance"))
    if variance > 0:
        return Classifier(kind="gaussian", skill=skill, variance=variance)
    if word.lower() == "gaussian":
        raise SpecError(f"{path.name}: Processors, {name}, Skill variance", "is out of range", value=variance,
                        limit="above 0")  # fmt: skip
    return None
