"""Signals that a fleet lives under: the carbon intensity of its grid over time.

A `Signal` is a step function of time: each value holds until the next time; after its span it
begins again, so that a week of data serves a run of any length. Means over a span come from a
running integral, in O(log n).
"""

from __future__ import annotations

import bisect
import contextlib
import csv
import gzip
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import accumulate
from pathlib import Path

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.units import parse

_FOLDER = Path(__file__).with_name("catalog") / "grids"
_SERIES = ("pjm", "caiso")
_SERIES_ALIASES = {"california": "caiso", "ciso": "caiso"}
_SOURCES = {
    "ember": "Ember yearly electricity data, lifecycle, via Our World in Data (CC-BY-4.0)",
    "google": "Google Cloud, carbon data across regions",
}
_DIRTIEST = 100_000.0
"""Carbon intensity that no grid reaches, g/kWh."""
_TIME_UNITS = {"time_s": 1.0, "time": 1.0, "seconds": 1.0, "time_h": 3600.0, "hour": 3600.0}


@dataclass(frozen=True)
class Signal:
    """A step function of time that repeats.

    Attributes:
        times: when each value begins (s), ascending from 0. values: gCO2e/kWh.
        span: length of one period (s); infinite for a constant.
        sums: integral of the values from 0 to each time (s x g/kWh).
        source: where it is from.
    """

    name: str
    times: tuple[float, ...]
    values: tuple[float, ...]
    span: float
    sums: tuple[float, ...]
    source: str

    def at(self, time: float) -> float:
        """Returns the value at ``time`` (s)."""
        return self.values[bisect.bisect_right(self.times, self._phase(time)) - 1]

    def mean(self, start: float, end: float) -> float:
        """Returns the time-weighted mean over [start, end] (s); at one instant, the value there."""
        if len(self.values) == 1 or end <= start:
            return self.at(start)
        return (self._integral(end) - self._integral(start)) / (end - start)

    def _phase(self, time: float) -> float:
        return time % self.span if math.isfinite(self.span) else max(time, 0.0)

    def _integral(self, time: float) -> float:
        periods = math.floor(time / self.span)
        rest = min(max(time - periods * self.span, 0.0), self.span)
        i = bisect.bisect_right(self.times, rest) - 1
        return periods * self.sums[-1] + self.sums[i] + self.values[i] * (rest - self.times[i])


def intensity(signal: Signal, start: float, end: float) -> float:
    """Returns the mean carbon intensity over a span.

    Args:
        signal: gCO2e/kWh over time.
        start: s from the scenario's start.
        end: s, at least ``start``.
    """
    return signal.mean(start, end)


def signal(grid: str | float, base: Path | None = None, path: str = "fleet.grid") -> Signal:
    """Returns the carbon intensity that a scenario's ``grid`` means.

    Args:
        grid: a packaged grid (``"PJM"``, ``"germany"``, ``"us-east4"``), ``"400 g/kWh"``, a number
            in g/kWh, or a CSV file (.csv, .csv.gz) with a time column (``time_s``, ``time_h`` or a
            timestamp) and an intensity column.
        base: folder that a relative file starts from.
        path: where it stands, for errors.

    Raises:
        SpecError: unknown grid, negative or unreadable.
    """
    if isinstance(grid, str) and grid.endswith((".csv", ".csv.gz")):
        return _file((base or Path()) / grid, path)
    if not isinstance(grid, str) or re.match(r"\s*[-+.\d]", grid):
        return _constant(parse(grid, "g/kWh", path), path)
    key = _key(grid)
    key = _SERIES_ALIASES.get(key, key)
    if key in _SERIES:
        return _packaged(key)
    found = _averages().get(key)
    if found is None:
        known = [*_SERIES, *_averages()]
        raise SpecError(
            path, "is not a packaged grid", value=grid,
            limit='a grid such as PJM or germany, a CSV file, or "400 g/kWh"',
            hint=closest(key, known).capitalize(),
        )  # fmt: skip
    return found


def grids() -> dict[str, Signal]:
    """Returns every packaged grid by id: hourly series first, then yearly means."""
    return {name: _packaged(name) for name in _SERIES} | {s.name: s for s in _averages().values()}


def _constant(value: float, path: str) -> Signal:
    if not 0 <= value <= _DIRTIEST:
        raise SpecError(
            path, "is out of range", value=value, limit=f"0 to {_DIRTIEST:,.0f} g/kWh",
            hint="Coal is about 1,000 g/kWh; is the unit right?",
        )  # fmt: skip
    return _build(f"{value:g} g/kWh", [0.0], [value], math.inf, "the scenario")


def _build(name: str, times: list[float], values: list[float], span: float, source: str) -> Signal:
    ends = [*times[1:], span]
    areas = (v * (e - t) for v, t, e in zip(values, times, ends, strict=True)) if len(times) > 1 else ()
    return Signal(name, tuple(times), tuple(values), span, tuple(accumulate(areas, initial=0.0)), source)


@cache
def _packaged(name: str) -> Signal:
    file = _FOLDER / f"{name}.csv"
    text = file.read_text(encoding="utf-8")
    source = " ".join(line[1:].strip() for line in text.splitlines() if line.startswith("#"))
    return _parse(name, text.splitlines(), file.name, source)


@cache
def _averages() -> dict[str, Signal]:
    lines = (_FOLDER / "averages.csv").read_text(encoding="utf-8").splitlines()
    found: dict[str, Signal] = {}
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        source = f"{_SOURCES[row['source']]}, {row['year']}: {row['name']}"
        one = _build(row["id"], [0.0], [float(row["intensity"])], math.inf, source)
        found.update({_key(name): one for name in (row["id"], *row["aliases"].split(";"))})
    return found


def _key(name: str) -> str:
    return re.sub(r"[\s_]+", "-", name.strip().lower())


def _file(file: Path, path: str) -> Signal:
    try:
        if file.suffix == ".gz":
            with gzip.open(file, "rt", encoding="utf-8-sig") as lines:
                return _parse(file.name, lines, str(file), str(file))
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return _parse(file.name, lines, str(file), str(file))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise SpecError(path, problem, value=str(file), hint="Check the path") from None


def _parse(name: str, lines: Iterable[str], file: str, source: str) -> Signal:
    rows = csv.reader(_plain(lines))
    head = next(rows, None)
    if head is None:
        raise SpecError(file, "is empty", limit="columns time_s,intensity")
    when, what = _columns([cell.strip().lower() for cell in head], file)
    times: list[float] = []
    values: list[float] = []
    for number, row in enumerate(rows, 1):
        place = f"{file}, row {number}"
        if len(row) <= max(when, what):
            raise SpecError(place, "is short", value=",".join(row), limit=f"{len(head)} columns")
        times.append(_time(row[when], head[when].strip().lower(), place))
        values.append(parse(row[what], "g/kWh", place))
        if values[-1] < 0:
            raise SpecError(place, "is negative", value=row[what], limit="at least 0 g/kWh")
        if len(times) > 1 and times[-1] <= times[-2]:
            raise SpecError(place, "does not come after the row above", value=row[when], limit="times ascend")
    if not times:
        raise SpecError(file, "has no rows", limit="at least one time and intensity")
    if len(times) == 1:
        return _build(name, [0.0], values, math.inf, source)
    times = [time - times[0] for time in times]
    return _build(name, times, values, 2 * times[-1] - times[-2], source)


def _plain(lines: Iterable[str]) -> Iterator[str]:
    return (line for line in lines if line.strip() and not line.startswith("#"))


def _columns(head: list[str], file: str) -> tuple[int, int]:
    when = [i for i, cell in enumerate(head) if cell in _TIME_UNITS or cell.startswith(("time", "date"))]
    what = [i for i, cell in enumerate(head) if "intensity" in cell or cell in ("avg_ci", "g/kwh", "gco2/kwh")]
    if not when or not what:
        raise SpecError(
            file, "has no time and intensity columns", value=",".join(head),
            limit="time_s, time_h or timestamp; and intensity in g/kWh",
        )  # fmt: skip
    return when[0], what[0]


def _time(text: str, column: str, place: str) -> float:
    if column in _TIME_UNITS:
        with contextlib.suppress(ValueError):
            if math.isfinite(number := float(text)):
                return number * _TIME_UNITS[column]
    try:
        stamp = datetime.fromisoformat(text.strip())
    except ValueError:
        limit = "a number in a column time_s or time_h, or a timestamp such as 2023-01-01 00:00"
        raise SpecError(place, "is not a time", value=text, limit=limit) from None
    return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
