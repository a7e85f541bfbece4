"""The answers of the packaged questions, computed anew from their texts alone.

Shares no code and no table with the generator: figures are read out of the sentence, dates go through `datetime`,
cities through the system's time zone database, and floats are used where the generator has fractions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from math import prod
from typing import Any
from zoneinfo import ZoneInfo

from fleetcast.runtime.measure.quality.items import Item

CITY = {
    "Tokyo": "Asia/Tokyo", "New Delhi": "Asia/Kolkata", "Dubai": "Asia/Dubai", "Nairobi": "Africa/Nairobi",
    "Johannesburg": "Africa/Johannesburg", "Reykjavik": "Atlantic/Reykjavik", "Singapore": "Asia/Singapore",
    "Brisbane": "Australia/Brisbane", "Kathmandu": "Asia/Kathmandu", "Bangkok": "Asia/Bangkok", "Lagos": "Africa/Lagos",
    "Bogota": "America/Bogota", "Phoenix": "America/Phoenix", "Honolulu": "Pacific/Honolulu",
}  # fmt: skip
PER = {
    "kilometres are miles": 1.609344, "kilograms are pounds": 0.45359237, "centimetres are inches": 2.54,
    "metres are feet": 0.3048, "metres per second are kilometres per hour": 1 / 3.6,
    "litres are US gallons": 3.785411784, "grams are ounces": 28.349523125,
}  # fmt: skip
SEASONS = (1, 7)


def _found(pattern: str, text: str) -> re.Match[str]:
    found = re.search(pattern, text)
    assert found is not None, text
    return found


def figures(text: str) -> list[float]:
    """Returns the numbers in a sentence, in order; thousands may be set apart by a comma."""
    return [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", re.sub(r",(?!\d{3})", "", text))]


def _times(text: str) -> list[int]:
    return [int(h) * 60 + int(m) for h, m in re.findall(r"(\d\d):(\d\d)", text)]


def dates(text: str) -> list[datetime]:
    """Returns the dates in a sentence, in order."""
    return [datetime.strptime(d, "%d %B %Y") for d in re.findall(r"\d{1,2} [A-Z][a-z]+ \d{4}", text)]


def _zone(text: str) -> str:
    (here, there), (at,) = _found(r"in ([A-Z][\w ]+)\. .* in ([A-Z][\w ]+)\?", text).groups(), _times(text)
    found = set()
    for month in SEASONS:
        day = datetime(2025, month, 15, at // 60, at % 60, tzinfo=ZoneInfo(CITY[here])).astimezone(
            ZoneInfo(CITY[there])
        )
        found.add(f"{day:%H:%M}")
    (one,) = found  # neither city changes its clocks
    return one


def _roman(text: str) -> int:
    values = [{"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}[c] for c in text]
    return sum(-v if any(w > v for w in values[i + 1 : i + 2]) else v for i, v in enumerate(values))


def _units(text: str) -> float:
    (amount,) = figures(text.replace("to one decimal", ""))
    other, one = _found(r"How many (.+) are [\d.,]+ (.+), to", text).groups()
    return amount * PER[f"{other} are {one}"]


def _duration(minutes: float) -> str:
    return f"{int(minutes // 60)} h {int(minutes % 60):02} min"


def _day_after(text: str) -> str:
    names = [f"{datetime(2024, 1, 1) + timedelta(i):%A}" for i in range(7)]
    return names[(names.index(_found(r"is (\w+)\.", text)[1]) + int(figures(text)[0])) % 7]


def _date_after(text: str) -> str:
    (start,) = dates(text)
    end = start.replace(tzinfo=UTC).timestamp() + 86_400 * figures(text)[0]
    day = datetime.fromtimestamp(end, UTC)
    return f"{day.day} {day:%B} {day.year}"


def _parts(text: str) -> float:
    a, b, total = figures(text)
    return total / (a + b) * a


def _compound(text: str) -> float:
    total, percent, years = figures(text)
    for _ in range(int(years)):
        total += total * percent / 100
    return total


def _dice(text: str) -> int:
    wanted = figures(text)[-1]
    return sum(a + b == wanted for a in range(1, 7) for b in range(1, 7))


def _blood(text: str) -> list[str]:
    """Antigens as sets: a receiver takes cells whose antigens are all its own."""
    groups = {"O": set(), "A": {"A"}, "B": {"B"}, "AB": {"A", "B"}}
    receiver = groups[_found(r"of group (\w+) be", text)[1]]
    return [name for name, antigens in groups.items() if antigens <= receiver]


def _pace(text: str) -> str:
    km, minutes, seconds, *_ = figures(text)
    whole = round((minutes * 60 + seconds) / km)
    return f"{whole // 60}:{whole % 60:02} min"


def _on(rule: Callable[..., Any]) -> Callable[[str], Any]:
    return lambda text: rule(*figures(text))


ANSWER: Mapping[str, Callable[[str], Any]] = {
    "recipe": _on(lambda a, grams, b: grams / a * b),
    "cups": _on(lambda ml, cups: ml * cups),
    "spoons": _on(lambda ml, small, big, little: ml * big + small * little),
    "oven": _on(lambda f: (f - 32) / 1.8),
    "roast": lambda t: _duration(figures(t)[0] * figures(t)[3] * 1000 / figures(t)[1] + figures(t)[2]),
    "ratio": _parts,
    "kcal": _on(lambda fat9, other4, fat, carbs, protein: fat9 * fat + other4 * carbs + other4 * protein),
    "portion": _on(lambda kcal, per, grams: kcal / per * grams),
    "dose": _on(lambda per, weight, tablet: per * weight),
    "bmi": _on(lambda kg, cm: kg / (cm / 100) ** 2),
    "pulse": _on(lambda most, share, age: (most - age) * share / 100),
    "pace": _pace,
    "steps": _on(lambda cm, count: cm * count / 1e5),
    "league": _on(lambda win, draw, loss, w, d, _: win * w + draw * d),
    "basket": _on(lambda threes, twos, ones: threes * 3 + twos * 2 + ones),
    "paint": _on(lambda litre, coats, wide, high: coats * wide * high / litre),
    "tiles": _on(lambda side, long, wide: (long * 100 / side) * (wide * 100 / side)),
    "slope": _on(lambda rise, run: rise / run * 100),
    "power": _on(lambda watts, hours, cents: watts / 1000 * hours * cents / 100),
    "litres": _on(lambda *sides: prod(sides) / 1000),
    "fence": _on(lambda long, wide, gap: len([*range(0, int(2 * (long + wide)), int(gap))])),
    "stitches": _on(lambda gauge, per, wide: gauge / per * wide),
    "ends": lambda t: f"{datetime(2025, 1, 1) + timedelta(minutes=_times(t)[0] + figures(t)[0]):%H:%M}",
    "lasts": lambda t: _duration(_times(t)[1] - _times(t)[0]),
    "weekday": _day_after,
    "later": _date_after,
    "between": lambda t: (dates(t)[1] - dates(t)[0]).days,
    "zones": _zone,
    "drive": _on(lambda km, speed: _duration(km / speed * 60 + 1e-9)),
    "fuel": _on(lambda use, per, km, price: use / per * km * price),
    "exchange": _on(lambda rate, amount: rate * amount),
    "scale": _on(lambda one, scale, cm: scale / one * cm / 1e5),
    "discount": _on(lambda price, off: price * (1 - off / 100)),
    "twice": _on(lambda price, a, b: price * (1 - a / 100) * (1 - b / 100)),
    "unit": _on(lambda grams, price: price / grams * 1000),
    "tax": _on(lambda gross, percent: gross / (1 + percent / 100)),
    "simple": _on(lambda total, years, percent: total * percent / 100 * years),
    "compound": _compound,
    "bill": _on(lambda people, total, tip: (total + total * tip / 100) / people),
    "saving": _on(lambda start, monthly, goal: (goal - start) / monthly),
    "change": _on(lambda old, new: (new / old - 1) * 100),
    "battery": _on(lambda mah, ma: mah / ma),
    "download": _on(lambda mb, rate, bits: mb * bits / rate),
    "plan": _on(lambda per, plan: plan / per),
    "storage": _on(lambda mb, gb, one, per: gb * per / mb),
    "stops": _on(lambda one, denominator, stops: denominator / 2**stops),
    "beats": _on(lambda tempo, each, bars: bars * each / (tempo / 60)),
    "dice": _dice,
    "units": _units,
    "roman": lambda t: _roman(_found(r"written ([IVXLCDM]+) in", t)[1]),
    "blood": _blood,
}
"""The right answer of a question by its family: a text, a number, or a set of names."""


def said(option: str) -> float:
    """Returns the number that an option says, of a time "1/125 s" its denominator."""
    found = figures(option.removeprefix("1/"))
    assert len(found) == 1, option
    return found[0]


def decimals(option: str) -> int:
    """Returns the digits after an option's point."""
    return len(match[1]) if (match := re.search(r"\.(\d+)", option)) else 0


def family(item: Item) -> str:
    """Returns the kind of an item, which begins its id."""
    return item.id.rsplit("-", 1)[0]


def right_options(item: Item) -> list[int]:
    """Returns which options of a computed question are its recomputed answer: one, where all is well."""
    answer = ANSWER[family(item)](item.question)
    if isinstance(answer, list):
        named = [o.replace("only ", "").replace(" and ", ", ").split(", ") for o in item.options]
        right = [set(names) == set(answer) for names in named]
    elif isinstance(answer, str):
        right = [option == answer for option in item.options]
    else:  # half a unit of the last digit shown, and as much again for rounding halves
        right = [abs(said(o) - answer) <= 0.5 * 10 ** -decimals(o) * (1 + 1e-9) for o in item.options]
    return [i for i, yes in enumerate(right) if yes]
