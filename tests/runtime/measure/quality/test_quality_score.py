"""Order invariance, exactly: constants score a quarter whatever the key, a file's order of options changes nothing."""

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.runtime.measure.quality import judge
from fleetcast.runtime.measure.quality.costs import Meter, Watts, peak_rss, watts_of
from fleetcast.runtime.measure.quality.items import Item, everyday
from fleetcast.runtime.measure.quality.orders import asks, canonical, orders_of, prompt
from fleetcast.runtime.measure.quality.score import above_chance, accuracy, answered, by_field, picked, wilson
from tests.runtime.measure.quality.echoes import Constant, Hash, Knowing

ITEMS = everyday()
ALWAYS = {
    "A": (0.0, -1.0, -2.0, -3.0), "D": (-3.0, -2.0, -1.0, 0.0), "nothing": (-1.0, -1.0, -1.0, -1.0),
    "A or B": (-1.0, -1.0, -2.0, -2.0),
}  # fmt: skip


def listed(item, order):
    """The same question with its options listed in another order."""
    return replace(item, options=tuple(item.options[i] for i in order), answer=order.index(item.answer))


def skewed(items, share, seed=0):
    """The items with the right option moved to A in a share of them, elsewhere to B."""
    draw = np.random.default_rng(seed).random(len(items)) < share
    found = []
    for item, first in zip(items, draw, strict=True):
        rest = [i for i in range(4) if i != item.answer]
        rest.insert(0 if first else 1, item.answer)
        found.append(listed(item, tuple(rest)))
    return tuple(found)


@pytest.mark.parametrize("guess", ALWAYS)
@pytest.mark.parametrize("orders", ["cyclic", "all"])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.7, 1.0])
def test_a_constant_guesser_scores_a_quarter_whatever_the_skew(guess, orders, share):
    items = skewed(ITEMS[:120], share)
    found = judge(Constant(*ALWAYS[guess]), items, orders=orders)
    assert [row.score for row in found.rows] == pytest.approx([0.25] * len(items), abs=1e-15)
    table = found.table()
    assert table["accuracy"] == pytest.approx(0.25, abs=1e-15)
    assert table["p"] == 1.0
    assert table["consistent"] == 0.0


def test_in_the_files_order_alone_the_same_guesser_scores_the_skew():
    """What the orders are for."""
    found = judge(Constant(*ALWAYS["A"]), skewed(ITEMS, 0.7), orders="given").table()
    assert found["accuracy"] == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize("orders", ["cyclic", "all"])
@pytest.mark.parametrize("tilt", [0.0, 2.0])
def test_the_listing_of_options_changes_neither_prompts_nor_scores(orders, tilt):
    items = ITEMS[:40]
    one = Hash(tilt)
    first = judge(one, items, orders=orders)
    draw = np.random.default_rng(3)
    for _ in range(3):
        other = Hash(tilt)
        moved = tuple(listed(item, tuple(draw.permutation(4).tolist())) for item in items)
        shuffled = [moved[i] for i in draw.permutation(len(moved))]
        again = judge(other, shuffled, orders=orders)
        assert other.seen == one.seen
        assert {r.item.id: r.score for r in again.rows} == {r.item.id: r.score for r in first.rows}
        same = ("accuracy", "interval", "p", "consistent", "positions", "fields")
        assert {key: again.table()[key] for key in same} == {key: first.table()[key] for key in same}


@given(st.permutations(range(4)), st.integers(0, len(ITEMS) - 1))
@settings(max_examples=60, deadline=None)
def test_every_listing_has_one_canonical_order(order, index):
    item, other = ITEMS[index], listed(ITEMS[index], tuple(order))
    for kind, count in (("cyclic", 4), ("all", 24)):
        texts = [prompt(item, o) for o in orders_of(item, kind)]
        assert texts == [prompt(other, o) for o in orders_of(other, kind)]
        assert len(set(texts)) == count
        for place in range(4):  # every option as often at every letter
            assert sorted(o[place] for o in orders_of(item, kind)) == sorted(list(range(4)) * (count // 4))


def test_all_orders_are_all_orders():
    assert set(orders_of(ITEMS[0], "all")) == set(permutations(range(4)))
    assert orders_of(ITEMS[0], "given") == ((0, 1, 2, 3),)
    assert canonical(ITEMS[0]) == orders_of(ITEMS[0], "cyclic")[0]


def test_who_knows_is_right_in_every_order():
    found = judge(Knowing(ITEMS), ITEMS, orders="cyclic").table()
    assert found["accuracy"] == found["consistent"] == found["positions"]["same_in_every_order"] == 1.0
    assert found["positions"]["bias"] < 0.01
    assert found["p"] < 1e-100


def test_who_knows_a_field_shows_there_and_nowhere_else():
    found = judge(Knowing(ITEMS, lambda item: item.field == "cooking"), ITEMS).table()
    fields = {row["field"]: row["accuracy"] for row in found["fields"]}
    assert fields.pop("cooking") == 1.0
    assert set(fields.values()) == {0.25}
    share = sum(item.field == "cooking" for item in ITEMS) / len(ITEMS)
    assert found["accuracy"] == pytest.approx(share + (1 - share) / 4)
    assert found["consistent"] == pytest.approx(share)
    assert found["positions"]["letters"]["A"] == pytest.approx(share / 4 + 1 - share, abs=0.02)


def test_guessing_by_the_prompt_is_not_above_chance_and_its_p_values_are_even():
    """Under the null p is uniform: as many below x as x says."""
    values = []
    for i in range(300):
        rng = np.random.default_rng(i)
        picks = rng.multinomial(4, [0.4, 0.3, 0.2, 0.1], size=60) / 4
        picks = rng.permuted(picks, axis=1)
        values.append(above_chance(picks, picks[:, 0]))
    for x in (0.05, 0.25, 0.5, 0.75):
        assert np.mean(np.array(values) < x) == pytest.approx(x, abs=3.5 * math.sqrt(x * (1 - x) / 300))


def test_the_p_value_is_that_of_drawing_the_key_anew():
    rng = np.random.default_rng(5)
    picks = rng.multinomial(4, [0.25] * 4, size=50) / 4
    scores = np.where(rng.random(50) < 0.3, picks.max(axis=1), picks[np.arange(50), rng.integers(0, 4, 50)])
    keys = rng.integers(0, 4, (20_000, 50))
    totals = picks[np.arange(50)[None, :], keys].sum(axis=1)
    drawn = (np.mean(totals > scores.sum() + 1e-9) + np.mean(totals > scores.sum() - 1e-9)) / 2
    assert above_chance(picks, scores) == pytest.approx(drawn, abs=0.01)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    item = ITEMS[0]
    covered = 0
    for i in range(200):
        rng = np.random.default_rng(i)
        rows = []
        for share in rng.beta(2, 2, 80):
            right = rng.binomial(4, share) / 4
            picks = [(1 - right) / 3] * 4
            picks[item.answer] = right
            every = item.answer if right == 1 else -1
            rows.append(answered([item], asks((item,), "given"), Constant(0, -1, -2, -3).score([0]))[0])
            rows[-1] = replace(rows[-1], picks=tuple(picks), every=every)
        low, high = accuracy(rows, seed=i)["interval"]
        covered += low <= 0.5 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_wilson_is_the_root_of_its_equation():
    for hits, count in ((0, 10), (3, 10), (10, 10), (250, 1000)):
        for bound in wilson(hits, count):
            far = (hits / count - bound) ** 2
            assert far == pytest.approx(1.959963984540054**2 * bound * (1 - bound) / count, abs=1e-12)
    assert wilson(0, 0) == (0.0, 1.0)


def test_ties_share_and_silence_is_wrong():
    assert picked((-1.0, -1.0, -3.0, -2.0)) == [0, 1]
    assert picked((-math.inf,) * 4) == picked((0.0, math.nan, 0.0, 0.0)) == []
    found = judge(Constant(*(-math.inf,) * 4), ITEMS[:10])
    assert found.table()["accuracy"] == 0.0
    assert found.table()["positions"]["unanswered"] == 1.0
    assert found.answers().splitlines()[1] == f"{ITEMS[0].id},"


def test_texts_are_asked_once_and_hold_no_letters():
    found = asks(ITEMS[:5], "all", "texts")
    assert len(found) == 5
    assert all(not any(f"{x}. " in ask.prompt for x in "ABCD") for ask in found)
    assert {c.strip() for c in found[0].continuations} == set(ITEMS[found[0].item].options)


def test_questions_without_a_key_have_no_score_and_all_else():
    items = tuple(replace(item, answer=-1) for item in ITEMS[:30])
    found = judge(Knowing(ITEMS[:30]), items)
    table = found.table()
    assert "accuracy" not in table
    assert table["scores"] == []
    assert table["positions"]["same_in_every_order"] == 1.0
    assert {row["accuracy"] for row in by_field(found.rows)} == {None}
    letters = dict(line.split(",") for line in found.answers().splitlines()[1:])
    assert letters == {item.id: "ABCD"[item.answer] for item in ITEMS[:30]}


def test_costs_are_of_a_question_asked_once():
    meter = Meter(Watts(2.0, 10.0, "said"))
    meter.weights, meter.cache_token = 1000, 8.0
    found = judge(Constant(0.0, -1.0, -1.0, -1.0), ITEMS[:10], meter=meter)
    costs = found.table()["costs"]
    assert costs["seconds"] == pytest.approx(0.001)
    assert costs["joules"] == pytest.approx(0.01)
    assert "at most" in costs["method"]
    assert "said" in costs["method"]
    assert (costs["weight_bytes"], costs["cache_bytes_longest"]) == (1000, 80.0)
    row = found.details()[0]
    assert (row["joules"], row["cache_bytes"]) == (pytest.approx(0.01), 80.0)


def test_power_lies_between_idle_and_most_by_use():
    meter = Meter(Watts(2.0, 10.0, "said", cores=1))
    with meter:
        sum(i * i for i in range(300_000))
    draw, method = meter._draw()
    assert 2.0 < draw <= 10.0
    assert "idle" in method
    unknown = judge(Constant(0.0, -1.0, -1.0, -1.0), ITEMS[:3]).table()["costs"]
    assert unknown["joules"] is None
    assert "not known" in unknown["method"]


def test_devices_bring_their_power():
    here, named = watts_of(""), watts_of("h100-sxm", remote=True)
    assert 0 < here.idle < here.most
    assert here.cores >= 1
    assert named.most == 700.0
    assert named.cores == 0
    with pytest.raises(SpecError, match="is not a device"):
        watts_of("abacus")
    assert peak_rss() > 1 << 20


def test_nonsense_is_named():
    with pytest.raises(SpecError, match="orders: is unknown"):
        judge(Constant(0, 0, 0, 0), ITEMS[:1], orders="random")
    with pytest.raises(SpecError, match="items: are none"):
        judge(Constant(0, 0, 0, 0), ())
    assert Item("a", "b", ("c", "d", "e", "f")).answer == -1
