"""The packaged questions: every computed answer again, by other code; no two alike; the file as generated."""

import csv
from collections import Counter

import pytest

from benchmarks.questions import FAMILIES, text
from benchmarks.questions.answers import ANSWER, dates, decimals, family, figures, right_options
from fleetcast.runtime.measure.quality.items import COLUMNS, EVERYDAY, everyday

ITEMS = everyday()
ROWS = {row["question_id"]: row for row in csv.DictReader(EVERYDAY.read_text(encoding="utf-8").splitlines())}


COMPUTED = [item for item in ITEMS if ROWS[item.id]["check"] == "computed"]


def test_the_file_is_what_the_generator_writes():
    assert EVERYDAY.read_text(encoding="utf-8") == text()


def test_enough_questions_of_many_fields_and_no_two_alike():
    assert len(COMPUTED) >= 500
    assert len({item.field for item in ITEMS}) >= 20
    assert len({item.question for item in ITEMS}) == len({item.id for item in ITEMS}) == len(ITEMS)
    assert {len({option.strip().lower() for option in item.options}) for item in ITEMS} == {4}


def test_every_question_has_a_key_and_a_source():
    assert all(item.answer in range(4) and item.source and item.field for item in ITEMS)
    assert list(next(iter(ROWS.values()))) == list(COLUMNS)
    assert {row["check"] for row in ROWS.values()} == {"computed", "cited"}
    assert all(row["source"].startswith("recalled: ") for row in ROWS.values() if row["check"] == "cited")


def test_every_family_is_recomputed_or_cited():
    assert {f.id for f in FAMILIES if f.check == "computed"} == set(ANSWER) == {family(item) for item in COMPUTED}


@pytest.mark.parametrize("name", ANSWER)
def test_exactly_the_marked_option_is_the_recomputed_answer(name):
    for item in (i for i in COMPUTED if family(i) == name):
        assert right_options(item) == [item.answer], item


def test_options_of_a_question_are_alike_in_form():
    """Otherwise a model could find the right one by its look."""
    for item in COMPUTED:
        assert len({decimals(option) for option in item.options}) == 1, item
        if family(item) != "blood":
            units = {"".join(c for c in option if not c.isdigit() and c not in ",.:/ ") for option in item.options}
            assert len(units) == 1 or family(item) in ("weekday", "later"), item


def test_the_key_leans_to_no_letter_and_the_right_option_to_no_rank():
    """A guesser by letter, or by size among the numbers, gains little over a quarter."""
    letters = Counter(item.answer for item in ITEMS)
    assert max(letters.values()) / len(ITEMS) < 0.30
    ranks = Counter()
    for item in COMPUTED:
        values = [size(family(item), option) for option in item.options]
        if None not in values:
            ranks[sorted(values).index(values[item.answer])] += 1
    assert sum(ranks.values()) >= 600
    assert max(ranks.values()) / sum(ranks.values()) < 0.33, ranks


def size(name, option):
    """Returns what an option is ranked by; None for names."""
    if name in ("weekday", "blood"):
        return None
    if name == "later":
        return dates(option)[0].toordinal()
    parts = figures(option.removeprefix("1/"))
    return sum(part / 60**i for i, part in enumerate(parts))
