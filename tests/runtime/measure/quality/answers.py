"""The answers of the packaged questions, computed anew from their texts alone.

Shares no code and no table with the generator: figures are read out of the sentence, dates go through `datetime`,
cities through the system's time zone database, and floats are used where the generator has fractions.
"""

import re
from datetime import UTC, datetime, timedelta
from math import prod
from zoneinfo import ZoneInfo

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


def figures(text):
    """Returns the numbers in a sentence, in order; thousands may be set apart by a comma."""
    return [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", re.sub(r",(?!\d{3})", "", text))]


def times(text):
    return [int(h) * 60 + int(m) for h, m in re.findall(r"(\d\d):(\d\d)", text)]


def dates(text):
    return [datetime.strptime(d, "%d %B %Y") for d in re.findall(r"\d{1,2} [A-Z][a-z]+ \d{4}", text)]


def zone(text):
    (here, there), (at,) = re.search(r"in ([A-Z][\w ]+)\. .* in ([A-Z][\w ]+)\?", text).groups(), times(text)
    found = set()
    for month in SEASONS:
        day = datetime(2025, month, 15, at // 60, at % 60, tzinfo=ZoneInfo(CITY[here])).astimezone(
            ZoneInfo(CITY[there])
        )
        found.add(f"{day:%H:%M}")
    (one,) = found  # neither city changes its clocks
    return one


def roman(text):
    values = [{"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}[c] for c in text]
    return sum(-v if any(w > v for w in values[i + 1 : i + 2]) else v for i, v in enumerate(values))


def units(text):
    (amount,) = figures(text.replace("to one decimal", ""))
    other, one = re.search(r"How many (.+) are [\d.,]+ (.+), to", text).groups()
    return amount * PER[f"{other} are {one}"]


def duration(minutes):
    return f"{int(minutes // 60)} h {int(minutes % 60):02} min"


def day_after(text):
    names = [f"{datetime(2024, 1, 1) + timedelta(i):%A}" for i in range(7)]
    return names[(names.index(re.search(r"is (\w+)\.", text)[1]) + int(figures(text)[0])) % 7]


def date_after(text):
    (start,) = dates(text)
    end = start.replace(tzinfo=UTC).timestamp() + 86_400 * figures(text)[0]
    day = datetime.fromtimestamp(end, UTC)
    return f"{day.day} {day:%B} {day.year}"


def parts(text):
    a, b, total = figures(text)
    return total / (a + b) * a


def compound(text):
    total, percent, years = figures(text)
    for _ in range(int(years)):
        total += total * percent / 100
    return total


def dice(text):
    wanted = figures(text)[-1]
    return sum(a + b == wanted for a in range(1, 7) for b in range(1, 7))


def blood(text):
    """Antigens as sets: a receiver takes cells whose antigens are all its own."""
    groups = {"O": set(), "A": {"A"}, "B": {"B"}, "AB": {"A", "B"}}
    receiver = groups[re.search(r"of group (\w+) be", text)[1]]
    return [name for name, antigens in groups.items() if antigens <= receiver]


def pace(text):
    km, minutes, seconds, *_ = figures(text)
    whole = round((minutes * 60 + seconds) / km)
    return f"{whole // 60}:{whole % 60:02} min"


def on(rule):
    return lambda text: rule(*figures(text))


ANSWER = {
    "recipe": on(lambda a, grams, b: grams / a * b),
    "cups": on(lambda ml, cups: ml * cups),
    "spoons": on(lambda ml, small, big, little: ml * big + small * little),
    "oven": on(lambda f: (f - 32) / 1.8),
    "roast": lambda t: duration(figures(t)[0] * figures(t)[3] * 1000 / figures(t)[1] + figures(t)[2]),
    "ratio": parts,
    "kcal": on(lambda fat9, other4, fat, carbs, protein: fat9 * fat + other4 * carbs + other4 * protein),
    "portion": on(lambda kcal, per, grams: kcal / per * grams),
    "dose": on(lambda per, weight, tablet: per * weight),
    "bmi": on(lambda kg, cm: kg / (cm / 100) ** 2),
    "pulse": on(lambda most, share, age: (most - age) * share / 100),
    "pace": pace,
    "steps": on(lambda cm, count: cm * count / 1e5),
    "league": on(lambda win, draw, loss, w, d, _: win * w + draw * d),
    "basket": on(lambda threes, twos, ones: threes * 3 + twos * 2 + ones),
    "paint": on(lambda litre, coats, wide, high: coats * wide * high / litre),
    "tiles": on(lambda side, long, wide: (long * 100 / side) * (wide * 100 / side)),
    "slope": on(lambda rise, run: rise / run * 100),
    "power": on(lambda watts, hours, cents: watts / 1000 * hours * cents / 100),
    "litres": on(lambda *sides: prod(sides) / 1000),
    "fence": on(lambda long, wide, gap: len([*range(0, int(2 * (long + wide)), int(gap))])),
    "stitches": on(lambda gauge, per, wide: gauge / per * wide),
    "ends": lambda t: f"{datetime(2025, 1, 1) + timedelta(minutes=times(t)[0] + figures(t)[0]):%H:%M}",
    "lasts": lambda t: duration(times(t)[1] - times(t)[0]),
    "weekday": day_after,
    "later": date_after,
    "between": lambda t: (dates(t)[1] - dates(t)[0]).days,
    "zones": zone,
    "drive": on(lambda km, speed: duration(km / speed * 60 + 1e-9)),
    "fuel": on(lambda use, per, km, price: use / per * km * price),
    "exchange": on(lambda rate, amount: rate * amount),
    "scale": on(lambda one, scale, cm: scale / one * cm / 1e5),
    "discount": on(lambda price, off: price * (1 - off / 100)),
    "twice": on(lambda price, a, b: price * (1 - a / 100) * (1 - b / 100)),
    "unit": on(lambda grams, price: price / grams * 1000),
    "tax": on(lambda gross, percent: gross / (1 + percent / 100)),
    "simple": on(lambda total, years, percent: total * percent / 100 * years),
    "compound": compound,
    "bill": on(lambda people, total, tip: (total + total * tip / 100) / people),
    "saving": on(lambda start, monthly, goal: (goal - start) / monthly),
    "change": on(lambda old, new: (new / old - 1) * 100),
    "battery": on(lambda mah, ma: mah / ma),
    "download": on(lambda mb, rate, bits: mb * bits / rate),
    "plan": on(lambda per, plan: plan / per),
    "storage": on(lambda mb, gb, one, per: gb * per / mb),
    "stops": on(lambda one, denominator, stops: denominator / 2**stops),
    "beats": on(lambda tempo, each, bars: bars * each / (tempo / 60)),
    "dice": dice,
    "units": units,
    "roman": lambda t: roman(re.search(r"written ([IVXLCDM]+) in", t)[1]),
    "blood": blood,
}
"""The right answer of a question by its family: a text, a number, or a set of names."""


def said(option):
    """Returns the number that an option says, of a time "1/125 s" its denominator."""
    found = figures(option.removeprefix("1/"))
    assert len(found) == 1, option
    return found[0]


def decimals(option):
    """Returns the digits after an option's point."""
    return len(match[1]) if (match := re.search(r"\.(\d+)", option)) else 0
