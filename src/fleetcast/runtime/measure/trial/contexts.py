"""Synthetic sensor logs of a phone, and the contexts that they were drawn from.

A log is three readings, five minutes apart: steps, speed, light, Wi-Fi, and what the map says is there. All of them
are drawn from the tables below, given the context; no person was ever recorded. Sensors are missing or wrong at times,
so no rule is always right: `likeliest` is the best that can be done, since it knows the tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

Bands = tuple[tuple[float, int, int], ...]
"""Of a whole number: (probability, lowest, highest), even within a band."""
Odds = Mapping[str, float]
"""Of a word: its probability."""
READINGS: Final = 3
MINUTES: Final = 5
"""Between two readings."""
ARROW: Final = " =>"
"""Ends the text of a log; the model goes on from there."""


@dataclass(frozen=True)
class Habit:
    """How a context shows.

    Attributes:
        weight: how often it occurs, relative.
        hour: of the first reading.
        steps: per minute.
        speed: km/h.
        light: lux.
        wifi: network in reach.
        place: what the map says is there.
        stories: sentences that describe it, "{part}" being the part of the day.
    """

    weight: float
    hour: Bands
    steps: Bands
    speed: Bands
    light: Bands
    wifi: Odds
    place: Odds
    stories: tuple[str, str]


STILL: Bands = ((0.8, 0, 0), (0.2, 1, 20))
STROLL: Bands = ((0.5, 0, 20), (0.5, 21, 90))
WALK: Bands = ((0.85, 80, 125), (0.15, 0, 79))
SLOW: Bands = ((0.9, 0, 1), (0.1, 2, 9))
OUTSIDE: Bands = ((0.7, 500, 999), (0.3, 50, 499))
INSIDE: Bands = ((0.8, 50, 499), (0.2, 0, 49))
DIM: Bands = ((0.6, 0, 49), (0.4, 50, 299))

HABITS: Final[Mapping[str, Habit]] = {
    "walking to work": Habit(
        1.0, ((1.0, 7, 9),), WALK, ((0.8, 3, 7), (0.2, 0, 2)), OUTSIDE,
        {"none": 0.6, "public": 0.3, "work": 0.1}, {"street": 0.6, "unknown": 0.2, "shop": 0.1, "park": 0.1},
        ("A walk to work on foot in the {part}.", "On the way to work, walking, in the {part}."),
    ),
    "commuting by train": Habit(
        1.2, ((0.5, 7, 9), (0.5, 16, 18)), STILL, ((0.7, 40, 120), (0.3, 0, 39)), INSIDE,
        {"none": 0.5, "public": 0.5}, {"rail": 0.5, "unknown": 0.3, "street": 0.1, "road": 0.1},
        ("A train ride in the {part}.", "Riding the train between home and work in the {part}."),
    ),
    "commuting by car": Habit(
        1.2, ((0.5, 7, 9), (0.5, 16, 18)), STILL, ((0.75, 20, 90), (0.25, 0, 19)), ((0.5, 50, 499), (0.5, 500, 999)),
        {"none": 0.8, "public": 0.2}, {"road": 0.45, "unknown": 0.25, "street": 0.2, "rail": 0.1},
        ("A drive by car in the {part}.", "Driving between home and work in the {part}."),
    ),
    "working in the office": Habit(
        1.6, ((1.0, 9, 17),), STILL, SLOW, INSIDE,
        {"work": 0.6, "none": 0.3, "public": 0.1}, {"office": 0.5, "unknown": 0.3, "street": 0.1, "food": 0.1},
        ("Work at a desk in the {part}.", "Sitting in the office and working in the {part}."),
    ),
    "having lunch": Habit(
        0.8, ((1.0, 11, 14),), STROLL, SLOW, ((0.7, 50, 499), (0.3, 500, 999)),
        {"public": 0.5, "none": 0.3, "work": 0.2}, {"food": 0.45, "unknown": 0.3, "shop": 0.1, "office": 0.15},
        ("A meal at midday.", "Lunch with a short stroll at midday."),
    ),
    "shopping": Habit(
        0.9, ((0.4, 10, 14), (0.6, 15, 20)), STROLL, ((0.8, 0, 3), (0.2, 4, 7)), INSIDE,
        {"public": 0.6, "none": 0.4}, {"shop": 0.5, "unknown": 0.25, "street": 0.15, "food": 0.1},
        ("A tour of the shops in the {part}.", "Buying groceries and other things in the {part}."),
    ),
    "running in the park": Habit(
        0.7, ((0.4, 6, 9), (0.6, 16, 20)), ((0.85, 140, 180), (0.15, 80, 139)), ((0.85, 7, 14), (0.15, 0, 6)), OUTSIDE,
        {"none": 0.9, "public": 0.1}, {"park": 0.5, "street": 0.2, "unknown": 0.3},
        ("A run through the park in the {part}.", "Running outside at a steady pace in the {part}."),
    ),
    "training at the gym": Habit(
        0.7, ((0.3, 6, 9), (0.7, 16, 21)), ((0.4, 0, 20), (0.3, 21, 139), (0.3, 140, 180)), SLOW, INSIDE,
        {"public": 0.6, "none": 0.4}, {"gym": 0.45, "unknown": 0.3, "shop": 0.15, "food": 0.1},
        ("A workout at the gym in the {part}.", "Lifting weights and using the treadmill in the {part}."),
    ),
    "resting at home": Habit(
        1.6, ((0.2, 6, 9), (0.8, 17, 22)), STILL, SLOW, ((0.5, 50, 299), (0.5, 0, 49)),
        {"home": 0.6, "none": 0.3, "public": 0.1}, {"home": 0.5, "unknown": 0.4, "street": 0.1},
        ("Time at home in the {part}.", "Resting on the sofa at home in the {part}."),
    ),
    "walking the dog": Habit(
        0.7, ((0.4, 6, 9), (0.6, 17, 22)), ((0.6, 40, 110), (0.4, 0, 39)), ((0.7, 2, 5), (0.3, 0, 1)),
        ((0.5, 50, 499), (0.25, 500, 999), (0.25, 0, 49)),
        {"none": 0.6, "home": 0.3, "public": 0.1}, {"park": 0.4, "street": 0.3, "unknown": 0.3},
        ("A walk with the dog in the {part}.", "Out with the dog, with many stops, in the {part}."),
    ),
}  # fmt: skip
"""Ten contexts."""


@dataclass(frozen=True)
class Reading:
    """What the sensors say at one time; units as in `Habit`."""

    steps: int
    speed: int
    light: int
    wifi: str
    place: str


@dataclass(frozen=True)
class Log:
    """A log with what it was drawn from.

    Attributes:
        hour: of the first reading.
        readings: in order.
        context: that they were drawn from.
        story: what a good description says, the context first.
    """

    hour: int
    readings: tuple[Reading, ...]
    context: str
    story: str

    def text(self) -> str:
        """Returns the log as the application writes it for the model."""
        rows = [
            f"{self.hour:02d}:{MINUTES * i:02d} steps {r.steps} kmh {r.speed} lux {r.light} wifi {r.wifi} map {r.place}"
            for i, r in enumerate(self.readings)
        ]
        return "\n".join(rows) + ARROW


def logs(count: int, seed: int) -> list[Log]:
    """Returns logs drawn at random; equal arguments give equal logs."""
    draw = np.random.default_rng(seed)
    names = list(HABITS)
    weights = np.array([habit.weight for habit in HABITS.values()])
    return [_log(draw, names[int(i)]) for i in draw.choice(len(names), count, p=weights / weights.sum())]


def part_of_day(hour: int) -> str:
    """Returns the word for an hour."""
    return "morning" if hour < 11 else "midday" if hour < 14 else "afternoon" if hour < 18 else "evening"


def told(text: str) -> str:
    """Returns the context that a text begins with, "" where it is none of them."""
    found = [name for name in HABITS if text.strip().startswith(name)]
    return max(found, key=len, default="")


def likeliest(log: Log) -> str:
    """Returns the context of the highest posterior: what can be told at best from a log."""
    return max(HABITS, key=lambda name: _likelihood(HABITS[name], log))


def _likelihood(habit: Habit, log: Log) -> float:
    total = math.log(habit.weight) + _log_of(_within(habit.hour, log.hour))
    for r in log.readings:
        numbers = ((habit.steps, r.steps), (habit.speed, r.speed), (habit.light, r.light))
        total += sum(_log_of(_within(bands, value)) for bands, value in numbers)
        total += _log_of(habit.wifi.get(r.wifi, 0.0)) + _log_of(habit.place.get(r.place, 0.0))
    return total


def _within(bands: Bands, value: int) -> float:
    return sum(p / (high - low + 1) for p, low, high in bands if low <= value <= high)


def _log_of(probability: float) -> float:
    return math.log(probability) if probability else -math.inf


def _log(draw: np.random.Generator, context: str) -> Log:
    habit = HABITS[context]
    hour = _number(draw, habit.hour)
    readings = tuple(
        Reading(
            _number(draw, habit.steps), _number(draw, habit.speed), _number(draw, habit.light),
            _word(draw, habit.wifi), _word(draw, habit.place),
        )
        for _ in range(READINGS)
    )  # fmt: skip
    story = habit.stories[int(draw.integers(2))].format(part=part_of_day(hour))
    return Log(hour, readings, context, f" {context}. {story}")


def _number(draw: np.random.Generator, bands: Bands) -> int:
    _, low, high = bands[int(draw.choice(len(bands), p=[p for p, _, _ in bands]))]
    return int(draw.integers(low, high + 1))


def _word(draw: np.random.Generator, odds: Odds) -> str:
    return str(draw.choice(list(odds), p=list(odds.values())))
