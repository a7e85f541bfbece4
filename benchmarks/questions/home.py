"""Families about the kitchen, the house, the garden, health and sport."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from benchmarks.questions.draft import Draft, Family, counted, hours, money, number, ranked, spread

F = Fraction
COUNT = 14
"""Questions of a family."""
ARITHMETIC = "arithmetic of the figures in the question"


def _scaled_recipe() -> Iterator[Draft]:
    for a, b, grams, what in spread(
        COUNT, (2, 4, 5), (3, 6, 8, 12), (120, 200, 300, 450), ("flour", "rice", "pasta", "lentils")
    ):
        text = f"A recipe for {a} people needs {grams} g of {what}. How much {what} is needed for {b} people?"
        yield counted(text, F(grams * b, a), (grams * b, F(grams * a, b), grams + (b - a) * 10), "g", places=0)


def _cups() -> Iterator[Draft]:
    for quarters, what in spread(COUNT, (1, 2, 3, 5, 6, 7, 9, 10), ("milk", "water", "stock", "juice")):
        cup = number(F(quarters, 4))
        text = f"With metric cups of 250 ml, how many millilitres of {what} are {cup} cups?"
        yield counted(text, F(250 * quarters, 4), (60 * quarters, F(200 * quarters, 4), F(240 * quarters, 4)), "ml")


def _spoons() -> Iterator[Draft]:
    for big, small, what in spread(COUNT, (2, 3, 4, 6), (2, 3, 4), ("oil", "vinegar", "soy sauce", "syrup")):
        text = (
            f"A tablespoon holds 15 ml and a teaspoon 5 ml. How much {what} are {big} tablespoons and {small} "
            f"teaspoons?"
        )
        yield counted(text, 15 * big + 5 * small, (5 * big + 15 * small, 15 * (big + small), 20 * big), "ml")


def _oven() -> Iterator[Draft]:
    for (degrees,) in spread(COUNT, (212, 230, 257, 275, 293, 302, 320, 338, 356, 374, 383, 401, 428, 446)):
        text = f"A recipe asks for an oven at {degrees} °F. What is that in degrees Celsius?"
        right = F((degrees - 32) * 5, 9)
        yield counted(text, right, (F(degrees * 5, 9), F(degrees - 32, 2), right + 32, right - 10), "°C", places=0)


def _roasting() -> Iterator[Draft]:
    for minutes, extra, kilos in spread(COUNT, (20, 25, 30), (15, 20, 30), (F(3, 2), 2, F(5, 2), 3)):
        text = (
            f"A roast takes {minutes} minutes per 500 g and {extra} minutes more. "
            f"How long does a piece of {number(kilos)} kg take?"
        )
        right = int(minutes * kilos * 2 + extra)
        wrong = (
            right - extra,
            int(minutes * kilos + extra),
            right + 20,
            right - 5,
            right + 10,
            right + minutes + extra,
        )
        yield ranked(text, right, wrong, hours)


def _ratio() -> Iterator[Draft]:
    for parts, total, what in spread(
        COUNT,
        ((1, 2), (1, 3), (2, 3), (1, 4), (1, 9)),
        (600, 1200, 1800, 3000, 900),
        ("squash", "cleaner", "plant feed"),
    ):
        a, b = parts
        text = f"You mix {what} and water in the ratio {a} to {b}. How much {what} is in {total} ml of the mixture?"
        yield counted(
            text, F(total * a, a + b), (F(total * a, b), F(total * b, a + b), F(total, b + 1)), "ml", places=0
        )


def _energy_of_food() -> Iterator[Draft]:
    for fat, carbs, protein in spread(COUNT, (3, 8, 12, 20), (10, 25, 40, 55), (4, 9, 15, 22)):
        text = (
            f"Fat has 9 kcal per gram, carbohydrate and protein 4 kcal each. How many kilocalories are in {fat} g "
            f"of fat, "
            f"{carbs} g of carbohydrate and {protein} g of protein?"
        )
        right = 9 * fat + 4 * (carbs + protein)
        wrong = (4 * (fat + carbs + protein), 9 * carbs + 4 * (fat + protein), 9 * (fat + protein) + 4 * carbs)
        yield counted(text, right, wrong, "kcal")


def _portion() -> Iterator[Draft]:
    for per, grams, what in spread(
        COUNT, (60, 240, 380, 520), (30, 45, 125, 175, 250), ("muesli", "yoghurt", "crackers", "soup")
    ):
        text = f"A label says {per} kcal per 100 g of {what}. How many kilocalories are in a portion of {grams} g?"
        yield counted(text, F(per * grams, 100), (per + grams, F(per * 100, grams), per), "kcal", places=0)


def _dose() -> Iterator[Draft]:
    for per, weight, tablet in spread(COUNT, (5, 8, 10), (15, 20, 25, 30, 40), (50, 100)):
        text = (
            f"A doctor prescribes {per} mg of a medicine per kilogram of body weight. How many milligrams is that "
            f"for a "
            f"child of {weight} kg, whose tablets have {tablet} mg each?"
        )
        yield counted(text, per * weight, (F(per * weight, tablet), tablet * per, weight + per), "mg")


def _bmi() -> Iterator[Draft]:
    for kilos, centimetres in spread(COUNT, (54, 63, 72, 81, 90), (150, 160, 175, 180, 190)):
        text = (
            "Body mass index is weight in kilograms divided by the square of height in metres. What is it for "
            f"{kilos} kg and {centimetres} cm, to one decimal?"
        )
        right = F(kilos * 10000, centimetres**2)
        wrong = (F(kilos * 100, centimetres), right + 2, right - F(3, 2), F(centimetres, kilos) * 10)
        yield counted(text, right, wrong, places=1, fixed=True)


def _heart_rate() -> Iterator[Draft]:
    for age, share in spread(COUNT, (20, 30, 40, 50, 60, 70), (50, 60, 70, 80)):
        text = (
            f"With 220 minus age as the highest heart rate, what is {share} % of it at the age of {age}, in beats "
            f"a minute?"
        )
        yield counted(
            text, F((220 - age) * share, 100), (220 - age, F(220 * share, 100), F((220 - age) * (share + 10), 100)),
            "beats a minute", places=0,
        )  # fmt: skip


def _pace() -> Iterator[Draft]:
    for km, seconds in spread(COUNT, (4, 5, 8, 10), (255, 270, 285, 315, 330, 345, 375)):
        total = km * seconds
        text = f"You run {km} km in {total // 60} minutes {total % 60:02} seconds. What is your pace per kilometre?"
        yield ranked(text, seconds, [seconds + d for d in (15, -15, 30, -30, 45, -45)], _per_km)


def _per_km(seconds: int) -> str:
    return f"{seconds // 60}:{seconds % 60:02} min"


def _steps() -> Iterator[Draft]:
    for centimetres, count in spread(COUNT, (60, 65, 70, 75, 80), (4000, 6000, 8000, 10000, 12000)):
        text = f"Your step is {centimetres} cm long. How far do you walk in {count} steps?"
        right = F(centimetres * count, 100_000)
        yield counted(text, right, (right * 10, F(count, centimetres * 10), right / 10), "km", places=1)


def _league() -> Iterator[Draft]:
    for wins, draws, losses in spread(COUNT, (3, 6, 9, 12), (2, 3, 4, 5), (2, 3, 7)):
        text = (
            f"A win counts 3 points, a draw 1 and a loss 0. How many points has a team with {wins} wins, {draws} "
            f"draws and "
            f"{losses} losses?"
        )
        right = 3 * wins + draws
        yield counted(text, right, (2 * wins + draws, right + losses, 3 * (wins + draws), right - draws), "points")


def _basketball() -> Iterator[Draft]:
    for threes, twos, ones in spread(COUNT, (2, 4, 5, 7), (3, 6, 8, 11), (2, 4, 6)):
        text = (
            f"A basketball player makes {threes} three-point shots, {twos} two-point shots and {ones} free throws. "
            "How many points are that?"
        )
        right = 3 * threes + 2 * twos + ones
        wrong = (threes + twos + ones, 2 * threes + 3 * twos + ones, 3 * threes + 2 * twos, right + 2)
        yield counted(text, right, wrong, "points")


def _paint() -> Iterator[Draft]:
    for wide, high, coats, litre in spread(COUNT, (4, 5, 6, 8), (2, 3), (2, 3), (8, 10, 12)):
        text = (
            f"A litre of paint covers {litre} square metres. How many litres do {coats} coats on a wall {wide} m "
            f"wide and "
            f"{high} m high need?"
        )
        right = F(wide * high * coats, litre)
        yield counted(text, right, (F(wide * high, litre), F((wide + high) * coats, litre), right + 1), "litres")


def _tiles() -> Iterator[Draft]:
    for side, long, wide in spread(COUNT, (20, 25, 50), (2, 3, 4, 5), (1, 2, 3)):
        text = (
            f"How many square tiles with sides of {side} cm cover a floor of {long} m by {wide} m, without waste "
            f"or joints?"
        )
        right = F(long * 100, side) * F(wide * 100, side)
        yield counted(text, right, (F(long * wide * 100, side), right * F(9, 10), right + long * 10), "tiles", places=0)


def _electricity() -> Iterator[Draft]:
    for watts, time, cents in spread(COUNT, (60, 800, 1500, 2000), (2, 5, 10, 30), (20, 25, 30)):
        text = f"What does a device of {watts} W cost in {time} hours, at {cents} cents per kilowatt-hour?"
        right = F(watts * time * cents, 100_000)
        yield money(text, right, (right * 10, F(watts * cents, 100_000), right / 10, right * F(3, 2)))


def _aquarium() -> Iterator[Draft]:
    for long, wide, high in spread(COUNT, (50, 60, 80, 100), (30, 40), (25, 30, 45, 50)):
        text = f"How many litres does an aquarium of {long} cm by {wide} cm by {high} cm hold?"
        right = F(long * wide * high, 1000)
        yield counted(
            text, right, (right * 10, F(2 * (long * wide + wide * high + long * high), 1000), right / 10), "litres"
        )


def _fence() -> Iterator[Draft]:
    for long, wide, gap in spread(COUNT, (12, 18, 24, 30), (6, 12, 15), (3,)):
        text = (
            f"A rectangular garden of {long} m by {wide} m is fenced all round, with a post every {gap} m. How "
            f"many posts are "
            "needed?"
        )
        right = F(2 * (long + wide), gap)
        yield counted(text, right, (F(long + wide, gap), right + 1, F(long * wide, gap), right - 1), "posts", places=0)


def _knitting() -> Iterator[Draft]:
    for gauge, centimetres in spread(COUNT, (18, 20, 22, 24, 28), (25, 35, 45, 50, 60)):
        text = f"Your knitting has {gauge} stitches per 10 cm. How many stitches is a piece {centimetres} cm wide?"
        right = F(gauge * centimetres, 10)
        yield counted(text, right, (gauge * centimetres, right - gauge, gauge + centimetres), "stitches", places=0)


def _slope() -> Iterator[Draft]:
    for rise, run in spread(COUNT, (6, 9, 12, 15, 30), (100, 120, 150, 300)):
        text = f"A ramp rises {rise} cm over {run} cm along the ground. What is its slope?"
        right = F(100 * rise, run)
        yield counted(text, right, (F(100 * run, rise), F(100 * rise, rise + run), right / 2), "%", places=1)


FAMILIES = tuple(
    Family(name, field, source, "computed", drafts)
    for name, field, source, drafts in (
        ("recipe", "cooking", ARITHMETIC, _scaled_recipe),
        ("cups", "cooking", "metric cup of 250 ml, as stated", _cups),
        ("spoons", "cooking", "metric spoons of 15 and 5 ml, as stated", _spoons),
        ("oven", "cooking", "definition: C = (F - 32) x 5 / 9", _oven),
        ("roast", "cooking", ARITHMETIC, _roasting),
        ("ratio", "household", ARITHMETIC, _ratio),
        ("kcal", "nutrition", "Atwater factors 9, 4, 4 kcal/g, as stated", _energy_of_food),
        ("portion", "nutrition", ARITHMETIC, _portion),
        ("dose", "health", ARITHMETIC, _dose),
        ("bmi", "health", "definition of the body mass index, as stated", _bmi),
        ("pulse", "fitness", "the rule 220 minus age, as stated", _heart_rate),
        ("pace", "fitness", ARITHMETIC, _pace),
        ("steps", "fitness", ARITHMETIC, _steps),
        ("league", "sports", "football's league points, as stated", _league),
        ("basket", "sports", "basketball's points of a shot", _basketball),
        ("paint", "home repair", ARITHMETIC, _paint),
        ("tiles", "home repair", ARITHMETIC, _tiles),
        ("slope", "home repair", "definition: rise over run", _slope),
        ("power", "household", ARITHMETIC, _electricity),
        ("litres", "pets", "a litre is 1000 cubic centimetres", _aquarium),
        ("fence", "gardening", ARITHMETIC, _fence),
        ("stitches", "crafts", ARITHMETIC, _knitting),
    )
)
