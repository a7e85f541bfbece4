"""Readers of the two traces of Azure Functions, by their columns.

2021 (Zhang and others, SOSP 2021): a row per invocation, ``app,func,end_timestamp,duration``, s.
2019 (Shahrad and others, ATC 2020): a row per function with its trigger and how often it was invoked in each minute,
``HashFunction,Trigger,1,...,1440``; beside it tables of durations (ms, percentiles) and memory (MB). Within a minute
arrivals are drawn evenly, durations from their percentiles: that is ours, the file does not say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.base.rng import rng
from fleetcast.scenario.workload.invocations.tables import Table, numbered, read_table
from fleetcast.scenario.workload.invocations.trace import Invocations, assemble

Array = NDArray[np.float64]
MOST = 100_000_000
"""Most invocations that a trace may have."""
LEVELS = (0, 1, 25, 50, 75, 99, 100)
AWAITED = ("http",)
"""Triggers of 2019 whose caller waits for the answer; unknown ones are taken to be of that kind too."""


@dataclass(frozen=True)
class Beside:
    """What a trace may leave to other keys: files of durations and memory, B of a pod where none is known."""

    durations: str = ""
    memories: str = ""
    memory: float = 128e6


def read_azure(path: Path, *, seed: int = 0, beside: Beside = Beside(), name: str = "") -> Invocations:
    """Returns the trace of a file in either schema.

    Args:
        path: .csv or .csv.gz.
        seed: of what the file leaves open.
        beside: other files, relative to the first one's folder.
        name: what errors call the file.

    Raises:
        SpecError: unreadable, columns of neither schema, or a value that cannot be; names row and function.
    """
    table = read_table(path, name)
    if table.has("func", "end_timestamp", "duration"):
        return _rows(table, beside)
    if table.has("HashFunction", "1"):
        return _counts(table, path.parent, seed, beside)
    raise SpecError(
        table.name, "has columns of no known trace", value=",".join(table.head[:8]),
        limit="app,func,end_timestamp,duration (Azure 2021) or HashFunction,Trigger,1,...,1440 (Azure 2019)",
    )  # fmt: skip


def _rows(table: Table, beside: Beside) -> Invocations:
    names, function = numbered(table.texts("func"))
    end, duration = np.array(table.numbers("end_timestamp")), np.array(table.numbers("duration"))
    begin = end - duration
    # end and duration are rounded each: the first may begin a hair before the trace does
    return assemble(
        names=names, function=function, time=np.maximum(begin - min(0.0, float(begin.min())), 0.0), duration=duration,
        memory=beside.memory, source=f"{table.name}, Azure Functions 2021", path=table.name,
    )  # fmt: skip


def _counts(table: Table, folder: Path, seed: int, beside: Beside) -> Invocations:
    minutes = [column for column in table.head if column.isdigit()]
    names, of = numbered(table.texts("HashFunction"))
    if len(names) < len(of):
        raise SpecError(table.name, "names a function twice", value=names[np.bincount(of).argmax()],
                        limit="one row each", hint="Join its rows")  # fmt: skip
    counts = np.array([table.numbers(minute, empty=0.0) for minute in minutes])
    if not (counts == np.floor(counts)).all() or counts.sum() > MOST:
        problem = "has too many invocations" if counts.sum() > MOST else "counts no whole invocations"
        raise SpecError(table.name, problem, value=float(counts.sum()), limit=f"whole numbers, at most {MOST:,} in all",
                        hint="Leave out functions or minutes")  # fmt: skip
    triggers, trigger = numbered(table.texts("Trigger") if table.has("Trigger") else ["unknown"] * len(names))
    draw = rng(seed, "functions", "azure")
    each = counts.T.astype(np.int64)
    function = np.repeat(np.arange(len(names)), each.sum(axis=1))
    minute = np.concatenate([np.repeat(np.arange(len(minutes)), row) for row in each])
    begin = 60.0 * (minute + draw.random(len(minute)))
    waited = np.array([kind in AWAITED or kind == "unknown" for kind in triggers])
    return assemble(
        names=names, function=function, time=begin,
        duration=_durations(names, function, draw.random(len(function)), folder, beside, table.name),
        memory=_memories(names, folder, beside), trigger=trigger, triggers=triggers,
        asynchronous=~waited[np.array(trigger)], span=60.0 * len(minutes),
        source=f"{table.name}, Azure Functions 2019, arrivals even within minutes", path=table.name,
    )  # fmt: skip


def _durations(
    names: tuple[str, ...], function: NDArray[np.int64], level: Array, folder: Path, beside: Beside, called: str
) -> Array:  # fmt: skip
    if not beside.durations:
        raise SpecError(
            "workload.durations", "is missing", limit="the trace's table of durations, as it counts invocations only",
            hint=f'Write durations = "durations.csv", a file beside {called}',
        )  # fmt: skip
    table = read_table(folder / beside.durations, beside.durations)
    rows = dict(zip(table.texts("HashFunction"), range(len(table.rows)), strict=True))
    knots = np.array([table.numbers(f"percentile_Average_{level}") for level in LEVELS]).T / 1e3
    if (np.diff(knots, axis=1) < 0).any():
        bad = int(np.argmax((np.diff(knots, axis=1) < 0).any(axis=1)))
        raise SpecError(f"{table.name}, row {bad + 1}", "has percentiles that fall", limit="percentiles in order")
    usual = np.median(knots, axis=0)  # of a function that the table lacks
    at = np.array([rows.get(name, -1) for name in names])
    table_of = np.where(at[:, None] >= 0, knots[np.maximum(at, 0)], usual)
    found = np.empty(len(function))
    for f in range(len(names)):
        mine = function == f if len(names) < 64 else slice(*np.searchsorted(function, [f, f + 1]))
        found[mine] = np.interp(level[mine], np.array(LEVELS) / 100.0, table_of[f])
    return found


def _memories(names: tuple[str, ...], folder: Path, beside: Beside) -> Array:
    if not beside.memories:
        return np.full(len(names), beside.memory)
    table = read_table(folder / beside.memories, beside.memories)
    rows = dict(zip(table.texts("HashFunction"), table.numbers("AverageAllocatedMb"), strict=True))
    return np.array([1e6 * rows[name] if name in rows else beside.memory for name in names])
