"""What is said of a ranking is so: witnesses of what it breaks, totals, ties; ballots are read or refused clearly."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import build, kinds
from fleetcast.policy import vote
from fleetcast.policy.vote.metrics import all_orders, footrule, kendall, places
from fleetcast.search.vote.ballots import Poll, from_ballots, from_ranking, read
from fleetcast.search.vote.choice import choose, circle
from fleetcast.search.vote.solver import kemeny

CYCLE = {"ballots": {"one": ["a", "b", "c"], "two": ["b", "c", "a"], "three": ["c", "a", "b"]}}


def poll(orders: list[list[int]]) -> Poll:
    return Poll(
        tuple(f"v{i}" for i in range(len(orders))),
        tuple("abcdefgh"[: len(orders[0])]),
        np.array(orders, dtype=np.int64),
    )


@given(st.integers(2, 5).flatmap(lambda m: st.lists(st.permutations(range(m)), min_size=1, max_size=6)))
@pytest.mark.parametrize("rule", kinds(vote))
def test_what_is_said_is_so(rule: str, orders: list[list[int]]) -> None:
    asked = poll(orders)
    found, policy = choose(asked, rule), build(vote, rule, "rule")
    every, place = all_orders(len(orders[0])), places(found.order)
    totals = kendall(every[:, None], asked.orders[None]).sum(axis=1)
    assert found.pairs.sum() == kendall(found.order, asked.orders).sum()
    assert found.moved.sum() == footrule(found.order, asked.orders).sum()
    assert found.parted == ()
    if rule == "kemeny":
        assert found.bound == totals.min() == found.pairs.sum()
        assert found.equals == (totals == totals.min()).sum()
        assert found.winner is None or found.order[0] == found.winner
    if found.circle is not None:
        for a, b in zip(found.circle, (*found.circle[1:], found.circle[0]), strict=True):
            assert 2 * (places(asked.orders)[:, a] < places(asked.orders)[:, b]).sum() > len(orders)
    if found.swayed is not None:
        x, a, b = found.swayed
        moved = np.array([[*(y for y in row if y != x), x] for row in orders])
        again = places(policy.decide(moved))
        assert again[a] < again[b]
        assert place[b] < place[a]


def test_condorcets_circle_is_found() -> None:
    found = choose(from_ballots(CYCLE))
    assert found.winner is None
    assert found.circle == (0, 1, 2)
    assert found.table()["condorcet"]["circle"] == ["a", "b", "c"]
    assert found.equals == 3
    assert circle(np.zeros((3, 3), dtype=bool)) is None


def test_borda_is_swayed_by_a_plan_that_nobody_wants_first() -> None:
    """Three prefer a, two prefer b and put c between: without c, a is ahead."""
    found = choose(poll([[0, 1, 2]] * 3 + [[1, 2, 0]] * 2), "borda")
    assert found.order.tolist()[:2] == [1, 0]
    assert found.winner == 0
    assert found.swayed == (2, 0, 1)


def test_the_solver_equals_the_recursion() -> None:
    pytest.importorskip("ortools")
    draw = np.random.default_rng(5)
    for m in (2, 5, 8, 11):
        ballots = np.array([draw.permutation(m) for _ in range(7)])
        order, cost, bound = kemeny(ballots, smallest=2)
        assert sorted(order.tolist()) == list(range(m))
        assert cost == bound == kendall(order, ballots).sum() == kendall(vote.Kemeny().decide(ballots), ballots).sum()


def test_many_plans_in_one_circle_go_to_the_solver_or_ask_for_it() -> None:
    m = 18
    orders = [np.roll(np.arange(m), s).tolist() for s in range(m)]
    asked = Poll(tuple(map(str, range(m))), tuple(map(str, range(m))), np.array(orders))
    if find_spec("ortools") is None:
        from fleetcast.base.errors import MissingExtra

        with pytest.raises(MissingExtra, match=r"fleetcast\[solve\]"):
            choose(asked)
        return
    found = choose(asked)
    assert found.bound is not None
    assert found.bound <= found.pairs.sum() == kendall(np.arange(m), asked.orders).sum()


def test_a_circle_too_large_for_any_solver_is_refused() -> None:
    orders = np.array([np.roll(np.arange(61), s) for s in range(61)])
    names = tuple(map(str, range(61)))
    with pytest.raises(SpecError, match="borda or footrule"):
        choose(Poll(names, names, orders))
    assert choose(Poll(names, names, orders), "borda").order.tolist() == list(range(61))


RANKED = {
    "plans": [
        {"plan": {}, "metrics": {"cost": 2.0, "e2e": {"mean": 1.0}, "throughput": 5.0, "ttft": {"p99": 0.3}}},
        {"plan": {}, "metrics": {"cost": 1.0, "e2e": {"mean": 3.0}, "throughput": 7.0, "ttft": {"p99": 0.2}}},
        {"plan": {"way": "w"}, "metrics": {"cost": 1.0, "e2e": {"mean": 2.0}, "throughput": 6.0, "ttft": {"p99": 0.1}}},
    ]
}


def test_goals_rank_the_plans_of_a_search(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    file.write_text(json.dumps(RANKED))
    asked = read(file, ["cost", "latency", "throughput", "ttft.p99"])
    assert asked.plans == ("plan 1", "plan 2", "w")
    assert asked.orders.tolist() == [[1, 2, 0], [0, 2, 1], [1, 2, 0], [2, 1, 0]]
    assert asked.notes == ("plans equal in cost stay in the order of the search",)


@pytest.mark.parametrize(
    ("table", "path", "said"),
    [
        ({}, "file.ballots", "missing"), ({"ballots": {}}, "ballots", "is empty"),
        ({"ballots": {"one": []}}, "ballots.one", "ranks nothing"),
        ({"ballots": {"one": ["a", "a"]}}, "ballots.one", "twice"),
        ({"ballots": {"one": ["a", "b"], "two": ["a"]}}, "ballots.two", "leaves out b"),
        ({"ballots": {"one": ["a", "bb"], "two": ["a", "b"]}}, "ballots.two", "Did you mean 'bb'"),
        ({"ballots": {"one": ["a", ["b", "c"]]}}, "ballots.one[1]", "is no text"),
        ({"ballots": {"one": "ab"}}, "ballots.one", "is no list"),
        ({"ballots": {"one": ["a", 1], "two": [1, "a"]}}, "ballots.one[1]", 'Write "1"'),
        ({"ballots": {"one": ["a"], "two": {"a": 1}}}, "ballots.two", "is no list"),
        ({"plans": [1, 2], "ballots": {"one": ["1", "2"]}}, "plans[0]", "is no text"),
        ({"plans": ["a", "a"], "ballots": {"one": ["a", "b"]}}, "plans", "twice"),
        ({"plans": ["a", "b"], "ballots": {"one": ["a"]}}, "ballots.one", "leaves out b"),
        ({"ballot": {"one": ["a"]}}, "ballot", "Did you mean 'ballots'"),
        ({"ballots": {"one": [str(i) for i in range(201)]}}, "plans", "200"),
    ],
)  # fmt: skip
def test_ballots_that_are_no_rankings_are_refused(table: dict[str, Any], path: str, said: str) -> None:
    with pytest.raises(SpecError) as error:
        from_ballots(table)
    assert error.value.path.startswith(path)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("table", "by", "said"),
    [
        (RANKED, [], "goal"), (RANKED, ["cost", "cost"], "once"), (RANKED, ["costt"], "Did you mean 'cost'"),
        (RANKED, ["energy"], "no number"), ({"plans": [{"plan": {}}]}, ["cost"], "not a search's"),
        ({"plans": [{"metrics": {"cost": float("nan")}}]}, ["cost"], "no number"),
    ],
)  # fmt: skip
def test_goals_that_do_not_rank_are_refused(table: dict[str, Any], by: list[str], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        from_ranking(table, by)


@given(st.text(max_size=60) | st.binary(max_size=40).map(lambda b: "{" + b.decode("latin-1")))
def test_any_text_is_read_or_refused(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ballots.toml"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(SpecError):
            read(file)
