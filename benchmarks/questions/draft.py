"""What a family of questions is, and how its drafts become items: four options in an order that a hash decides."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

Number = int | Fraction
FILLERS = tuple(Fraction(n, 20) for n in (24, 16, 40, 10, 30, 18, 22, 14, 60, 5, 50, 12))
"""A right number times these fills up options where the usual mistakes give too few."""


class Draft(NamedTuple):
    """A question, its right answer, and wrong ones, the likeliest mistake first."""

    question: str
    right: str
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """Questions of one kind.

    Attributes:
        id: begins the ids of its questions.
        field: of everyday life.
        source: of the fact or formula that the answers follow from.
        check: "computed" (a test computes every answer again, by other code) or "cited" (a fact; the source is named).
        drafts: makes them.
    """

    id: str
    field: str
    source: str
    check: str
    drafts: Callable[[], Iterable[Draft]]


def rows(family: Family) -> Iterator[dict[str, str]]:
    """Yields the items of a family as rows of the file.

    Raises:
        ValueError: a draft with fewer than three wrong answers, or one that is right.
    """
    for i, draft in enumerate(family.drafts(), 1):
        wrong = [w for w in dict.fromkeys(draft.wrong) if w != draft.right][:3]
        if len(wrong) < 3:
            raise ValueError(f"{family.id}: too few wrong answers: {draft}")
        options = sorted((draft.right, *wrong), key=lambda o: hashlib.sha256(f"{draft.question}{o}".encode()).digest())
        yield {
            "question_id": f"{family.id}-{i:02}", "Question": draft.question,
            **dict(zip("ABCD", options, strict=True)), "answer": "ABCD"[options.index(draft.right)],
            "field": family.field, "source": family.source, "check": family.check,
        }  # fmt: skip


def spread(count: int, *choices: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Returns ``count`` of all combinations, evenly apart and none twice, by a stride that mixes the choices."""
    every = list(itertools.product(*choices))
    count = min(count, len(every))
    stride = max(1, int(len(every) * 0.6180339887))
    while math.gcd(stride, len(every)) > 1:
        stride += 1
    return [every[(i * stride + stride // 2) % len(every)] for i in range(count)]


def number(value: Number, places: int = 2) -> str:
    """Returns a number with at most so many decimals and none that are 0, thousands set apart by a comma."""
    return f"{_rounded(value, min(places, needed(value, places))):,}"


def needed(value: Number, places: int) -> int:
    """Returns how many decimals say a number to ``places`` of them without zeros at the end."""
    return next(n for n in range(places + 1) if n == places or _rounded(value, n) == _rounded(value, places))


def _rounded(value: Number, places: int) -> Decimal:
    """Returns the value with so many decimals, halves up, exactly."""
    whole = math.floor(Fraction(value) * 10**places + Fraction(1, 2))
    return Decimal(whole).scaleb(-places).quantize(Decimal(1).scaleb(-places))


def counted(
    question: str, right: Number, wrong: Iterable[Number], unit: str = "", *, places: int = 2, fixed: bool = False
) -> Draft:
    """Returns a draft whose answers are numbers with a unit, all with the decimals that the right one needs.

    ``fixed`` gives them ``places`` decimals. Mistakes that are not above 0 are left out.
    """
    decimals = places if fixed else needed(right, places)

    def said(value: Number) -> str:
        return f"{_rounded(value, decimals):,}{' ' if unit and unit != '%' else ''}{unit}"

    return ranked(question, right, (*wrong, *(right * f for f in FILLERS)), said)


def money(question: str, right: Number, wrong: Iterable[Number]) -> Draft:
    """Returns a draft whose answers are dollars and cents."""

    def said(value: Number) -> str:
        return f"${_rounded(value, 2):,}"

    return ranked(question, right, (*wrong, *(right * f for f in FILLERS)), said)


def ranked(question: str, right: Number, wrong: Iterable[Number], said: Callable[[Any], str]) -> Draft:
    """Returns a draft whose right answer is as likely the smallest as the largest, as far as the mistakes allow.

    A hash draws how many of the three wrong answers are smaller; else who always takes a middle value would be right
    about half the time.
    """
    apart = [w for w in wrong if w > 0 and said(w) != said(right)]
    below, above = (list(dict.fromkeys(said(w) for w in apart if (w < right) == less)) for less in (True, False))
    few = hashlib.sha256(question.encode()).digest()[0] % 4
    few = min(max(few, 3 - len(above)), len(below))
    return Draft(question, said(right), (*below[:few], *above[: 3 - few]))


def clock(minutes: int) -> str:
    """Returns a time of day, e.g. ``07:05``."""
    return f"{minutes // 60 % 24:02}:{minutes % 60:02}"


def hours(minutes: int) -> str:
    """Returns a duration, e.g. ``1 h 05 min``."""
    return f"{minutes // 60} h {minutes % 60:02} min"


def facts(question: str, table: Sequence[tuple[str, str]]) -> Iterator[Draft]:
    """Yields a draft per row of (asked, answer); wrong answers are other rows', a hash decides which."""
    answers = list(dict.fromkeys(answer for _, answer in table))
    for asked, right in table:
        others = [a for a in answers if a != right]
        others.sort(key=lambda a: hashlib.sha256(f"{asked}|{a}".encode()).digest())
        yield Draft(question.format(asked), right, tuple(others[:3]))
