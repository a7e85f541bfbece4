"""The rules of the pebble game, its costs, and what no schedule undercuts."""

import itertools
import math
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.cost.pebbling import families
from fleetcast.cost.pebbling.bounds import (
    Bound,
    butterfly_io,
    front,
    lower_bound,
    matrix_product_io,
    matrix_product_tight,
    reach,
)  # fmt: skip
from fleetcast.cost.pebbling.check import cost, prove
from fleetcast.cost.pebbling.dag import Dag, parse, read, unit, write
from fleetcast.cost.pebbling.game import COMPUTE, DELETE, LOAD, SAVE, game
from tests.cost.pebbling.graphs import dags

VEE = unit([(), (), (0, 1)], ("a", "b", "c"))
RIGHT = [(LOAD, 0, 0), (LOAD, 0, 1), (COMPUTE, 0, 2), (SAVE, 0, 2)]


def test_a_legal_schedule_is_proven() -> None:
    proof = prove(game(VEE, red=3, g=4), RIGHT)
    assert proof.legal
    assert (proof.cost, proof.lower_bound, proof.gap) == (13.0, 13.0, 0.0)
    assert (proof.loads, proof.saves, proof.computes, proof.again, proof.moved) == (2, 1, 1, 0, 3.0)
    assert proof.peak == (3.0,)
    assert proof.table()["at"] is None


@pytest.mark.parametrize(
    ("moves", "at", "said"),
    [
        ([(COMPUTE, 0, 2)], 0, "COMPUTE c on processor 0, which does not hold its input a"),
        ([(LOAD, 0, 0), (COMPUTE, 0, 2)], 1, "does not hold its input b"),
        ([(LOAD, 0, 2)], 0, "LOAD c on processor 0, but slow memory does not hold it"),
        ([(LOAD, 0, 0), (LOAD, 0, 0)], 1, "LOAD a on processor 0, which holds it"),
        ([(SAVE, 0, 2)], 0, "SAVE c on processor 0, which does not hold it"),
        ([(LOAD, 0, 0), (SAVE, 0, 0)], 1, "SAVE a on processor 0, but slow memory holds it"),
        ([(COMPUTE, 0, 0)], 0, "inputs are loaded, not computed"),
        ([*RIGHT[:3], (COMPUTE, 0, 2)], 3, "COMPUTE c on processor 0, which holds it"),
        ([(DELETE, 0, 0)], 0, "DELETE a on processor 0, which does not hold it"),
        ([(LOAD, 1, 0)], 0, "LOAD on processor 1; there are 1"),
        ([(LOAD, 0, 3)], 0, "LOAD node 3; there are 3"),
        ([(7, 0, 0)], 0, "7 is no move; moves are LOAD, SAVE, COMPUTE, DELETE"),
        (RIGHT[:3], 3, "the schedule ends, and slow memory does not hold c"),
    ],
)
def test_an_illegal_move_is_named_with_its_reason(moves, at: int, said: str) -> None:
    proof = prove(game(VEE, red=3), moves)
    assert not proof.legal
    assert proof.at == at
    assert said in proof.reason
    assert said in proof.lines()[0]


def test_a_full_memory_is_named_with_its_size() -> None:
    heavy = Dag(((), (), (0, 1)), (1.0,) * 3, (2.0, 2.0, 1.5))
    assert prove(game(heavy, red=5.5), RIGHT).legal
    proof = prove(game(heavy, red=5), RIGHT)
    assert (proof.at, proof.reason) == (2, "COMPUTE 2 on processor 0 needs 5.5 of memory, which has 5")


def test_computing_twice_may_be_forbidden() -> None:
    twice = [(LOAD, 0, 0), (COMPUTE, 0, 1), (DELETE, 0, 1), (COMPUTE, 0, 1), (SAVE, 0, 1)]
    line = unit([(), (0,)])
    assert prove(game(line, red=2), twice).again == 1
    proof = prove(game(line, red=2, again=False), twice)
    assert (proof.at, proof.reason) == (
        3,
        "COMPUTE 1 on processor 0, but it has been computed, and only once is allowed",
    )


def test_inputs_may_be_computed_instead() -> None:
    line = unit([(), (0,)])
    of = game(line, red=2, g=5, inputs="computed")
    assert prove(of, [(COMPUTE, 0, 0), (COMPUTE, 0, 1), (SAVE, 0, 1)]).cost == 7.0
    assert "slow memory does not hold it" in prove(of, [(LOAD, 0, 0)]).reason


def test_moves_of_one_kind_run_at_once_and_loads_wait_for_saves() -> None:
    """Two processors compute one value each from inputs of their own; one of them is sent over."""
    x = unit([(), (), (0,), (1,), (2, 3)])
    moves = [
        (LOAD, 0, 0), (LOAD, 1, 1), (COMPUTE, 0, 2), (COMPUTE, 1, 3), (SAVE, 0, 2), (DELETE, 1, 1), (LOAD, 1, 2),
        (COMPUTE, 1, 4), (SAVE, 1, 4),
    ]  # fmt: skip
    both = game(x, red=3, g=3, processors=2)
    assert prove(both, moves).cost == 3 + 1 + 3 + 3 + 1 + 3
    assert (
        prove(game(x, red=3, g=3, processors=2, latency=10), moves).cost == 14 + 3 * 10
    )  # load; compute-load; compute-save
    slow = game(x, red=3, g=3, processors=2, timing="asynchronous", works=[[0, 0, 9, 0, 0], [0, 0, 0, 1, 1]])
    assert prove(slow, moves).cost == 3 + 9 + 3 + 3 + 1 + 3  # the load waits for the other's save
    for of in (both, slow):
        assert cost(of, moves) == prove(of, moves).cost


def test_a_million_moves_are_checked_in_a_second() -> None:
    n = 200_000
    moves = [
        (LOAD, 0, 0),
        *itertools.chain(*(((COMPUTE, 0, i), (DELETE, 0, i - 1)) for i in range(1, n))),
        (SAVE, 0, n - 1),
    ]
    of = game(families.chain(n), red=2)
    start = process_time()
    proof = prove(of, moves, Bound(1.0, "", {}))
    assert proof.legal
    assert len(moves) / (process_time() - start) > 0.5e6  # 4 M where nothing else runs


def test_games_that_cannot_be_are_refused() -> None:
    with pytest.raises(SpecError, match=r"red: cannot hold c beside its 2 inputs.*at least 3"):
        game(VEE, red=2).demand()
    with pytest.raises(SpecError, match="processors"):
        game(VEE, red=2, processors=0)
    with pytest.raises(SpecError, match="is not one a processor"):
        game(VEE, red=[2, 2, 2], processors=2)
    with pytest.raises(SpecError, match="finite number"):
        game(VEE, red=-1)
    with pytest.raises(SpecError, match="works"):
        game(VEE, red=3, works=[[1, 1]])


@pytest.mark.parametrize(
    ("parents", "work", "said"),
    [
        (((1,), (0,)), (1.0, 1.0), "cycle among 0, 1"),
        (((3,),), (1.0,), "names no node"),
        (((), (0, 0)), (1.0, 1.0), "names a node twice"),
        (((),), (math.nan,), "is no weight"),
        (((),), (-1.0,), "is no weight"),
        (((),), (), "is not one a node"),
    ],
)
def test_graphs_that_cannot_be_are_refused(parents, work, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Dag(parents, work, (1.0,) * len(parents))


@given(dags(most=9))
def test_files_are_read_as_they_are_written(dag: Dag) -> None:
    assert parse(write(dag, "a note\nof two lines")) == dag


def test_files_of_others_are_read(tmp_path) -> None:
    path = tmp_path / "small.hdag"
    path.write_text("% two inputs and a sum\n2 3 4\n0 0\n0 2\n1 1\n1 2\n0 1 1\n1 1 1\n2 5 3\n")
    dag = read(path)
    assert (dag.parents, dag.work[2], dag.size[2]) == (((), (), (0, 1)), 5.0, 3.0)


BROKEN = (
    "", "1 2", "x y z", "1 2 2\n0 0\n0 1\n0 1 1", "1 2 2\n0 0\n0 9\n0 1 1\n1 1 1", "1 2 2\n0 0\n5 1\n0 1 1\n1 1 1",
    "1 2 2\n0 0\n0 1\n0 1 1\n7 1 1", "-1 -2 -3", "999999999999 1 0\n0 1 1",
)  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_broken_files_are_refused_or_read_but_never_crash(text: str) -> None:
    try:
        parse(text)
    except SpecError as error:
        assert str(error)


@given(st.text(alphabet="0123456789 \n-x%", max_size=80))
def test_any_text_is_refused_or_read(text: str) -> None:
    try:
        parse(text)
    except SpecError as error:
        assert str(error)


def test_a_file_that_is_not_there_is_refused(tmp_path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        read(tmp_path / "none.hdag")


@given(dags(most=8))
@settings(max_examples=60, deadline=None)
def test_the_cut_is_the_smallest_of_all(dag: Dag) -> None:
    """Menger: what paths carry is the lightest set that meets every way from before a value to behind it."""
    of = game(dag, red=1)
    for v in range(len(dag)):
        before, after = reach(dag.parents, v), reach(dag.children, v) - {v}
        if not after:
            continue
        least = math.inf
        others = [u for u in range(len(dag)) if u not in after]
        for count in range(len(others) + 1):
            for cut in itertools.combinations(others, count):
                seen, ahead = {u for u in before if u not in cut}, [u for u in before if u not in cut]
                while ahead:
                    for c in dag.children[ahead.pop()]:
                        if c not in seen and c not in cut:
                            seen.add(c)
                            ahead.append(c)
                if not seen & after:
                    least = min(least, sum(dag.size[u] for u in cut))
        assert front(of, v) == least


def test_bounds_of_named_graphs() -> None:
    assert lower_bound(game(families.chain(9), red=2, g=3)).value == 8 + 6
    assert lower_bound(game(families.grid(5, 5), red=4, g=2)).name == "wavefront"
    assert lower_bound(game(families.tree(3), red=9, processors=4)).all["whole steps"] == 2 + 2 + 1
    # Hong and Kung's counts never exceed the sharper one, and grow as they should.
    for n, red in itertools.product((4, 8, 32, 64), (4, 16, 64)):
        assert matrix_product_io(n, red) <= max(3 * n * n, matrix_product_tight(n, red))
    assert matrix_product_io(256, 64) / matrix_product_io(128, 64) == pytest.approx(8, rel=0.01)
    assert butterfly_io(2**16, 4) > 2.6 * 2**16
