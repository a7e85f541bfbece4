"""Weeks of traffic for a row of servers, built from one hour of a trace: synthetic, and labelled so.

The hour gives lengths (drawn from its requests) and the swing from minute to minute (its own minutes, entered at
another place each hour). What an hour cannot know is stated by `Shape`: the day, the weekend, and how days differ.
Every server has a stream of its own, so a longer row contains the shorter one's traffic; the swings are the row's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.base.rng import rng
from fleetcast.base.spec import Spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.scenario.workload.requests import Requests

DAY, MINUTE = 86_400.0, 60.0
LEAST = 10
"""Minutes a trace must last for its swing to be known."""


class Shape(Spec):
    """How load changes over a week: synthetic, no public trace of a week was at hand.

    Attributes:
        trough: load at night over that at the daily peak.
        weekend: load at weekends over that on weekdays.
        spread: standard deviation of log(load) from day to day.
        peak: hour of the daily peak.
    """

    trough: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.35
    weekend: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.75
    spread: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.04
    peak: Annotated[float, msgspec.Meta(ge=0, lt=24)] = 14.0


@dataclass(frozen=True, eq=False)
class Weeks:
    """Requests of the servers of a row; those of server i are ``first[i]`` to ``first[i + 1]``, in order of arrival.

    Attributes:
        arrival: float64[n], s.
        sample: int32[n], which request of the hour it is as long as.
        first: int64[servers + 1].
        prompt: int64[samples], tokens.
        output: int64[samples], tokens.
        duration: s.
    """

    arrival: NDArray[np.float64]
    sample: NDArray[np.int32]
    first: NDArray[np.int64]
    prompt: NDArray[np.int64]
    output: NDArray[np.int64]
    duration: float

    @property
    def servers(self) -> int:
        """How many servers."""
        return len(self.first) - 1


def swing(hour: Requests) -> NDArray[np.float64]:
    """Returns load by minute over the mean, float64[minutes], of an hour (or whatever the trace lasts).

    Raises:
        SpecError: the trace has no times, or lasts less than ten minutes.
    """
    minutes = int(hour.duration // MINUTE)
    if hour.concurrency or minutes < LEAST:
        raise SpecError(
            "workload.trace", "is too short to show how load swings", value=f"{minutes} min",
            limit=f"at least {LEAST} min of arrivals by the clock",
            hint="Use a longer trace, e.g. azure-conv-2023 without 'requests'",
        )  # fmt: skip
    counts = np.bincount(((hour.arrival - hour.arrival[0]) // MINUTE).astype(np.int64))[:minutes]
    return np.asarray(counts / counts.mean())


def load(minutes: NDArray[np.float64], shape: Shape, days: int, seed: int, week: int = 0) -> NDArray[np.float64]:
    """Returns load by minute over that of a weekday's peak, float64[days * 1440]; day 0 is a Monday.

    Args:
        minutes: from `swing`.
        shape: of days and weeks.
        days: how many.
        seed: of the random streams.
        week: which week; each has streams of its own.
    """
    draw = rng(seed, "weeks", "row", str(week))
    n = days * 1440
    hours = np.arange(n) / MINUTE
    day = (1.0 + np.cos(2.0 * np.pi * (hours - shape.peak) / 24.0)) / 2.0
    level = shape.trough + (1.0 - shape.trough) * day
    of_day = np.exp(shape.spread * draw.standard_normal(days)) * np.where(np.arange(days) % 7 >= 5, shape.weekend, 1.0)
    start = np.repeat(draw.integers(len(minutes), size=days * 24), 60)
    turn = minutes[(start + np.tile(np.arange(60), days * 24)) % len(minutes)]
    return np.asarray(level * np.repeat(of_day, 1440) * turn)


def weeks(
    hour: Requests, *, servers: int, rate: float, days: int = 7, seed: int = 0, week: int = 0,
    shape: Shape | None = None,
) -> Weeks:  # fmt: skip
    """Returns the requests of ``servers`` servers over ``days`` days, each a Poisson process of the row's load.

    Args:
        hour: lengths and minutes.
        servers: of the row.
        rate: requests/s of one server at a weekday's peak, on average over the swing.
        days: how many.
        seed: of the random streams.
        week: which week.
        shape: of days and weeks; default `Shape()`.

    Raises:
        SpecError: the hour is too short.
    """
    mean = load(swing(hour), shape or Shape(), days, seed, week) * (rate * MINUTE)
    start = np.arange(len(mean)) * MINUTE
    arrival, sample = [], []
    for i in range(servers):
        draw = rng(seed, "weeks", "server", str(week), str(i))
        counts = draw.poisson(mean)
        times = np.repeat(start, counts) + draw.random(int(counts.sum())) * MINUTE
        arrival.append(np.sort(times))
        sample.append(draw.integers(len(hour), size=len(times), dtype=np.int32))
    first = np.concatenate([[0], np.cumsum([len(a) for a in arrival])]).astype(np.int64)
    return Weeks(
        np.concatenate([*arrival, np.empty(0)]), np.concatenate([*sample, np.empty(0, np.int32)]), first,
        hour.prompt, hour.output, days * DAY,
    )  # fmt: skip
