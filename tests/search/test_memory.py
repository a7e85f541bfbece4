"""Schedules of the pebble game: legal, never below the exact least, never above where they began."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.cost.pebbling import families
from fleetcast.cost.pebbling.bounds import lower_bound
from fleetcast.cost.pebbling.check import cost, prove
from fleetcast.cost.pebbling.dag import Dag, unit
from fleetcast.cost.pebbling.game import Game, game
from fleetcast.policy.evict import Belady, Fifo, Lfu, Lru
from fleetcast.search.memory.exact import exact
from fleetcast.search.memory.holistic import by_greed, holistic, two_stage
from fleetcast.search.memory.moves import Largest
from tests.cost.pebbling import plain
from tests.cost.pebbling.graphs import dags

RULES = (Belady(), Lru(), Largest(), Fifo(), Lfu())


@st.composite
def games(draw, most: int = 9, processors: int = 3) -> Game:
    dag = draw(dags(most=most, unit=draw(st.booleans())))
    k = draw(st.integers(1, processors))
    inputs = draw(st.sampled_from(["loaded", "computed"]))
    of = game(dag, red=1, inputs=inputs)
    least = max((of.needs[v] for v in range(len(dag)) if v not in of.given), default=1.0)
    return game(
        dag, red=least + draw(st.integers(0, 3)), g=draw(st.sampled_from([0.5, 1, 2, 5])), processors=k, inputs=inputs,
        timing=draw(st.sampled_from(["synchronous", "asynchronous"])), again=draw(st.booleans()),
    )  # fmt: skip


@given(games(most=14))
@settings(max_examples=80, deadline=None)
def test_every_schedule_is_legal_and_none_undercuts_the_bound(of: Game) -> None:
    bound = lower_bound(of)
    found = [two_stage(of, rule) for rule in RULES] + [by_greed(of, rule) for rule in RULES] + [holistic(of, tries=200)]
    for schedule in found:
        proof = prove(of, schedule.moves, bound)
        assert proof.legal, proof.reason
        assert proof.cost == pytest.approx(schedule.cost) == pytest.approx(cost(of, schedule.moves))
        assert proof.cost >= bound.value - 1e-9
    assert found[-1].cost <= min(schedule.cost for schedule in found[:3])
    assert found[-1].cost <= found[5].cost


@given(
    dags(most=7, unit=True),
    st.integers(1, 2),
    st.integers(0, 2),
    st.sampled_from([1, 2, 3]),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_the_least_cost_is_that_of_brute_force(
    dag: Dag, k: int, more: int, g: int, computed: bool, again: bool
) -> None:
    if k > 1 and len(dag) > 5:
        return  # its states are as many as pairs of sets
    red = 1 + max(map(len, dag.parents)) + more
    of = game(dag, red=red, g=g, processors=k, inputs="computed" if computed else "loaded", again=again)
    found = exact(of)
    assert found.proven
    truth = plain.least([list(some) for some in dag.parents], k, red, g, computed=computed, again=again)
    assert found.cost == truth
    proof = prove(of, found.moves)
    assert proof.legal, proof.reason
    assert proof.cost == found.cost >= proof.lower_bound


@pytest.mark.parametrize(
    ("dag", "k", "red"),
    [
        (families.pyramid(3), 1, 3), (families.grid(3, 4), 1, 3), (families.butterfly(4), 1, 4),
        (families.pyramid(2), 2, 3), (families.grid(2, 3), 2, 3), (families.tree(2), 2, 3), (families.grid(2, 4), 2, 3),
        pytest.param(families.grid(3, 3), 2, 3, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_the_least_cost_of_named_graphs_is_that_of_brute_force(dag: Dag, k: int, red: int) -> None:
    found = exact(game(dag, red=red, g=2, processors=k))
    assert found.proven
    assert found.cost == plain.least([list(some) for some in dag.parents], k, red, 2)


@given(games(most=9, processors=2))
@settings(max_examples=40, deadline=None)
def test_nothing_undercuts_the_least_cost(of: Game) -> None:
    if of.processors > 1 and of.timing == "asynchronous":
        return
    found = exact(of, states=20_000)
    proof = prove(of, found.moves)
    assert proof.legal, proof.reason
    assert proof.cost == pytest.approx(found.cost)
    assert lower_bound(of).value <= found.least + 1e-9 <= found.cost + 2e-9
    assert found.cost <= holistic(of, tries=200).cost + 1e-9


@given(dags(most=9))
@settings(max_examples=30, deadline=None)
def test_one_processor_by_single_moves_costs_the_same(dag: Dag) -> None:
    """The search whose step is one move and that whose step is a compute agree."""
    from fleetcast.search.memory.bits import Bits
    from fleetcast.search.memory.many import many

    of = game(dag, red=max(game(dag, red=1).needs), g=1)
    found = many(Bits(of), float("inf"), 50_000)
    assert found.proven
    assert found.cost == pytest.approx(exact(of).cost)


@pytest.mark.parametrize(
    ("dag", "number"),
    [
        (families.chain(6), 2),
        (families.tree(1), 3), (families.tree(2), 4), (families.tree(3), 5),
        (families.pyramid(1), 3), (families.pyramid(2), 4), (families.pyramid(3), 5), (families.pyramid(4), 6),
        (families.grid(2, 2), 3), (families.grid(3, 3), 4), (families.grid(3, 4), 4), (families.grid(4, 4), 5),
    ],
)  # fmt: skip
def test_pebble_numbers(dag: Dag, number: int) -> None:
    """Fewest pebbles with which nothing is saved but the result: h + 2 of trees and pyramids, m + 1 of m x n grids."""
    io = 1000.0
    least = sum(1 for _ in dag.parents) + io
    enough = exact(game(dag, red=number, g=io, inputs="computed"))
    assert prove(game(dag, red=number, g=io, inputs="computed"), enough.moves).moved == 1
    assert enough.cost == least  # each value once
    if number > 1 + max(map(len, dag.parents)):
        less = exact(game(dag, red=number - 1, g=io, inputs="computed", again=False))
        assert less.cost >= least + 2 * io


def test_computing_again_may_beat_moving() -> None:
    """A value at the start and the end of a row: with dear moves it is computed twice, and that is less."""
    row = unit([(), (0,), (1,), (2,), (3,), (4, 1)])
    once, twice = (exact(game(row, red=3, g=4, again=again)) for again in (False, True))
    assert (once.cost, twice.cost) == (13.0, 13.0)
    wide = unit([(), (0,), (1,), (1, 2), (3, 2), (4, 1), (5, 0)])
    for red, saved in ((3, True),):
        once, twice = (exact(game(wide, red=red, g=4, again=again)) for again in (False, True))
        assert (twice.cost < once.cost) is saved
        assert prove(game(wide, red=red, g=4), twice.moves).again > 0
        assert holistic(game(wide, red=red, g=4)).cost == twice.cost


def test_two_processors_are_more_than_twice_as_fast() -> None:
    """A chain that reads two tables in turn, on memories that hold one: exact for both, and unbounded in the table."""
    dag = families.alternating(10, 10)
    one, two = (exact(game(dag, red=12, g=1, processors=k)) for k in (1, 2))
    assert one.proven
    assert two.proven
    assert (one.cost, two.cost) == (10 * 11 + 1, 10 + 10 + 9 * 2 + 1)
    assert one.cost / two.cost > 2.8
    assert holistic(game(dag, red=12, processors=2)).cost == two.cost


def test_searching_for_more_than_bits_hold_is_refused() -> None:
    with pytest.raises(Unsupported, match="30 nodes"):
        exact(game(families.chain(30), red=2))
    with pytest.raises(Unsupported, match="without latency"):
        exact(game(families.chain(3), red=2, processors=2, timing="asynchronous"))
    with pytest.raises(Unsupported, match="without latency"):
        exact(game(families.chain(3), red=2, latency=1.0))
    with pytest.raises(SpecError, match="cannot hold"):
        exact(game(families.tree(1), red=2))


def test_states_that_run_out_leave_a_bound() -> None:
    of = game(families.grid(3, 4), red=3, processors=2, g=2)
    found = exact(of, states=500)
    assert not found.proven
    assert lower_bound(of).value <= found.least < found.cost
    assert prove(of, found.moves).legal


def test_local_search_is_deterministic() -> None:
    of = game(families.butterfly(8), red=5, g=2, processors=2)
    assert holistic(of, tries=300).moves == holistic(of, tries=300).moves
