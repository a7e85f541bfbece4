"""EasyScale's trace: elastic jobs of fixed workers, as CSV.

Columns: name, time (arrival s), application, max_parallelism (its virtual workers), batch_size (of each), epochs,
enable_heterogeneous_deterministic (whether kinds may be mixed), preferred_gpu.

Names that come twice are one job, the later line: so the authors' simulator reads it, and 68 lines are 62 jobs.
``models`` are those of `cost.jobs.Virtual`, "application/batch/workers/where/epochs", a model a job.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.scenario.workload.job_traces.tables import number, table
from fleetcast.scenario.workload.jobs import Jobs

COLUMNS = (
    "name", "time", "application", "max_parallelism", "batch_size", "epochs", "enable_heterogeneous_deterministic",
    "preferred_gpu",
)  # fmt: skip


def read(path: Path, *, mixed: bool = True) -> Jobs:
    """Returns the jobs of a trace, in order of arrival.

    Args:
        path: of the file.
        mixed: whether jobs that may run on several kinds do.

    Raises:
        SpecError: a column is missing, or a number is none or out of range.
    """
    last = {row[1]["name"]: row for row in table(path, COLUMNS)}
    rows = sorted(last.values(), key=lambda row: number(row, "time", 0))
    names, models, workers = [], [], []
    for line in rows:
        where, row = line
        if not row["preferred_gpu"]:
            raise SpecError(f"{where}, column preferred_gpu", "empty")
        free = mixed and number(line, "enable_heterogeneous_deterministic", 0) > 0
        count, batch, epochs = (int(number(line, c, 1)) for c in ("max_parallelism", "batch_size", "epochs"))
        names.append(row["name"])
        workers.append(count)
        models.append(f"{row['application']}/{batch}/{count}/{'any' if free else row['preferred_gpu']}/{epochs}")
    order = tuple(sorted(set(models)))
    demand = np.array(workers, np.int32)
    return Jobs(
        arrival=np.array([number(row, "time", 0) for row in rows]), demand=demand, least=np.ones(len(rows), np.int32),
        most=demand, seconds=np.zeros(len(rows)), model=np.array([order.index(m) for m in models], np.int32),
        priority=np.zeros(len(rows), np.int32), weight=np.ones(len(rows)), names=tuple(names), models=order,
        source=path.name,
    )  # fmt: skip
