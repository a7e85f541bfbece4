"""Families about time, travel, shopping, money, telephones, photographs and units."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from fractions import Fraction

from benchmarks.questions.draft import Draft, Family, clock, counted, hours, money, number, ranked, spread

F = Fraction
COUNT = 14
"""Questions of a family."""
ARITHMETIC = "arithmetic of the figures in the question"
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ZONES = {
    "Tokyo": 540, "New Delhi": 330, "Dubai": 240, "Nairobi": 180, "Johannesburg": 120, "Reykjavik": 0,
    "Singapore": 480, "Brisbane": 600, "Kathmandu": 345, "Bangkok": 420, "Lagos": 60, "Bogota": -300, "Phoenix": -420,
    "Honolulu": -600,
}  # fmt: skip
"""Minutes ahead of UTC; all keep no daylight saving time (IANA time zone database)."""


def _ends() -> Iterator[Draft]:
    for hour, minute, length in spread(COUNT, (9, 14, 18, 19, 20), (5, 15, 35, 50), (85, 95, 110, 145, 160)):
        start = hour * 60 + minute
        text = f"A film of {length} minutes begins at {clock(start)}. When does it end?"
        right = start + length
        yield ranked(text, right, [right + d for d in (60, -60, 40, -40, 10, -10)], clock)


def _lasts() -> Iterator[Draft]:
    for start, length in spread(COUNT, (365, 425, 550, 655, 1030), (95, 140, 155, 205, 290, 345)):
        text = (
            f"A train leaves at {clock(start)} and arrives at {clock(start + length)} on the same day. How long "
            f"does it take?"
        )
        yield ranked(text, length, [length + d for d in (60, -60, 40, -20, 20, -40)], hours)


def _weekday() -> Iterator[Draft]:
    for day, days in spread(COUNT, range(7), (9, 10, 17, 25, 30, 45, 60, 100)):
        text = f"Today is {DAYS[day]}. What day is it in {days} days?"
        right = (day + days) % 7
        yield Draft(text, DAYS[right], tuple(DAYS[(right + d) % 7] for d in (1, -1, 2)))


def _later() -> Iterator[Draft]:
    starts = (date(2024, 2, 20), date(2025, 1, 25), date(2025, 4, 18), date(2025, 8, 27), date(2026, 11, 22))
    for start, days in spread(COUNT, starts, (10, 14, 21, 30, 45)):
        text = f"What date is {days} days after {_said(start)}?"
        right = (start + timedelta(days)).toordinal()
        yield ranked(text, right, [right + d for d in (1, -1, 2, -2, 3, -3)], lambda day: _said(date.fromordinal(day)))


def _between() -> Iterator[Draft]:
    starts = (date(2024, 2, 10), date(2025, 2, 10), date(2025, 5, 28), date(2025, 9, 14), date(2026, 12, 3))
    for start, days in spread(COUNT, starts, (19, 33, 48, 62, 91)):
        text = (
            f"How many days are there from {_said(start)} to {_said(start + timedelta(days))}, not counting the first?"
        )
        yield counted(text, days, (days + 1, days - 1, days + 2, days - 2, days + 3, days - 3), "days")


def _said(day: date) -> str:
    return f"{day.day} {day:%B} {day.year}"


def _zones() -> Iterator[Draft]:
    cities = tuple(ZONES)
    for i, hour, step in spread(COUNT, range(len(cities)), (7, 13, 21), (3, 5)):
        here, there = cities[i], cities[(i + step) % len(cities)]
        apart = ZONES[there] - ZONES[here]
        text = f"It is {clock(hour * 60)} in {here}. What time of day is it in {there}?"
        right = (hour * 60 + apart) % 1440
        wrong = ((hour * 60 - apart) % 1440, right + 60, right - 60, right + 120)
        yield Draft(text, clock(right), tuple(clock(w % 1440) for w in wrong))


def _drive() -> Iterator[Draft]:
    for speed, quarters in spread(COUNT, (40, 60, 80, 100, 120), (3, 5, 6, 7, 9, 10)):
        km = F(speed * quarters, 4)
        text = f"How long do you take for {number(km)} km at a steady {speed} km/h?"
        minutes = quarters * 15
        yield ranked(text, minutes, [minutes + d for d in (30, -15, 15, -30, 60, -20)], hours)


def _fuel() -> Iterator[Draft]:
    for use, km, cents in spread(COUNT, (5, 6, 8), (150, 250, 400, 650), (150, 180, 200)):
        text = (
            f"A car uses {use} litres per 100 km. What does fuel for {km} km cost at ${number(F(cents, 100))} a litre?"
        )
        right = F(use * km * cents, 10_000)
        yield money(text, right, (F(km * cents, 1000), F(use * km, 100), right * 2, right * F(3, 4)))


def _exchange() -> Iterator[Draft]:
    for rate, amount in spread(COUNT, (F(5, 4), F(9, 10), F(8, 5), F(150), F(20)), (40, 80, 120, 250)):
        text = (
            f"One unit of your currency buys {number(rate)} units of another. How many units do {amount} of yours buy?"
        )
        yield counted(text, rate * amount, (amount / rate, amount + rate, rate * amount / 10), "units")


def _scale() -> Iterator[Draft]:
    for one, centimetres in spread(COUNT, (10_000, 25_000, 50_000, 100_000), (3, 4, 6, 8, 12)):
        text = f"On a map with the scale 1 : {one}, two places are {centimetres} cm apart. How far apart are they?"
        right = F(one * centimetres, 100_000)
        yield counted(text, right, (right * 10, right / 10, right * 2), "km")


def _discount() -> Iterator[Draft]:
    for price, off in spread(COUNT, (40, 65, 80, 120, 250), (10, 15, 20, 25, 30, 40)):
        text = f"A jacket costs ${price} and is reduced by {off} %. What do you pay?"
        right = F(price * (100 - off), 100)
        yield money(text, right, (F(price * off, 100), price - off, F(price * (100 + off), 100)))


def _twice() -> Iterator[Draft]:
    for price, first, second in spread(COUNT, (50, 80, 100, 200), (10, 20, 30), (10, 20, 50)):
        text = (
            f"A lamp for ${price} is reduced by {first} %, and the new price again by {second} %. What does it "
            f"cost then?"
        )
        right = F(price * (100 - first) * (100 - second), 10_000)
        yield money(text, right, (F(price * (100 - first - second), 100), F(price * (100 - first), 100), right + 2))


def _unit_price() -> Iterator[Draft]:
    for cents, grams, what in spread(
        COUNT, (180, 240, 320, 450), (150, 200, 400, 750), ("cheese", "coffee", "nuts", "tea")
    ):
        text = f"A pack of {grams} g of {what} costs ${cents / 100:.2f}. What is its price per kilogram?"
        right = F(cents * 10, grams)
        yield money(text, right, (F(cents, 100) * 10, F(cents * grams, 100_000), right / 2, right + 1))


def _tax() -> Iterator[Draft]:
    for percent, net in spread(COUNT, (5, 10, 19, 20, 25), (40, 60, 80, 150)):
        gross = F(net * (100 + percent), 100)
        text = f"A price of ${float(gross):.2f} includes {percent} % sales tax on the net price. What is the net price?"
        yield money(text, net, (gross * (100 - percent) / 100, gross - percent, F(net * percent, 100)))


def _simple() -> Iterator[Draft]:
    for principal, percent, years in spread(COUNT, (500, 1200, 2000, 5000), (2, 3, 4, 5), (2, 3, 5)):
        text = f"How much simple interest do ${principal} earn in {years} years at {percent} % a year?"
        right = F(principal * percent * years, 100)
        yield money(text, right, (F(principal * percent, 100), principal + right, F(principal * years, 100)))


def _compound() -> Iterator[Draft]:
    for principal, percent in spread(COUNT, (400, 1000, 2500, 6000), (2, 3, 4, 5, 10)):
        text = (
            f"${principal} earn {percent} % a year, with interest added each year. What are they worth after 2 years?"
        )
        growth = 1 + F(percent, 100)
        right = principal * growth**2
        yield money(text, right, (principal * (1 + F(2 * percent, 100)), principal * growth, principal * growth**3))


def _bill() -> Iterator[Draft]:
    for total, tip, people in spread(COUNT, (60, 84, 120, 180), (10, 15, 20), (2, 3, 4)):
        text = f"{people} friends share a bill of ${total} and add a tip of {tip} %. What does each pay?"
        right = F(total * (100 + tip), 100 * people)
        yield money(text, right, (F(total, people), F(total * (100 + tip), 100), F(total, people) + tip))


def _saving() -> Iterator[Draft]:
    for monthly, months, start in spread(COUNT, (50, 75, 120, 200), (6, 9, 14, 18), (0, 100, 250)):
        goal = monthly * months + start
        text = f"You have ${start} and put aside ${monthly} a month. After how many months do you have ${goal}?"
        yield counted(
            text, months, (months + 1, months - 1, months + 2, months - 2, F(goal + start, monthly)), "months", places=0
        )


def _change() -> Iterator[Draft]:
    for old, percent in spread(COUNT, (40, 80, 120, 200, 500), (5, 10, 15, 20, 25, 30, 60)):
        new = old + F(old * percent, 100)
        text = f"A price rises from ${old} to ${number(new)}. By how many per cent does it rise?"
        yield counted(text, percent, (new - old, F(100 * (new - old)) / new, percent + 5, percent * 2), "%", places=1)


def _battery() -> Iterator[Draft]:
    for capacity, draw in spread(COUNT, (3000, 4000, 4800, 5000, 6000), (200, 250, 300, 400, 500)):
        text = f"A phone's battery holds {capacity} mAh. How long does it last at a steady {draw} mA?"
        right = F(capacity, draw)
        yield counted(text, right, (right * 10, right / 2, right + 2), "h", places=1)


def _download() -> Iterator[Draft]:
    for size, rate in spread(COUNT, (50, 120, 300, 700, 900), (10, 20, 40, 50, 80)):
        text = (
            f"A file has {size} megabytes. How long does it take to load at {rate} megabits per second, 8 bits to "
            f"a byte?"
        )
        right = F(size * 8, rate)
        yield counted(text, right, (F(size, rate), F(size * rate, 8), right / 4, right * 2), "seconds", places=1)


def _data_plan() -> Iterator[Draft]:
    for plan, per in spread(COUNT, (5, 10, 20, 30, 60), (F(1, 2), F(3, 4), 1, F(3, 2), F(5, 2))):
        text = f"Video uses {number(per)} GB an hour. How many hours does a plan of {plan} GB allow?"
        right = F(plan) / per
        yield counted(text, right, (plan * per, right + 5, right / 2), "h", places=1)


def _storage() -> Iterator[Draft]:
    for gigabytes, size in spread(COUNT, (2, 8, 16, 32, 64), (2, 4, 5, 8)):
        text = f"How many photos of {size} MB each fit into {gigabytes} GB, 1 GB being 1000 MB?"
        right = F(gigabytes * 1000, size)
        yield counted(text, right, (right / 10, gigabytes * size * 10, right * 10), "photos", places=0)


def _stops() -> Iterator[Draft]:
    for denominator, count in [*spread(COUNT, (8000, 4000, 2000, 1000), (1, 2, 3)), (500, 1), (500, 2)]:
        text = (
            f"A photo is taken at 1/{denominator} s. Which time lets in light for {count} stops more, a stop "
            f"being twice the light?"
        )
        right = denominator // 2**count
        wrong = [right * 2, right // 2, right * 4, right // 4, denominator * 2**count, right // 8]
        yield ranked(text, right, wrong, lambda value: f"1/{value} s")


def _beats() -> Iterator[Draft]:
    for tempo, bars, each in spread(COUNT, (60, 80, 90, 120, 150), (8, 16, 20, 30), (3, 4)):
        text = f"A song has {tempo} beats a minute and {each} beats to a bar. How long do {bars} bars take?"
        right = F(60 * bars * each, tempo)
        yield counted(text, right, (F(60 * bars, tempo), F(bars * each * tempo, 60), right / 2), "seconds", places=1)


def _dice() -> Iterator[Draft]:
    for (total,) in spread(11, tuple(range(2, 13))):
        text = f"You throw two dice. In how many of the 36 equally likely results is the sum {total}?"
        right = 6 - abs(7 - total)
        yield counted(text, right, (right + 1, right - 1, right + 2, right - 2, right + 3, right - 3), places=0)


UNITS = (
    ("miles", "kilometres", F("1.609344"), (3, 8, 26, 55, 70)),
    ("pounds", "kilograms", F("0.45359237"), (5, 20, 65, 150, 180)),
    ("inches", "centimetres", F("2.54"), (6, 13, 27, 43, 55)), ("feet", "metres", F("0.3048"), (6, 20, 120, 1000)),
    ("kilometres per hour", "metres per second", F(5, 18), (18, 54, 90, 126)),
    ("US gallons", "litres", F("3.785411784"), (2, 5, 15)), ("ounces", "grams", F("28.349523125"), (4, 12, 20)),
)  # fmt: skip
"""Names, and how many of the second the first is: exact by international agreement of 1959 (yard and pound)."""


def _units() -> Iterator[Draft]:
    for one, other, factor, amounts in UNITS:
        for amount in amounts:
            text = f"How many {other} are {amount} {one}, to one decimal?"
            right = factor * amount
            yield counted(
                text,
                right,
                (amount / factor, right * F(11, 10), right * F(9, 10), amount + factor),
                places=1,
                fixed=True,
            )


ROMAN = ((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"),
         (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))  # fmt: skip


def _roman() -> Iterator[Draft]:
    for (value,) in spread(COUNT, (14, 29, 44, 59, 94, 149, 399, 444, 949, 1666, 1789, 1949, 1984, 2024)):
        rest, text = value, ""
        for size, sign in ROMAN:
            text += sign * (rest // size)
            rest %= size
        question = f"Which number is written {text} in Roman numerals?"
        yield counted(question, value, [value + d for d in (2, -2, 10, -10, 100, -1)], places=0)


FAMILIES = tuple(
    Family(name, field, source, "computed", drafts)
    for name, field, source, drafts in (
        ("ends", "time", ARITHMETIC, _ends), ("lasts", "travel", ARITHMETIC, _lasts),
        ("weekday", "calendar", "a week has seven days", _weekday),
        ("later", "calendar", "the Gregorian calendar", _later),
        ("between", "calendar", "the Gregorian calendar", _between),
        ("zones", "travel", "IANA time zone database, cities without daylight saving time", _zones),
        ("drive", "travel", ARITHMETIC, _drive), ("fuel", "travel", ARITHMETIC, _fuel),
        ("exchange", "travel", ARITHMETIC, _exchange), ("scale", "hiking", ARITHMETIC, _scale),
        ("discount", "shopping", ARITHMETIC, _discount), ("twice", "shopping", ARITHMETIC, _twice),
        ("unit", "shopping", ARITHMETIC, _unit_price), ("tax", "shopping", ARITHMETIC, _tax),
        ("simple", "personal finance", ARITHMETIC, _simple), ("compound", "personal finance", ARITHMETIC, _compound),
        ("bill", "eating out", ARITHMETIC, _bill), ("saving", "personal finance", ARITHMETIC, _saving),
        ("change", "personal finance", ARITHMETIC, _change), ("battery", "telephones", ARITHMETIC, _battery),
        ("download", "telephones", ARITHMETIC, _download), ("plan", "telephones", ARITHMETIC, _data_plan),
        ("storage", "telephones", ARITHMETIC, _storage),
        ("stops", "photography", "definition of a stop, as stated", _stops),
        ("beats", "music", ARITHMETIC, _beats), ("dice", "games", "counting", _dice),
        ("units", "units", "exact definitions: yard and pound agreement of 1959", _units),
        ("roman", "numbers", "Roman numerals, subtractive form", _roman),
    )
)  # fmt: skip
