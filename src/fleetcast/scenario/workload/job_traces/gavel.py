"""Gavel's traces: a line a job, tab-separated, with no header.

Either ten fields (job type, command, working directory, argument, needs data, total steps, devices, priority weight,
deadline, arrival s) or seven (job type, command, argument, needs data, total steps, arrival s, devices). Steps are
units of Gavel's throughputs.
"""

from __future__ import annotations

import gzip
from pathlib import Path

from fleetcast.base.errors import SpecError
from fleetcast.scenario.workload.jobs import Jobs, of

FIELDS = {10: (0, 5, 6, 9, 7), 7: (0, 4, 6, 5, None)}  # job type, steps, devices, arrival, weight


def read(path: Path) -> Jobs:
    """Returns the jobs of a trace (.gz or not), in order of arrival.

    Raises:
        SpecError: a line cannot be read, or a number is none or out of range.
    """
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    rows = [_row(f"{path.name} line {n}", line) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not rows:
        raise SpecError(path.name, "the trace has no jobs", limit="a line a job")
    names, steps, devices, arrivals, weights = zip(*rows, strict=True)
    models = tuple(sorted(set(names)))
    return of(
        arrivals, devices, 0.0, model=[models.index(name) for name in names], weight=weights, units=steps,
        models=models, source=path.name,
    )  # fmt: skip


def _row(where: str, line: str) -> tuple[str, float, int, float, float]:
    fields = line.split("\t")
    if len(fields) not in FIELDS:
        raise SpecError(where, "fields are separated by tabs", value=len(fields), limit="7 or 10 of them")
    name, steps, devices, arrival, weight = FIELDS[len(fields)]

    def number(at: int, what: str, least: float) -> float:
        try:
            value = float(fields[at])
        except ValueError:
            raise SpecError(where, f"{what} is no number", value=fields[at], hint=f"field {at + 1}") from None
        if not value >= least or value == float("inf"):
            raise SpecError(where, f"{what} is out of range", value=fields[at], limit=f"at least {least:g}")
        return value

    share = 1.0 if weight is None else number(weight, "priority weight", 1e-9)
    return (
        fields[name],
        number(steps, "total steps", 1),
        int(number(devices, "devices", 1)),
        number(arrival, "arrival", 0),
        share,
    )
