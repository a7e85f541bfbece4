"""Sia's and Pollux's workloads: CSV with name, time (arrival s), application, num_replicas, batch_size.

A job is a whole training of its application (how long that is, the table of speeds knows); it is elastic from one
device on.
"""

from __future__ import annotations

from pathlib import Path

from fleetcast.base.errors import SpecError
from fleetcast.scenario.workload.job_traces.tables import number, table
from fleetcast.scenario.workload.jobs import Jobs, of

MOST = 64  # devices, as many as the authors' clusters have


def read(path: Path) -> Jobs:
    """Returns the jobs of a workload, in order of arrival.

    Raises:
        SpecError: a column is missing, or a number is none or out of range.
    """
    rows = table(path, ("name", "time", "application", "num_replicas"))
    models = tuple(sorted({row["application"] for _, row in rows}))
    demand = [int(number(row, "num_replicas", 1)) for row in rows]
    if max(demand) > MOST:
        raise SpecError(path.name, "num_replicas is out of range", value=max(demand), limit=f"at most {MOST}")
    return of(
        [number(row, "time", 0) for row in rows], demand, 0.0, least=1, most=MOST,
        model=[models.index(row["application"]) for _, row in rows], names=tuple(row["name"] for _, row in rows),
        models=models, source=path.name,
    )  # fmt: skip
