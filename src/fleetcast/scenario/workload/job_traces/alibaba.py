"""Alibaba's trace of disaggregated recommendation services (2025, published with NSDI '25): CSV of instances.

An instance with devices that was created and deleted within the trace is a job of that length; the others, which run
before or after it, and those without devices are left out. Services are long and few: what they ask of a scheduler is
room, not speed.
"""

from __future__ import annotations

from pathlib import Path

from fleetcast.base.errors import SpecError
from fleetcast.scenario.workload.job_traces.tables import number, table
from fleetcast.scenario.workload.jobs import Jobs, of

COLUMNS = ("instance_sn", "app_name", "gpu_request", "creation_time", "deletion_time")


def read(path: Path) -> Jobs:
    """Returns the instances that began and ended, in order of arrival.

    Raises:
        SpecError: a column is missing, a number is none or out of range, or no instance began and ended.
    """
    rows = [row for row in table(path, COLUMNS) if row[1]["creation_time"].strip() and row[1]["deletion_time"].strip()]
    rows = [row for row in rows if "nan" not in (row[1]["creation_time"].lower(), row[1]["deletion_time"].lower())]
    rows = [row for row in rows if number(row, "gpu_request", 0) >= 1]
    if not rows:
        raise SpecError(path.name, "no instance with devices began and ended in the trace", limit="one at least")
    begin = [number(row, "creation_time", 0) for row in rows]
    end = [number(row, "deletion_time", 0) for row in rows]
    for (where, row), a, b in zip(rows, begin, end, strict=True):
        if b <= a:
            raise SpecError(
                f"{where}, column deletion_time",
                "is not after creation_time",
                value=row["deletion_time"],
                limit="above it",
            )
    users = tuple(dict.fromkeys(row["app_name"] for _, row in rows))
    return of(
        begin, [int(number(row, "gpu_request", 1)) for row in rows], [b - a for a, b in zip(begin, end, strict=True)],
        names=[row["instance_sn"] for _, row in rows], user=[users.index(row["app_name"]) for _, row in rows],
        users=users, source=path.name,
    )  # fmt: skip
