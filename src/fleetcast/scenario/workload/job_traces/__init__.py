"""Traces of jobs as others publish them, a file a format: each has ``read(path) -> Jobs``.

`FORMATS` says by which columns a format is known; `read` looks at the file's head. Errors name the line and the column.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fleetcast.base.errors import SpecError, closest
from fleetcast.scenario.workload.job_traces import alibaba, easyscale, gavel, philly, plain, sia
from fleetcast.scenario.workload.jobs import Jobs

FORMATS: Final[dict[str, tuple[tuple[str, ...], Callable[[Path], Jobs]]]] = {
    "philly": (philly.COLUMNS, philly.read),
    "easyscale": (easyscale.COLUMNS, easyscale.read),
    "sia": (("name", "time", "application", "num_replicas"), sia.read),
    "alibaba": (alibaba.COLUMNS, alibaba.read),
    "plain": (("arrival", "devices"), plain.read),
    "gavel": ((), gavel.read),
}
"""Format -> columns by which it is known, and what reads it; Gavel's has no head, its fields are parted by tabs."""


def read(path: Path, form: str = "", called: str = "workload.trace") -> Jobs:
    """Returns the jobs of a file.

    Args:
        path: of the file (.gz or not).
        form: a key of `FORMATS`; "" = what the head says.
        called: where the scenario names it, for errors.

    Raises:
        SpecError: no such file or format, a head that no format has, or anything in it that cannot be.
    """
    if form and form not in FORMATS:
        raise SpecError("workload.format", "is unknown", value=form, limit=f"one of {', '.join(FORMATS)}",
                        hint=closest(form, FORMATS))  # fmt: skip
    try:
        return FORMATS[form or _sniff(path, called)][1](path)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise SpecError(called, problem, value=str(path), hint="Check the path") from None


def _sniff(path: Path, called: str) -> str:
    with (
        gzip.open(path, "rt", encoding="utf-8-sig")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8-sig") as lines
    ):
        head = lines.readline().strip("\r\n")
    if head.count("\t") >= 6:
        return "gavel"
    columns = {cell.strip() for cell in head.split(",")}
    for name, (known, _) in FORMATS.items():
        if known and set(known) <= columns:
            return name
    most = max((n for n in FORMATS if FORMATS[n][0]), key=lambda n: len(columns & set(FORMATS[n][0])))
    lacks = [column for column in FORMATS[most][0] if column not in columns]
    raise SpecError(
        called, f"has the head of no format that is known: nearest is {most}, which lacks {', '.join(lacks)}",
        value=head, limit=f"formats: {', '.join(FORMATS)}",
        hint="Name its columns arrival, devices, seconds; or say workload.format",
    )  # fmt: skip
