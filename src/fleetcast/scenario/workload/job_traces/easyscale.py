"""EasyScale's trace: elastic jobs of fixed workers, as CSV.

Columns: name, time (arrival s), application, max_parallelism (its virtual workers), batch_size (of each), epochs,
enable_heterogeneous_deterministic (whether kinds may be mixed), preferred_gpu.

Names that come twice are one job, the later line: so the authors' simulator reads it, and 68 lines are 62 jobs.
``models`` are those of `cost.jobs.Virtual`, "application/batch/workers/where/epochs", a model a job.
"""

from __future__ import annotations

from pathlib import Path

from fleetcast.base.errors import SpecError
from fleetcast.scenario.workload.job_traces.tables import number, table
from fleetcast.scenario.workload.jobs import Jobs, of

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
    names, models, workers = [], [], []
    for line in last.values():
        where, row = line
        if not row["preferred_gpu"]:
            raise SpecError(f"{where}, column preferred_gpu", "empty", hint="Name a kind of device, v100 say")
        free = mixed and number(line, "enable_heterogeneous_deterministic", 0) > 0
        count, batch, epochs = (int(number(line, c, 1)) for c in ("max_parallelism", "batch_size", "epochs"))
        names.append(row["name"])
        workers.append(count)
        models.append(f"{row['application']}/{batch}/{count}/{'any' if free else row['preferred_gpu']}/{epochs}")
    order = tuple(sorted(set(models)))
    return of(
        [number(row, "time", 0) for row in last.values()], workers, 0.0, least=1,
        model=[order.index(name) for name in models], names=tuple(names), models=order, source=path.name,
    )  # fmt: skip
