"""Microsoft's Philly trace as Sia's authors condensed it: CSV with timestamp (UTC), duration s, num_gpus, cluster.

``cluster`` is the virtual cluster, a hash: whose job it is. Rows need not be sorted. Durations are what jobs took on
the devices they had.
"""

from __future__ import annotations

import csv
import gzip
import io
from datetime import datetime
from pathlib import Path

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.scenario.workload.job_traces.tables import number
from fleetcast.scenario.workload.jobs import Jobs, of

COLUMNS = ("timestamp", "duration", "num_gpus")


def read(path: Path) -> Jobs:
    """Returns the jobs of a trace (.gz or not), in order of arrival; the first arrives at 0.

    Raises:
        SpecError: a column is missing, or a number is none or out of range.
    """
    raw = path.read_bytes()
    rows = csv.reader(io.StringIO((gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")))
    head = next(rows, [])
    for column in COLUMNS:
        if column not in head:
            raise SpecError(path.name, "a column is missing", value=column, limit=f"has {', '.join(head)}")
    when, takes, width = (head.index(column) for column in COLUMNS)
    whose = head.index("cluster") if "cluster" in head else -1
    arrival, seconds, demand, user = [], [], [], []
    for line, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) < len(head):
            raise SpecError(f"{path.name} line {line}", "ends before the last column", value=",".join(row),
                            limit=f"{len(head)} columns")  # fmt: skip
        try:
            arrival.append(datetime.fromisoformat(row[when]).timestamp())
            seconds.append(float(row[takes]))
            demand.append(int(row[width]))
        except ValueError:
            _explain(f"{path.name} line {line}", dict(zip(head, row, strict=False)))
        if not (0 < seconds[-1] < np.inf and demand[-1] > 0):
            _explain(f"{path.name} line {line}", dict(zip(head, row, strict=False)))
        user.append(row[whose] if whose >= 0 else "")
    if not arrival:
        raise SpecError(path.name, "the trace has no jobs", limit="a line a job, below the names of columns")
    users = tuple(dict.fromkeys(user))
    number_of = {name: i for i, name in enumerate(users)}
    begins = np.array(arrival)
    return of(
        begins - begins.min(), demand, seconds, user=[number_of[name] for name in user], users=users, source=path.name
    )


def _explain(where: str, row: dict[str, str]) -> None:
    """Says what is wrong with a row that could not be read."""
    try:
        datetime.fromisoformat(row["timestamp"])
    except ValueError:
        limit = "such as 2017-10-09 07:01:55"
        raise SpecError(f"{where}, column timestamp", "not a time", value=row["timestamp"], limit=limit) from None
    if number((where, row), "duration", 0) == 0:
        raise SpecError(f"{where}, column duration", "out of range", value=row["duration"], limit="above 0 s")
    if number((where, row), "num_gpus", 1) % 1:
        raise SpecError(
            f"{where}, column num_gpus", "not a whole number", value=row["num_gpus"], hint="Write 4, not 4.5"
        )
