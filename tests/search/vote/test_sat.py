"""The solver agrees with truth tables, and blames assumptions that do contradict the clauses."""

from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.search.vote.sat import Solver

VARIABLES = 7
LITERAL = st.integers(1, VARIABLES).flatmap(lambda v: st.sampled_from([v, -v]))
CLAUSES = st.lists(st.lists(LITERAL, min_size=1, max_size=3), max_size=14)


def satisfiable(clauses: list[list[int]], assumed: list[int]) -> bool:
    return any(
        all(any(bits[abs(x) - 1] == (x > 0) for x in c) for c in (*clauses, *([x] for x in assumed)))
        for bits in product((False, True), repeat=VARIABLES)
    )


@given(st.lists(CLAUSES, min_size=1, max_size=3), st.lists(LITERAL, max_size=4, unique_by=abs), st.data())
def test_answers_are_those_of_a_truth_table(
    parts: list[list[list[int]]], assumed: list[int], data: st.DataObject
) -> None:
    solver, clauses = Solver(), []
    for _ in range(VARIABLES):
        solver.variable(likely=data.draw(st.booleans()))
    for part in parts:  # clauses come in between answers
        for clause in part:
            solver.add(clause)
        clauses += part
        blamed = solver.solve(assumed)
        if blamed is None:
            assert all(any(solver.holds(abs(x)) == (x > 0) for x in c) for c in clauses)
            assert all(solver.holds(abs(x)) == (x > 0) for x in assumed)
        else:
            assert set(blamed) <= set(assumed)
            assert not satisfiable(clauses, blamed)


@pytest.mark.parametrize("holes", [2, 5])
def test_pigeons_do_not_fit(holes: int) -> None:
    solver = Solver()
    at = [[solver.variable() for _ in range(holes)] for _ in range(holes + 1)]
    for row in at:
        solver.add(row)
    for hole in range(holes):
        for a, b in combinations(range(holes + 1), 2):
            solver.add((-at[a][hole], -at[b][hole]))
    assert solver.solve() == []
