"""A plain CSV of jobs: arrival (s), devices, seconds; what else is known in columns of its own.

Further columns, each optional: name, model, user, least and most (devices of an elastic job), priority, weight,
deadline (s, empty = none), units (work as a table of speeds counts it; ``seconds`` may then be missing).
"""

from __future__ import annotations

from math import inf
from pathlib import Path

from fleetcast.base.errors import SpecError
from fleetcast.scenario.workload.job_traces.tables import Row, number, table
from fleetcast.scenario.workload.jobs import Jobs, of


def read(path: Path) -> Jobs:
    """Returns the jobs of a file (.gz or not), in order of arrival.

    Raises:
        SpecError: a column is missing, or a number is none or out of range.
    """
    rows = table(path, ("arrival", "devices"))
    head = rows[0][1]
    if "seconds" not in head and "units" not in head:
        raise SpecError(path.name, "a column is missing", value="seconds", limit=f"has {', '.join(head)}",
                        hint="Write how long each job takes on its devices, or units of work")  # fmt: skip
    demand = [_whole(row, "devices", 1) for row in rows]
    least = [_whole(row, "least", 1) for row in rows] if "least" in head else demand
    most = [_whole(row, "most", 1) for row in rows] if "most" in head else demand
    for (where, _), low, mid, high in zip(rows, least, demand, most, strict=True):
        if not low <= mid <= high:
            raise SpecError(f"{where}, column devices", "out of range", value=mid,
                            limit=f"from least = {low} to most = {high}")  # fmt: skip
    models, model = _names(rows, "model")
    users, user = _names(rows, "user")
    return of(
        [number(row, "arrival", 0) for row in rows], demand, _above(rows, "seconds") or 0.0, least=least, most=most,
        model=model or 0, models=models, user=user, users=users, units=_above(rows, "units"),
        priority=[_whole(row, "priority", -(2**31)) for row in rows] if "priority" in head else 0,
        weight=_above(rows, "weight") or 1.0, names=[row["name"] for _, row in rows] if "name" in head else (),
        source=path.name, deadline=_deadlines(rows),
    )  # fmt: skip


def _deadlines(rows: list[Row]) -> list[float] | None:
    if "deadline" not in rows[0][1]:
        return None
    return [number(row, "deadline", number(row, "arrival", 0)) if row[1]["deadline"] else inf for row in rows]


def _above(rows: list[Row], column: str) -> list[float] | None:
    if column not in rows[0][1]:
        return None
    found = [number(row, column, 0) for row in rows]
    if 0.0 in found:
        raise SpecError(f"{rows[found.index(0.0)][0]}, column {column}", "out of range", value=0, limit="above 0")
    return found


def _whole(row: Row, column: str, least: float) -> int:
    found = number(row, column, least)
    if found % 1:
        raise SpecError(
            f"{row[0]}, column {column}", "not a whole number", value=row[1][column], hint="Write 4, not 4.5"
        )
    return int(found)


def _names(rows: list[Row], column: str) -> tuple[tuple[str, ...], list[int] | None]:
    if column not in rows[0][1]:
        return ("",), None
    names = tuple(dict.fromkeys(row[column] for _, row in rows))
    return names, [names.index(row[column]) for _, row in rows]
