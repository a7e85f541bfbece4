"""Files of jobs with parameter servers: lists of jobs, and measured speeds."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.files import read_text
from fleetcast.scenario.workload.server_jobs import Kinds, ServerJobs


def read_speeds(path: Path, kinds: Kinds, called: str) -> Kinds:
    """Returns kinds with the speeds of a table; what it leaves out keeps its fitted speed.

    Raises:
        SpecError: no such file, an unknown model, or no number.
    """
    speed = kinds.speed.copy()
    for i, row in enumerate(_rows(path, ("model", "servers", "workers", "steps_per_s"))):
        at = f"{called}, row {i + 1}"
        if row["model"] not in kinds.models:
            raise SpecError(at, "names an unknown model", value=row["model"], limit=", ".join(kinds.models),
                            hint=closest(row["model"], kinds.models))  # fmt: skip
        servers, workers = _number(row, "servers", at), _number(row, "workers", at)
        if min(servers, workers) < 1:
            raise SpecError(
                at, "needs a server and a worker", value=dict(row), limit="1 and 1", hint="Leave the row out"
            )
        if max(servers, workers) <= kinds.most + 1:
            speed[kinds.models.index(row["model"]), int(servers), int(workers)] = _number(row, "steps_per_s", at)
    return replace(kinds, speed=speed, source=called)


def read_jobs(path: Path, kinds: Kinds, called: str) -> ServerJobs:
    """Returns a list of jobs, by slot of arrival.

    Raises:
        SpecError: no such file, an unknown model, no number, or no jobs.
    """
    found = []
    for i, row in enumerate(_rows(path, ("slot", "model"))):
        at = f"{called}, row {i + 1}"
        if row["model"] not in kinds.models:
            raise SpecError(at, "names an unknown model", value=row["model"], limit=", ".join(kinds.models),
                            hint=closest(row["model"], kinds.models))  # fmt: skip
        kind, slot = kinds.models.index(row["model"]), _number(row, "slot", at)
        epochs = _number(row, "epochs", at) if row.get("epochs") else float(kinds.epochs[kind])
        if slot < 0 or slot != int(slot) or epochs <= 0:
            raise SpecError(
                at, "arrives at no slot, or has no work", value=dict(row), limit="a slot from 0, epochs above 0"
            )
        found.append((int(slot), kind, epochs))
    if not found:
        raise SpecError("workload.servers", "holds no jobs", value=called, limit="at least one", hint="slot,model")
    found.sort(key=lambda row: row[0])
    slot_, kind_, epochs_ = zip(*found, strict=True)
    work = np.array(epochs_, float)
    return ServerJobs(kinds, np.array(slot_, np.int32), np.array(kind_, np.int32), work, work, source=called)


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    lines = [line for line in read_text(path).splitlines() if line.strip() and not line.startswith("#")]
    table = csv.DictReader(lines)
    missing = [name for name in columns if name not in (table.fieldnames or ())]
    if missing:
        raise SpecError(str(path), f"has no column '{missing[0]}'", value=list(table.fieldnames or ()),
                        limit=", ".join(columns), hint="The first line names the columns")  # fmt: skip
    return list(table)


def _number(row: dict[str, str], name: str, at: str) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = float("nan")
    if not abs(value) < 1e15:
        raise SpecError(f"{at}, {name}", "is no number", value=row[name], limit="a finite number")
    return value
