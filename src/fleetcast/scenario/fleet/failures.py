"""Failures and preemptions as signals: when each node or device of a group is down.

Either an alternating renewal process (Barlow and Proschan, "Mathematical Theory of Reliability", 1965) whose up times
are exponential with mean ``mtbf`` (Weibull, where ``shape`` is not 1) and whose down times all last ``repair``, or a
list of outages from a file. A replica is down while any unit that it stands on is: with n units it is up
``(mtbf / (mtbf + repair))^n`` of its time. The times of a unit depend on the seed, its group and its number alone:
every plan meets the same failures.
"""

from __future__ import annotations

import bisect
import csv
import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.rng import rng
from fleetcast.base.show import show
from fleetcast.base.spec import Spec
from fleetcast.base.units import Seconds, parse

SHORTEST = 60.0
"""Least mean time between failures of a unit (s): below it few requests would ever be finished."""
_UNITS = {"s": 1.0, "h": 3600.0}

Interval = tuple[float, float]


class Failures(Spec):
    """How the nodes or devices of a group fail and come back: a process, or a file.

    Attributes:
        mtbf: mean time from a repair to the next failure of one node or device, exponential unless ``shape`` is given.
        repair: how long it is down each time: noticing, replacing, starting, loading the weights.
        per: what fails at once: a node with all its devices, or a single device.
        outages: instead of mtbf and repair: a CSV file with the columns node (or device), start_s and end_s (or
            start_h and end_h), e.g. a trace of spot preemptions.
        billed: whether what is down still costs and draws idle power (a failed server of one's own); false = it is
            taken away (a preempted spot instance).
        shape: of a Weibull distribution of the times between failures: below 1 units fail early, above 1 they wear out.
        detect: training alone: from a failure until it is known.
        restart: training alone: from then until all ranks are up again and read their checkpoint.
        spares: training alone: nodes beside those of ``devices``, which take the place of failed ones.
    """

    mtbf: Seconds | None = None
    repair: Seconds | None = None
    per: Literal["node", "device"] = "node"
    outages: str = ""
    billed: bool = True
    shape: Annotated[float, msgspec.Meta(ge=0.1, le=10.0)] = 1.0
    detect: Seconds | None = None
    restart: Seconds | None = None
    spares: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None


@dataclass(frozen=True)
class Outages:
    """When the units of one group are down.

    Attributes:
        group: name of the group, which names the random streams.
        unit: devices that fail at once.
        units: how many such units.
        mtbf: s, mean up time; 0 where outages are listed.
        repair: s, each down time.
        listed: outages (start, end), s, by unit; None = drawn.
        billed: whether what is down still costs and draws idle power.
        shape: of the Weibull distribution of up times; 1 = exponential.
        detect: s until a training job knows of a failure, None = not said.
        restart: s until it is up again, None = not said.
        spares: nodes that may take the place of failed ones, None = not said.
    """

    group: str
    unit: int
    units: int
    mtbf: float
    repair: float
    listed: Mapping[int, tuple[Interval, ...]] | None
    billed: bool
    shape: float = 1.0
    detect: float | None = None
    restart: float | None = None
    spares: int | None = None

    @property
    def of_training(self) -> str:
        """The first key that training alone reads, or ""."""
        return next((name for name in ("detect", "restart", "spares") if getattr(self, name) is not None), "")

    def times(self, unit: int, seed: int) -> Iterator[Interval]:
        """Yields the outages of a unit in order, without end where they are drawn."""
        if self.listed is not None:
            yield from self.listed.get(unit, ())
            return
        stream, time = rng(seed, "failures", self.group, str(unit)), 0.0
        scale = self.mtbf / math.gamma(1.0 + 1.0 / self.shape)
        while True:
            up = stream.exponential(self.mtbf) if self.shape == 1.0 else scale * stream.weibull(self.shape)
            start = time + float(up)
            time = start + self.repair
            yield start, time


class Downtime:
    """When a replica is down: while any of its units is. Outages are drawn as far as they are asked for."""

    def __init__(self, outages: Outages, units: Sequence[int], seed: int) -> None:
        """Takes the group's outages and the units that the replica stands on."""
        self.billed = outages.billed
        self._coming = heapq.merge(*(outages.times(unit, seed) for unit in units))
        self._next: Interval | None = next(self._coming, None)
        self._known: list[Interval] = []

    def after(self, count: int) -> Interval | None:
        """Returns the outage that follows the first ``count``, or None where there is none."""
        while len(self._known) <= count and self._next is not None:
            start, end = self._next
            self._next = next(self._coming, None)
            while self._next is not None and self._next[0] < end:
                end = max(end, self._next[1])
                self._next = next(self._coming, None)
            self._known.append((start, end))
        return self._known[count] if count < len(self._known) else None

    def within(self, start: float, end: float) -> list[Interval]:
        """Returns the outages that overlap [start, end] (s), cut to it."""
        if end <= start:
            return []
        count = len(self._known)
        while (last := self.after(count)) is not None and last[0] < end:
            count += 1
        first = bisect.bisect_right(self._known, start, key=lambda interval: interval[1])
        found = []
        for a, b in self._known[first:]:
            if a >= end:
                break
            found.append((max(a, start), min(b, end)))
        return found


def outages(asked: Failures, group: str, count: int, node: int, base: Path | None, path: str) -> Outages:
    """Returns what ``asked`` means for a group of ``count`` devices, ``node`` to a node.

    Raises:
        SpecError: neither or both of process and file, out of range, or a file that cannot be.
    """
    unit = node if asked.per == "node" else 1
    units = -(-count // unit)
    process = asked.mtbf is not None or asked.repair is not None
    hint = 'Write e.g. { mtbf = "200 h", repair = "10 min" }'
    if process and asked.outages:
        limit = "a process or a file"
        raise SpecError(f"{path}.outages", "stands beside mtbf and repair", value=asked.outages, limit=limit, hint=hint)
    if not process and not asked.outages:
        raise SpecError(path, "has neither mtbf and repair nor outages", limit="one of the two", hint=hint)
    if asked.outages:
        file = (base or Path()) / asked.outages
        listed = _read(file, asked.per, units, f"{path}.outages")
        if asked.shape != 1.0:
            limit = "it shapes a process"
            raise SpecError(
                f"{path}.shape", "stands beside outages", value=asked.shape, limit=limit, hint="Leave it out"
            )
        return Outages(
            group, unit, units, 0.0, 0.0, listed, asked.billed, 1.0, asked.detect, asked.restart, asked.spares
        )  # fmt: skip
    for name in ("mtbf", "repair"):
        if getattr(asked, name) is None:
            raise SpecError(f"{path}.{name}", "is missing", hint="A process needs mtbf and repair")
    mtbf, repair = float(asked.mtbf or 0.0), float(asked.repair or 0.0)
    if mtbf < SHORTEST:
        raise SpecError(
            f"{path}.mtbf", "is too short", value=mtbf, limit=f"at least {duration(SHORTEST)}",
            hint="Requests that take longer would be started again and again",
        )  # fmt: skip
    if not 0.0 < repair <= mtbf:
        raise SpecError(
            f"{path}.repair", "is out of range", value=repair, limit=f"above 0, to the mtbf of {duration(mtbf)}",
            hint="What is down more than up is better described by its outages",
        )  # fmt: skip
    return Outages(
        group, unit, units, mtbf, repair, None, asked.billed, asked.shape, asked.detect, asked.restart, asked.spares
    )  # fmt: skip


def echo(found: Outages) -> str:
    """Returns what was understood, as a sentence."""
    what = "node" if found.unit > 1 else "device"
    kept = "and still paid for" if found.billed else "and neither paid for nor powered"
    if found.listed is None:
        how = (
            f"each {what} fails {duration(found.mtbf)} after its last repair on average (exponential), down for "
            f"{duration(found.repair)}"
        )
    else:
        how = f"{sum(map(len, found.listed.values()))} outages of {found.units} {what}s, from a file; down"
    return f"failures of {found.group}: {how} {kept}"


def duration(seconds: float) -> str:
    """Returns a long time in the unit that people would say."""
    size, unit = next((s, u) for s, u in ((3600.0, "h"), (60.0, "min"), (0.0, "s")) if seconds >= s)
    return f"{show(seconds / (size or 1.0))} {unit}"


def _read(file: Path, per: str, units: int, path: str) -> dict[int, tuple[Interval, ...]]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise SpecError(path, problem, value=str(file), hint="Check the path") from None
    rows = csv.reader(line for line in lines if line.strip() and not line.startswith("#"))
    head = [cell.strip().lower() for cell in next(rows, [])]
    unit = next((u for u in _UNITS if {per, f"start_{u}", f"end_{u}"} <= set(head)), None)
    if unit is None:
        limit = f"columns {per}, start_s, end_s (or start_h, end_h)"
        raise SpecError(str(file), "has no such columns" if head else "is empty", value=",".join(head), limit=limit)
    places = [head.index(name) for name in (per, f"start_{unit}", f"end_{unit}")]
    found: dict[int, list[Interval]] = {}
    for number, row in enumerate(rows, 1):
        place = f"{file}, row {number}"
        if len(row) <= max(places):
            raise SpecError(place, "is short", value=",".join(row), limit=f"{len(head)} columns")
        who = row[places[0]].strip()
        if not who.isdecimal() or int(who) >= units:
            raise SpecError(place, f"names no {per} of the group", value=who, limit=f"0 to {units - 1}")
        start, end = (parse(row[i], "s", place) * _UNITS[unit] for i in places[1:])
        if not 0.0 <= start < end:
            raise SpecError(
                place, "ends before it begins" if start >= 0 else "begins before 0", value=",".join(row),
                limit="0 <= start < end",
            )  # fmt: skip
        found.setdefault(int(who), []).append((start, end))
    if not found:
        raise SpecError(str(file), "has no rows", limit="at least one outage")
    for number, intervals in found.items():
        intervals.sort()
        last = -math.inf
        for start, end in intervals:
            if start < last:
                limit = f"{per} {number} is still down until {last:g} s"
                raise SpecError(str(file), "has outages that overlap", value=f"{start:g} s to {end:g} s", limit=limit)
            last = end
    return {who: tuple(intervals) for who, intervals in found.items()}
