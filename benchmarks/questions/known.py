"""Families of facts, each with the document it stands in. They are recalled, so the source has the last word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.questions.draft import Draft, Family, facts

CAPITALS = (
    ("Australia", "Canberra"), ("Canada", "Ottawa"), ("Brazil", "Brasilia"), ("Turkey", "Ankara"),
    ("New Zealand", "Wellington"), ("Morocco", "Rabat"), ("Vietnam", "Hanoi"), ("Kenya", "Nairobi"),
    ("Norway", "Oslo"), ("Hungary", "Budapest"), ("Peru", "Lima"), ("Egypt", "Cairo"), ("Thailand", "Bangkok"),
    ("Portugal", "Lisbon"), ("Switzerland", "Bern"), ("Pakistan", "Islamabad"),
)  # fmt: skip
CURRENCIES = (
    ("Japan", "JPY"), ("the United Kingdom", "GBP"), ("Switzerland", "CHF"), ("Sweden", "SEK"), ("Poland", "PLN"),
    ("India", "INR"), ("Brazil", "BRL"), ("Mexico", "MXN"), ("South Africa", "ZAR"), ("Turkey", "TRY"),
    ("Thailand", "THB"), ("Canada", "CAD"),
)  # fmt: skip
DIALLING = (
    ("France", "+33"), ("Germany", "+49"), ("Italy", "+39"), ("Spain", "+34"), ("Japan", "+81"), ("China", "+86"),
    ("India", "+91"), ("Brazil", "+55"), ("Australia", "+61"), ("Egypt", "+20"), ("the United Kingdom", "+44"),
    ("Mexico", "+52"),
)  # fmt: skip
PLASTICS = (
    ("1", "PET (polyethylene terephthalate)"), ("2", "HDPE (high-density polyethylene)"),
    ("3", "PVC (polyvinyl chloride)"), ("4", "LDPE (low-density polyethylene)"), ("5", "PP (polypropylene)"),
    ("6", "PS (polystyrene)"),
)  # fmt: skip
SIGNS = (
    ("a red ring with a diagonal bar", "prohibition: you must not"),
    ("a blue disc with a white symbol", "you must do this"),
    ("a yellow triangle with a black edge", "warning of a hazard"),
    ("a green rectangle with a white symbol", "safe condition, such as an escape route"),
)
GHS = (
    ("a flame", "flammable"), ("a flame over a circle", "oxidising"), ("a skull and crossbones", "acutely toxic"),
    ("a gas cylinder", "gas under pressure"), ("an exploding bomb", "explosive"),
    ("a dead fish and tree", "harmful to the environment"),
)  # fmt: skip
LAUNDRY = (
    ("a tub of water", "washing"), ("a triangle", "bleaching"), ("a square", "drying"), ("an iron", "ironing"),
    ("a circle", "professional cleaning"),
)  # fmt: skip
BEAUFORT = (
    ("0", "calm"), ("2", "light breeze"), ("4", "moderate breeze"), ("6", "strong breeze"), ("8", "gale"),
    ("10", "storm"), ("12", "hurricane force"),
)  # fmt: skip
UV = (("2", "low"), ("4", "moderate"), ("7", "high"), ("9", "very high"), ("12", "extreme"))
FIRST_AID = (
    (
        "At what rate are chest compressions given to an adult?",
        "100 to 120 a minute", "60 to 80 a minute", "30 to 40 a minute", "160 to 180 a minute",
    ), (
        "How deep are chest compressions on an adult?",
        "at least 5 cm, at most 6 cm", "at least 1 cm, at most 2 cm", "at least 2 cm, at most 3 cm",
        "at least 8 cm, at most 10 cm",
    ), (
        "A trained rescuer gives an adult how many breaths after every 30 chest compressions?", "2", "5", "10", "15",
    ), (
        "With what is a fresh burn of the hand cooled first?",
        "cool running water", "butter", "ice straight on the skin", "toothpaste",
    ), (
        "Who is called first to a person who does not respond and does not breathe normally?",
        "the emergency service", "the person's doctor", "a pharmacy", "the police alone",
    ), (
        "What helps first against strong bleeding from a limb?",
        "firm direct pressure on the wound", "rinsing it for minutes", "waiting until it stops", "a hot compress",
    ),
)  # fmt: skip
"""Question, right answer and wrong ones."""
FOOD = (
    ("To what temperature inside is poultry cooked, to be safe?", "74 °C", "50 °C", "60 °C", "40 °C"),
    ("At most how warm should a refrigerator be?", "4 °C", "9 °C", "12 °C", "15 °C"),
    ("How warm should a home freezer be at most?", "-18 °C", "-5 °C", "0 °C", "-10 °C"),
    ("At most how long should perishable food be at room temperature?", "2 hours", "6 hours", "10 hours", "24 hours"),
    ("For how long should hands be washed with soap?", "at least 20 seconds", "2 seconds", "5 seconds", "5 minutes"),
)  # fmt: skip


def asked(table: tuple[tuple[str, ...], ...]) -> Iterator[Draft]:
    """Yields a draft per row of (question, right, wrong, wrong, wrong)."""
    for question, right, *wrong in table:
        yield Draft(question, right, tuple(wrong))


BLOOD = ("O", "A", "B", "AB")
"""ABO groups; red cells may be given where the giver has no antigen that the receiver lacks."""


def _blood() -> Iterator[Draft]:
    said = {"O": "only O", "A": "O and A", "B": "O and B", "AB": "O, A, B and AB"}
    for group in BLOOD:
        question = f"By the ABO rule for red cells, from which groups may someone of group {group} be given blood?"
        yield Draft(question, said[group], tuple(said[g] for g in BLOOD if g != group))


def _family(name: str, field: str, source: str, question: str, table: tuple[tuple[str, str], ...]) -> Family:
    return Family(name, field, f"recalled: {source}", "cited", partial(facts, question, table))


def _asked(name: str, field: str, source: str, table: tuple[tuple[str, ...], ...]) -> Family:
    drafts: Callable[[], Iterator[Draft]] = partial(asked, table)
    return Family(name, field, f"recalled: {source}", "cited", drafts)


FAMILIES = (
    _family("capital", "geography", "CIA World Factbook", "What is the capital of {}?", CAPITALS),
    _family("currency", "travel", "ISO 4217", "What is the currency code of {}?", CURRENCIES),
    _family("dialling", "telephones", "ITU-T E.164", "Which code comes first when you call {} from abroad?", DIALLING),
    _family("plastic", "recycling", "ASTM D7611", "Which plastic has the resin code {}?", PLASTICS),
    _family("sign", "safety", "ISO 3864-1", "What does a safety sign with {} mean?", SIGNS),
    _family("hazard", "safety", "UN GHS, pictograms", "What does the hazard pictogram with {} mean?", GHS),
    _family("laundry", "household", "ISO 3758", "What is the care symbol of {} about?", LAUNDRY),
    _family("wind", "weather", "WMO Beaufort scale", "What is force {} on the Beaufort scale called?", BEAUFORT),
    _family("uv", "weather", "WHO Global Solar UV Index", "How does the WHO class a UV index of {}?", UV),
    _asked("aid", "first aid", "European Resuscitation Council Guidelines 2021", FIRST_AID),
    _asked("food", "food safety", "USDA and WHO advice on safe food and hands", FOOD),
    Family("blood", "health", "ABO antigens", "computed", _blood),
)
