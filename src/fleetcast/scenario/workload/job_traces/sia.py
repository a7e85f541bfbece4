"""Sia's and Pollux's workloads: CSV with name, time (arrival s), application, num_replicas, batch_size.

A job is a whole training of its application (how long that is, the table of speeds knows); it is elastic from one
device on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.scenario.workload.job_traces.tables import number, table
from fleetcast.scenario.workload.jobs import Jobs

MOST = 64  # devices, as many as the authors' clusters have


def read(path: Path) -> Jobs:
    """Returns the jobs of a workload, in order of arrival.

    Raises:
        SpecError: a column is missing, or a number is none or out of range.
    """
    columns = ("name", "time", "application", "num_replicas")
    rows = sorted(table(path, columns), key=lambda row: number(row, "time", 0))
    models = tuple(sorted({row["application"] for _, row in rows}))
    demand = np.array([number(row, "num_replicas", 1) for row in rows], np.int32)
    if (demand > MOST).any():
        raise SpecError(path.name, "num_replicas is out of range", value=int(demand.max()), limit=f"at most {MOST}")
    return Jobs(
        arrival=np.array([number(row, "time", 0) for row in rows]), demand=demand, least=np.ones(len(rows), np.int32),
        most=np.full(len(rows), MOST, np.int32), seconds=np.zeros(len(rows)),
        model=np.array([models.index(row["application"]) for _, row in rows], np.int32),
        priority=np.zeros(len(rows), np.int32), weight=np.ones(len(rows)), models=models, source=path.name,
        names=tuple(row["name"] for _, row in rows),
    )  # fmt: skip
