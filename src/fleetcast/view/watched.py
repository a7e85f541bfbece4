"""What `fleetcast watch train` reads, finds and shows: spans of ranks, stragglers and hangs, a heat map."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.record import Record
from fleetcast.mining import stragglers
from fleetcast.mining.stragglers import Array
from fleetcast.scenario.finding import Finding
from fleetcast.view import svg

if TYPE_CHECKING:
    from rich.console import RenderableType

COLUMNS = ("rank", "host", "stage", "what", "start_s", "duration_s", "seconds")
NEEDED = 'columns rank and duration_s (a span each: start_s and what too), e.g. "rank,host,what,start_s,duration_s"'
TOP = 1.2
"""Times of the median at which the heat map is at its hottest."""
SHADES = "·░▒▓█"
ROWS, CELLS = 24, 64
"""Most hosts and iterations that a heat map shows; more iterations are averaged."""


@dataclass(frozen=True)
class Log:
    """What ranks logged: spans, and of each rank its host and its stage; "" where the file names none."""

    record: Record
    hosts: tuple[str, ...]
    stages: tuple[str, ...]


@dataclass(frozen=True)
class Watched:
    """What was found, and what it was found in.

    Attributes:
        findings: hangs first, then stragglers, the surest first.
        heat: f8[hosts, iterations], mean computation of a host over the median host's.
        hosts: their names, the slowest first.
        ranks: looked at.
        iterations: that all ranks finished.
    """

    findings: tuple[Finding, ...]
    heat: Array
    hosts: tuple[str, ...]
    ranks: int
    iterations: int

    def table(self) -> dict[str, Any]:
        """Returns it as a table for JSON."""
        found = [finding.table() for finding in self.findings]
        return {"findings": found, "ranks": self.ranks, "iterations": self.iterations}


def watch_train(
    file: str | Path, *, slower: float = 0.1, share: float = 0.005, sure: float = 0.25
) -> Watched:  # fmt: skip
    """Returns the slow and the hanging ranks of a training job.

    Args:
        file: .csv or .json with a row per span: ``rank``, ``duration_s``, and where known ``start_s``, ``what``,
            ``host``, ``stage``. A span without a duration has not ended. Collectives are called as in
            `mining.stragglers.COLLECTIVES`; without ``what`` each row is a step's computation.
        slower: the least slowness that is worth finding, as a share.
        share: of machines that are slow, before anything is seen.
        sure: the least probability of a straggler that is reported.

    Raises:
        SpecError: a file that cannot be read, or too little in it.
    """
    for name, value in (("slower", slower), ("share", share), ("sure", sure)):
        if not 0.0 < value < 1.0:
            raise SpecError(f"--{name}", "is out of range", value=value, limit="above 0, below 1")
    log = read(Path(file))
    hosts = log.hosts if any(log.hosts) else None
    found = stragglers.hangs(log.record, hosts)
    seconds, who = stragglers.compute(log.record)
    if seconds.shape[1] == 0 and found:
        return Watched(tuple(found), np.zeros((0, 0)), (), len(log.hosts), 0)
    names = [log.record.resources[i] for i in who]
    of = [log.hosts[i] for i in who] if hosts else None
    alike = np.unique([log.stages[i] for i in who], return_inverse=True)[1] if any(log.stages) else None
    found += stragglers.stragglers(seconds, names, of, alike=alike, slower=slower, share=share, sure=sure)
    heat, rows = _heat(seconds, of or names, alike)
    return Watched(tuple(found), heat, rows, len(names), seconds.shape[1])


def _heat(seconds: Array, hosts: Sequence[str], alike: Any) -> tuple[Array, tuple[str, ...]]:
    relative = seconds.copy()
    for kind in [0] if alike is None else np.unique(alike):
        rows = slice(None) if alike is None else alike == kind
        relative[rows] /= np.median(relative[rows], axis=0)
    known = tuple(dict.fromkeys(hosts))
    at = np.array([known.index(host) for host in hosts])
    heat = np.stack([np.median(relative[at == i], axis=0) for i in range(len(known))])
    order = np.argsort(-np.median(heat, axis=1), kind="stable")
    return heat[order], tuple(known[i] for i in order)


def read(file: Path) -> Log:
    """Returns the spans of a file.

    Raises:
        SpecError: unreadable, columns missing, or a value that is no number.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        problem = f"cannot be read: {getattr(error, 'strerror', None) or 'not text'}"
        raise SpecError(
            "RECORD", problem, value=str(file), limit="a .csv or .json file", hint="Check the path"
        ) from None
    rows = _json(text, file) if file.suffix == ".json" else list(csv.DictReader(text.splitlines()))
    if not rows:
        raise SpecError("RECORD", "has no rows", value=str(file), limit=NEEDED)
    known = {str(name).strip() for name in rows[0]}
    length = "duration_s" if "duration_s" in known else "seconds"
    if "rank" not in known or length not in known:
        lacking = "rank" if "rank" not in known else "duration_s"
        near = next((hint for name in known if (hint := closest(name, COLUMNS))), "")
        raise SpecError(f"RECORD.{lacking}", "is missing", value=",".join(sorted(known)), limit=NEEDED, hint=near)
    starts = "start_s" in known
    clock: dict[str, float] = {}
    time, duration, resource, what = [], [], [], []
    ranks: dict[str, int] = {}
    kinds: dict[str, int] = {}
    hosts: list[str] = []
    stages: list[str] = []
    for number, row in enumerate(rows, 1):
        rank = _text(row, "rank")
        if rank not in ranks:
            ranks[rank] = len(ranks)
            hosts.append(_text(row, "host"))
            stages.append(_text(row, "stage"))
        place = f"{file}, row {number}"
        taken = _number(row, length, place, math.inf)
        start = _number(row, "start_s", place, math.nan) if starts else clock.get(rank, 0.0)
        if taken < 0 or math.isnan(start):
            problem = "is negative" if taken < 0 else "is missing"
            raise SpecError(f"{place}, {length if taken < 0 else 'start_s'}", problem, limit="seconds, 0 and above")
        clock[rank] = start + (taken if math.isfinite(taken) else 0.0)
        time.append(start)
        duration.append(taken)
        resource.append(ranks[rank])
        what.append(kinds.setdefault(_text(row, "what") or "compute", len(kinds)))
    ones = np.ones(len(time), dtype=np.int64)
    record = Record(
        time=np.array(time), duration=np.array(duration), resource=np.array(resource, dtype=np.int32),
        what=np.array(what, dtype=np.int32), count=ones, items=ones, level=np.zeros(len(time)),
        resources=tuple(ranks), whats=tuple(kinds),
    )  # fmt: skip
    return Log(record, tuple(hosts), tuple(stages))


def _json(text: str, file: Path) -> list[dict[str, Any]]:
    try:
        table = json.loads(text)
    except ValueError as error:
        raise SpecError("RECORD", f"is no JSON: {error}", value=str(file), hint="Write a list of rows") from None
    rows = table.get("spans", table.get("rows")) if isinstance(table, dict) else table
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SpecError("RECORD", "holds no list of rows", value=str(file), limit=NEEDED)
    return rows


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value).strip()


def _number(row: Mapping[str, Any], name: str, place: str, empty: float) -> float:
    said = _text(row, name)
    try:
        value = float(said) if said else empty
    except ValueError:
        raise SpecError(f"{place}, {name}", "is no number", value=said, limit="seconds") from None
    return empty if math.isnan(value) else value


def watch_view(found: Watched, width: int) -> RenderableType:
    """Returns the findings with their evidence, and hosts over iterations as a heat map."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(f"{found.ranks:,} ranks, {found.iterations:,} iterations.", style="dim"), Text()]
    if not found.findings:
        parts += [Text("Nothing found: no rank is slow, none hangs."), Text()]
    for finding in found.findings:
        colour = "bold red" if finding.kind == "hang" else "bold"
        parts.append(
            Text.assemble((f"{finding.kind}: {finding.who}", colour), f" {finding.what} ({finding.sure:.0%} sure)")
        )
        parts += [Text(f"  • {line}", style="dim") for line in finding.evidence] + [Text()]
    if found.heat.size:
        cells = _coarse(found.heat[:ROWS], min(CELLS, max(8, width - 24)))
        parts.append(Text("Computation of each host over the median, iterations from left to right", style="dim"))
        wide = max(len(name) for name in found.hosts[:ROWS])
        for name, row in zip(found.hosts, cells, strict=False):
            marks = "".join(SHADES[_shade(value)] for value in row)
            parts.append(Text(f"{name:>{wide}}  {marks}  {np.median(row) - 1:+.1%}"))
        if len(found.hosts) > ROWS:
            parts.append(Text(f"and {len(found.hosts) - ROWS:,} faster ones", style="dim"))
    return Group(*parts)


def _shade(value: float) -> int:
    return round(max(0.0, min(1.0, (value - 1.0) / (TOP - 1.0))) * (len(SHADES) - 1))


def _coarse(heat: Array, most: int) -> Array:
    """Returns a heat map of at most so many columns, several iterations averaged into one."""
    step = -(-heat.shape[1] // most)
    return np.stack([heat[:, i : i + step].mean(axis=1) for i in range(0, heat.shape[1], step)], axis=1)


def draw_heat(found: Watched) -> str:
    """Returns the heat map as a figure: hosts from the slowest down, iterations to the right."""
    cells = _coarse(found.heat[:ROWS], CELLS)
    rows, columns = cells.shape
    wide, high, left, top = 600.0 / columns, 11.0, 80.0, 30.0
    body = [svg.text(0, 16, "computation of each host over the median host's, the slowest hosts first", "name")]
    for i in range(rows):
        body.append(svg.text(left - 8, top + high * i + 9, found.hosts[i], "tick", "end"))
        for j in range(columns):
            title = f"host {found.hosts[i]}: {cells[i, j] - 1:+.1%}"
            heat = max(0.04, min(1.0, (cells[i, j] - 1.0) / (TOP - 1.0)))
            mark = svg.rect(left + wide * j, top + high * i, wide - 1, high - 1, "band s1", title)
            body.append(mark.replace("<rect ", f'<rect style="fill-opacity:{heat:.2f}" '))
        body.append(svg.text(left + 606, top + high * i + 9, f"{np.median(cells[i]) - 1:+.1%}", "tick"))
    body.append(svg.text(left + 300, top + high * rows + 18, "iterations", "name", "middle"))
    return svg.figure(750, top + high * rows + 30, body, "heat map of hosts over iterations")
