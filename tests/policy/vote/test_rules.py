"""Distances are metrics, rules find what they say they find, and keep what they say they keep."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import build, kinds
from fleetcast.policy import vote
from fleetcast.policy.vote.kemeny import LARGEST, best, components
from fleetcast.policy.vote.metrics import METRICS, all_orders, diameter, footrule, kendall, places, preferred

RULES = [class_() for class_ in kinds(vote).values()]


@st.composite
def ballots(draw: st.DrawFn, most: int = 6) -> np.ndarray:
    m = draw(st.integers(1, most))
    return np.array(draw(st.lists(st.permutations(range(m)), min_size=1, max_size=7)), dtype=np.int64)


@st.composite
def three(draw: st.DrawFn) -> np.ndarray:
    m = draw(st.integers(1, 7))
    return np.array([draw(st.permutations(range(m))) for _ in range(3)])


def pairs_apart(a: list[int], b: list[int]) -> int:
    """Kendall's distance by its definition."""
    return sum(
        (a.index(x) < a.index(y)) != (b.index(x) < b.index(y)) for i, x in enumerate(sorted(a)) for y in sorted(a)[:i]
    )


@given(three())
def test_distances_are_metrics_and_bound_each_other(rows: np.ndarray) -> None:
    a, b, c = rows
    for metric in (kendall, footrule):
        assert metric(a, b) == metric(b, a)
        assert (metric(a, b) == 0) == (a.tolist() == b.tolist())
        assert metric(a, c) <= metric(a, b) + metric(b, c)
    assert kendall(a, b) == pairs_apart(a.tolist(), b.tolist())
    assert footrule(a, b) == sum(abs(a.tolist().index(x) - b.tolist().index(x)) for x in a.tolist())
    assert kendall(a, b) <= footrule(a, b) <= 2 * kendall(a, b)


@given(three(), st.randoms(use_true_random=False))
def test_distances_do_not_depend_on_names(rows: np.ndarray, random: object) -> None:
    renamed = np.array(sorted(range(rows.shape[1]), key=lambda _: random.random()))
    for metric in METRICS.values():
        assert metric(rows[0], rows[1]) == metric(renamed[rows[0]], renamed[rows[1]])


@pytest.mark.parametrize("m", range(2, 7))
@pytest.mark.parametrize("name", METRICS)
def test_diameter_is_the_largest_distance(name: str, m: int) -> None:
    apart = METRICS[name](all_orders(m), np.arange(m))
    assert apart.max() == diameter(name, m)
    assert apart[apart > 0].min() == {"kendall": 1, "footrule": 2}[name]


@given(ballots())
def test_medians_equal_brute_force(given_: np.ndarray) -> None:
    orders = all_orders(given_.shape[1])
    by_pairs = kendall(orders[:, None], given_[None]).sum(axis=1)
    by_places = footrule(orders[:, None], given_[None]).sum(axis=1)
    found = vote.Kemeny().decide(given_)
    assert found.tolist() == orders[by_pairs.argmin()].tolist()  # the first of equals
    order, cost, count = best(preferred(given_))
    assert (order.tolist(), cost, count) == (found.tolist(), by_pairs.min(), (by_pairs == by_pairs.min()).sum())
    near = vote.Footrule().decide(given_)
    assert footrule(near, given_).sum() == by_places.min()
    assert kendall(near, given_).sum() <= 2 * by_pairs.min()


def test_kemeny_of_seven_equals_brute_force() -> None:
    draw, orders = np.random.default_rng(7), all_orders(7)
    for _ in range(6):
        given_ = np.array([draw.permutation(7) for _ in range(5)])
        assert kendall(vote.Kemeny().decide(given_), given_).sum() == kendall(
            orders[:, None], given_[None]
        ).sum(axis=1).min()  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.kind)
@given(given_=ballots(), turn=st.integers(0, 6))
def test_every_rule_ranks_all_keeps_unanimity_and_hears_voters_alike(
    rule: vote.Policy, given_: np.ndarray, turn: int
) -> None:
    made = rule.decide(given_)
    assert sorted(made.tolist()) == list(range(given_.shape[1]))
    place, agreed = places(made), preferred(given_) == len(given_)
    assert not (agreed & (place[:, None] > place[None, :])).any()
    assert rule.decide(np.roll(given_, turn, axis=0)).tolist() == made.tolist()
    assert rule.decide(np.tile(given_[:1], (3, 1))).tolist() == given_[0].tolist()


@pytest.mark.parametrize("kind", kinds(vote))
def test_rules_are_built_by_name(kind: str) -> None:
    assert build(vote, kind, "rule").kind == kind


@given(ballots())
def test_kemeny_puts_a_condorcet_winner_first(given_: np.ndarray) -> None:
    wins = preferred(given_)
    for a in range(len(wins)):
        if all(wins[a, b] > wins[b, a] for b in range(len(wins)) if b != a):
            assert vote.Kemeny().decide(given_)[0] == a


def test_borda_may_not() -> None:
    given_ = np.array([[0, 1, 2]] * 3 + [[1, 2, 0]] * 2)
    assert vote.Kemeny().decide(given_)[0] == 0
    assert vote.Borda().decide(given_)[0] == 1


@given(ballots())
def test_borda_counts_places_and_wins_alike(given_: np.ndarray) -> None:
    """The sum of places is what is lost one to one; turned ballots turn the ranking where no sums are equal."""
    sums = places(given_).sum(axis=0)
    assert sums.tolist() == preferred(given_).sum(axis=0).tolist()
    made = vote.Borda().decide(given_)
    assert (np.diff(sums[made]) >= 0).all()
    if len(set(sums.tolist())) == len(sums):
        assert vote.Borda().decide(given_[:, ::-1]).tolist() == made[::-1].tolist()


@given(ballots(most=7))
def test_components_are_what_no_ranking_mixes(given_: np.ndarray) -> None:
    wins = preferred(given_)
    parts = components(wins)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(wins)))
    for i, part in enumerate(parts):
        for later in parts[i + 1 :]:
            assert (wins[np.ix_(part, later)] > wins[np.ix_(later, part)].T).all()


def test_a_circle_that_is_too_large_is_refused() -> None:
    m = LARGEST + 1
    turned = np.array([np.roll(np.arange(m), s) for s in range(m)])
    with pytest.raises(SpecError, match="borda or footrule"):
        vote.Kemeny().decide(turned)
    assert len(vote.Borda().decide(turned)) == m


def test_footrule_parts_no_pair_that_all_agree_on_where_many_are_equally_near() -> None:
    """Two opposed halves: any order of the middle is equally near by places, and only some keep what all say."""
    for order in permutations(range(4)):
        given_ = np.array([[0, 1, 2, 3], [2, 3, 0, 1]])[:, list(order)]
        made = vote.Footrule().decide(given_).tolist()
        agreed = np.argwhere(preferred(given_) == 2)
        assert all(made.index(a) < made.index(b) for a, b in agreed)
