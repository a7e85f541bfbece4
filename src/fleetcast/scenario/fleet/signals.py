"""Signals that a fleet lives under: the carbon intensity of its grid and the price of its devices over time.

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
from fleetcast.scenario.fleet.devices import Device

_FOLDER = Path(__file__).with_name("catalog") / "grids"
_SERIES = ("pjm", "caiso")
_SERIES_ALIASES = {"california": "caiso", "ciso": "caiso"}
_SOURCES = {
    "ember": "Ember yearly electricity data, lifecycle, via Our World in Data (CC-BY-4.0)",
    "google": "Google Cloud, carbon data across regions",
}
_DIRTIEST = 100_000.0
"""Carbon intensity that no grid reaches, g/kWh."""
_PRICES = ("on-demand", "spot")
_TIME_UNITS = {"time_s": 1.0, "time": 1.0, "seconds": 1.0, "time_h": 3600.0, "hour": 3600.0}


@dataclass(frozen=True)
class _Kind:
    """What a file's values are: their unit, the name of their column and its other spellings."""

    unit: str
    column: str
    spellings: tuple[str, ...]


_INTENSITY = _Kind("g/kWh", "intensity", ("avg_ci", "g/kwh", "gco2/kwh"))
_PRICE = _Kind("$/h", "price", ("$/h", "usd/h", "usd"))
_SUN = _Kind("W/m2", "irradiance", ("gtifixedtilt", "gti", "ghi", "w/m2"))


@dataclass(frozen=True)
class Signal:
    """A step function of time that repeats.

    Attributes:
        times: when each value begins (s), ascending from 0. values: gCO2e/kWh, or $/h.
        span: length of one period (s); infinite for a constant.
        sums: integral of the values from 0 to each time (s x the values' unit).
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

    @property
    def average(self) -> float:
        """The mean over one period."""
        return self.mean(0.0, self.span)

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
        return _file((base or Path()) / grid, path, _INTENSITY)
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
            hint=closest(key, known),
        )  # fmt: skip
    return found


def price(asked: str | float, device: Device, base: Path | None = None, path: str = "fleet.price") -> Signal:
    """Returns the price ($/h) of one device over time.

    Args:
        asked: a number in $/h, ``"2.50 $/h"``, ``"spot"`` or ``"on-demand"`` (the catalogue's), or a CSV file (.csv,
            .csv.gz) with a time column, as a grid's, and a price column.
        device: what is priced.
        base: folder that a relative file starts from.
        path: where it stands, for errors.

    Raises:
        SpecError: unreadable, negative, or a price that the catalogue does not have.
    """
    if isinstance(asked, str) and asked.endswith((".csv", ".csv.gz")):
        return _file((base or Path()) / asked, path, _PRICE)
    if not isinstance(asked, str):
        return constant(asked, "the scenario")
    key = _key(asked)
    if key not in _PRICES:
        raise SpecError(
            path, "is not a price", value=asked, limit=f'"2.50 $/h", {", ".join(_PRICES)}, or a CSV file',
            hint=closest(key, _PRICES),
        )  # fmt: skip
    value, source, date = (
        (device.spot_price, device.spot_source, device.spot_date) if key == "spot"
        else (device.price, device.price_source, device.price_date)
    )  # fmt: skip
    if value is None:
        raise SpecError(
            path, f"is not known for {device.id}", value=asked, hint='Write a number, e.g. "1.00 $/h", or a CSV file'
        )
    return constant(value, f"{source}, {date}")


def sun(file: str, base: Path | None = None, path: str = "solar") -> Signal:
    """Returns the sun on a panel over time, W/m2, of a CSV file (.csv, .csv.gz).

    Args:
        file: with a time column, as a grid's, and one of irradiance in W/m2 (Solcast's ``GtiFixedTilt`` too).
        base: folder that a relative file starts from.
        path: where it stands, for errors.

    Raises:
        SpecError: unreadable or negative.
    """
    return _file((base or Path()) / file, path, _SUN)


def constant(value: float, source: str) -> Signal:
    """Returns a price ($/h) that never changes."""
    return _build(f"{value:g} $/h", [0.0], [value], math.inf, source)


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
    return _parse(name, text.splitlines(), file.name, source, _INTENSITY)


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


def _file(file: Path, path: str, kind: _Kind) -> Signal:
    try:
        if file.suffix == ".gz":
            with gzip.open(file, "rt", encoding="utf-8-sig") as lines:
                return _parse(file.name, lines, str(file), str(file), kind)
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return _parse(file.name, lines, str(file), str(file), kind)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise SpecError(path, problem, value=str(file), hint="Check the path") from None


def _parse(name: str, lines: Iterable[str], file: str, source: str, kind: _Kind) -> Signal:
    rows = csv.reader(_plain(lines))
    head = next(rows, None)
    if head is None:
        raise SpecError(file, "is empty", limit=f"columns time_s,{kind.column}")
    when, what = _columns([cell.strip().lower() for cell in head], file, kind)
    times: list[float] = []
    values: list[float] = []
    for number, row in enumerate(rows, 1):
        place = f"{file}, row {number}"
        if len(row) <= max(when, what):
            raise SpecError(place, "is short", value=",".join(row), limit=f"{len(head)} columns")
        times.append(_time(row[when], head[when].strip().lower(), place))
        values.append(parse(row[what], kind.unit, place))
        if values[-1] < 0:
            raise SpecError(place, "is negative", value=row[what], limit=f"at least 0 {kind.unit}")
        if len(times) > 1 and times[-1] <= times[-2]:
            raise SpecError(place, "does not come after the row above", value=row[when], limit="times ascend")
    if not times:
        raise SpecError(file, "has no rows", limit=f"at least one time and {kind.column}")
    if len(times) == 1:
        return _build(name, [0.0], values, math.inf, source)
    times = [time - times[0] for time in times]
    return _build(name, times, values, 2 * times[-1] - times[-2], source)


def _plain(lines: Iterable[str]) -> Iterator[str]:
    return (line for line in lines if line.strip() and not line.startswith("#"))


def _columns(head: list[str], file: str, kind: _Kind) -> tuple[int, int]:
    when = [i for i, cell in enumerate(head) if cell in _TIME_UNITS or cell.startswith(("time", "date", "periodstart"))]
    what = [i for i, cell in enumerate(head) if kind.column in cell or cell in kind.spellings]
    if not when or not what:
        raise SpecError(
            file, f"has no time and {kind.column} columns", value=",".join(head),
            limit=f"time_s, time_h or timestamp; and {kind.column} in {kind.unit}",
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
