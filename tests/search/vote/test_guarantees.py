"""Rules found keep their promise in runs that are simulated anew, and what is refused is refused by brute force too."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, permutations, product
from typing import Any

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.search.vote.guarantees import Answer, search
from fleetcast.search.vote.problem import Promise
from fleetcast.search.vote.runs import Runs, Setting, heard_from, patterns
from fleetcast.search.vote.told import table
from fleetcast.search.vote.witness import contradict

ONE = Promise()


def subsets(of: list[int]) -> list[tuple[int, ...]]:
    return [part for size in range(len(of) + 1) for part in combinations(of, size)]


def plays(setting: Setting) -> Iterator[tuple[tuple[Any, ...], dict[int, Any], frozenset[int]]]:
    """Passes messages: (ballots, what each process that decides knows in the end, who crashed), for every run.

    What is known is the process, and what it has been told, ballots and all. It shares no code with `runs`.
    """
    n = setting.processes
    orders = list(permutations(range(setting.plans)))
    for ballots in product(orders, repeat=n):
        begun = {i: (i, ballots[i]) for i in range(n)}
        for fate in fates(setting) if setting.synchronous else [{}]:
            for mind in thoughts(setting, begun, fate, 0):
                yield ballots, {i: known for i, known in mind.items() if i not in fate}, frozenset(fate)


def fates(setting: Setting) -> Iterator[dict[int, tuple[int, tuple[int, ...]]]]:
    """Yields who crashes in which round, reaching whom in it."""
    n = setting.processes
    for crashed in subsets(list(range(n))):
        if len(crashed) <= setting.crashes:
            ends = [
                [(r, part) for r in range(setting.rounds) for part in subsets([j for j in range(n) if j != c])]
                for c in crashed
            ]
            for chosen in product(*ends):
                yield dict(zip(crashed, chosen, strict=True))


def thoughts(setting: Setting, mind: dict[int, Any], fate: dict[int, Any], r: int) -> Iterator[dict[int, Any]]:
    n, need = setting.processes, setting.processes - setting.crashes
    if r == setting.rounds:
        yield mind
    elif setting.synchronous:

        def arrives(j: int, i: int) -> bool:
            return j == i or j not in fate or r < fate[j][0] or (r == fate[j][0] and i in fate[j][1])

        yield from thoughts(
            setting, {i: (i, tuple(mind[j] for j in range(n) if arrives(j, i))) for i in range(n)}, fate, r + 1
        )
    else:
        ways = [[s for s in combinations(range(n), need) if i in s] for i in range(n)]
        for chosen in product(*ways):
            yield from thoughts(setting, {i: (i, tuple(mind[j] for j in chosen[i])) for i in range(n)}, fate, r + 1)


def told_ballots(known: Any) -> dict[int, tuple[int, ...]]:
    """The ballots that a process has been told, by process."""
    i, rest = known
    if all(isinstance(x, int) for x in rest):
        return {i: rest}
    return {j: b for part in rest for j, b in told_ballots(part).items()}


def must(ballots: list[tuple[int, ...]]) -> set[tuple[int, int]]:
    """The pairs that ballots agree on."""
    return {(a, b) for a, b in permutations(ballots[0], 2) if all(v.index(a) < v.index(b) for v in ballots)}


def holds(made: list[tuple[int, ...]], promise: Promise) -> bool:
    if promise.most is not None:
        return len(set(made)) <= promise.most
    far = {
        "kendall": lambda a, b: sum(
            (a.index(x) < a.index(y)) != (b.index(x) < b.index(y)) for x, y in combinations(a, 2)
        ),
        "footrule": lambda a, b: sum(abs(a.index(x) - b.index(x)) for x in a),
    }[promise.metric]
    return all(far(a, b) <= promise.within for a, b in combinations(made, 2))


def check_map(answer: Answer) -> int:
    """Holds a rule that was found to its promise in every run played anew; returns how many."""
    runs, setting, promise = answer.runs, answer.runs.setting, answer.promise
    assert answer.map is not None
    orders = [tuple(row) for row in runs.orders.tolist()]

    def shape(known: Any) -> Any:
        return known[0] if isinstance(known[1][0], int) else (known[0], tuple(map(shape, known[1])))

    count = 0
    for ballots, minds, crashed in plays(setting):
        made = []
        for known in minds.values():
            heard, number = told_ballots(known), 0
            for j in sorted(heard):
                number = number * len(orders) + orders.index(heard[j])
            made.append(orders[answer.map[runs.start[shape(known)] + number]])
        whose = [b for i, b in enumerate(ballots) if promise.unanimity == "all" or i not in crashed]
        assert all(ranking.index(a) < ranking.index(b) for ranking in made for a, b in must(whose))
        assert holds(made, promise)
        count += 1
    return count


def any_rule(setting: Setting, promise: Promise) -> bool:
    """Tries every rule there is: each ranking for each view, one rule after the other."""
    orders = list(permutations(range(setting.plans)))
    played = list(plays(setting))
    free: dict[Any, set[tuple[int, ...]]] = {}
    for ballots, minds, _ in played:
        for known in minds.values():
            fits = {o for o in orders if all(o.index(a) < o.index(b) for a, b in must(list(ballots)))}
            free[known] = free.get(known, set(orders)) & fits
    choices = {known: sorted(rankings) for known, rankings in free.items()}
    open_ = [known for known, rankings in choices.items() if len(rankings) > 1]
    assert np.prod([len(choices[known]) for known in open_]) <= 2**16, "too many rules to try"
    runs = {tuple(minds.values()) for _, minds, _ in played}
    for chosen in product(*(choices[known] for known in open_)):
        rule = {known: rankings[0] for known, rankings in choices.items()} | dict(zip(open_, chosen, strict=True))
        if all(holds([rule[known] for known in run], promise) for run in runs):
            return True
    return False


@pytest.mark.parametrize(
    ("setting", "promise"),
    [
        (Setting(2, 2, 1, True, 1), ONE), (Setting(2, 2, 1, True, 2), ONE), (Setting(2, 2, 0, True, 1), ONE),
        (Setting(3, 2, 1, False, 1), ONE), (Setting(3, 2, 1, False, 1), Promise(2)), (Setting(2, 2, 1, False, 1), ONE),
        (Setting(2, 2, 1, True, 1), Promise(2)), (Setting(3, 2, 2, False, 1), Promise(2)),
        (Setting(2, 2, 0, False, 2), ONE), (Setting(2, 3, 1, False, 1), Promise(None, 1)),
        (Setting(2, 3, 1, False, 1), Promise(None, 3)), (Setting(3, 2, 1, False, 1), Promise(None, 1)),
    ],
)  # fmt: skip
def test_the_answer_is_that_of_trying_every_rule(setting: Setting, promise: Promise) -> None:
    assert search(setting, promise).exists == any_rule(setting, promise)


TABLE = [
    (Setting(3, 3, 0, True, 1), ONE, True), (Setting(3, 3, 1, True, 1), ONE, False),
    (Setting(3, 3, 1, True, 2), ONE, True), (Setting(3, 3, 1, True, 1), Promise(2), True),
    (Setting(3, 3, 1, False, 1), ONE, False), (Setting(3, 3, 1, False, 2), ONE, False),
    (Setting(3, 3, 1, False, 1), Promise(2), True), (Setting(3, 3, 1, False, 1), Promise(None, 1), False),
    (Setting(3, 3, 1, False, 1), Promise(None, 2), True), (Setting(3, 3, 1, False, 2), Promise(None, 2), True),
    (Setting(3, 3, 1, True, 1), Promise(None, 1), False), (Setting(3, 3, 1, False, 1), Promise(None, 3), True),
    (Setting(3, 3, 1, True, 2), Promise(1, unanimity="correct"), False),
    (Setting(3, 3, 2, False, 1), Promise(2), False), (Setting(3, 3, 2, False, 1), Promise(3), True),
    (Setting(3, 3, 1, False, 1), Promise(None, 2, "footrule"), False),
]  # fmt: skip


@pytest.mark.parametrize(("setting", "promise", "exists"), TABLE)
def test_rules_keep_their_promise_and_witnesses_contradict_themselves(
    setting: Setting, promise: Promise, exists: bool
) -> None:
    found = search(setting, promise)
    assert found.exists == exists
    assert (found.map is not None) == exists
    if exists:
        assert check_map(found) >= found.runs.count
        return
    runs = found.runs
    allowed, near = runs.allowed(promise.unanimity == "correct"), promise.near(runs.orders)
    assert found.witness
    if found.minimal:
        assert contradict(found.witness, promise, allowed, near)
        for i in range(len(found.witness)):
            assert not contradict([*found.witness[:i], *found.witness[i + 1 :]], promise, allowed, near)


@pytest.mark.parametrize(("setting", "promise", "exists"), [row for row in TABLE if row[0].rounds == 1])
def test_cp_sat_says_the_same(setting: Setting, promise: Promise, exists: bool) -> None:
    """A second solver, all runs at once, over integers."""
    cp_model = pytest.importorskip("ortools.sat.python.cp_model")
    runs = Runs(setting)
    allowed, near = runs.allowed(promise.unanimity == "correct"), promise.near(runs.orders)
    model, variables, seen = cp_model.CpModel(), {}, set()

    def variable(view: int) -> Any:
        if view not in variables:
            domain = cp_model.Domain.from_values(np.flatnonzero(allowed[view]).tolist())
            variables[view] = model.new_int_var_from_domain(domain, str(view))
        return variables[view]

    for pattern in runs.patterns:
        for row in runs.decided(pattern).tolist():
            parts = list(combinations(row, 2)) if promise.most is None else [tuple(row)]
            for part in parts:
                if part in seen:
                    continue
                seen.add(part)
                rows = [
                    chosen for chosen in product(*(np.flatnonzero(allowed[v]).tolist() for v in part))
                    if (near[chosen] if promise.most is None else len(set(chosen)) <= promise.most)
                ]  # fmt: skip
                if not rows:
                    assert not exists
                    return
                model.add_allowed_assignments([variable(v) for v in part], rows)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    assert solver.solve(model) == (cp_model.OPTIMAL if exists else cp_model.INFEASIBLE)


def test_views_and_patterns_are_counted_as_by_hand() -> None:
    runs = Runs(Setting(3, 3, 1, False, 1))
    assert (len(runs.patterns), runs.views, runs.count) == (8, 3 * 2 * 36, 8 * 216)
    told = patterns(Setting(3, 3, 1, True, 1))
    assert len(told) == 1 + 3 * 4  # nobody, or one of three that reaches any part of two
    played = {(b, tuple(m.values())) for b, m, _ in plays(Setting(3, 2, 1, True, 2))}
    assert len(played) == len(patterns(Setting(3, 2, 1, True, 2))) * 8
    assert all(heard_from(s) for p in told for s in p.shapes)


def test_a_search_that_takes_too_long_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetcast.search.vote.problem.CONFLICTS", 5)
    with pytest.raises(SpecError, match="could not be settled"):
        search(Setting(3, 3, 1, True, 1), Promise(None, 1))


def test_nobody_dictates_where_a_rule_can_do_without() -> None:
    found = search(Setting(3, 3, 0, True, 1), ONE)
    assert found.dictator is None
    assert search(Setting(1, 3, 0, True, 1), ONE).dictator == 0


def test_an_answer_is_the_same_each_time() -> None:
    asked = (Setting(3, 3, 1, False, 2), ONE)
    assert table(search(*asked)) == table(search(*asked))


def test_a_rule_without_a_short_form_is_listed() -> None:
    found = search(Setting(3, 3, 1, False, 2), Promise(None, 2))
    listed = table(found)["map"]
    assert found.rule == ""
    assert sum(len(row["decides"]) for row in listed) == found.runs.views


@pytest.mark.parametrize(
    ("setting", "promise", "path"),
    [
        (Setting(9, 3, 1, True, 1), ONE, "--processes"), (Setting(3, 7, 1, True, 1), ONE, "--plans"),
        (Setting(3, 3, 3, True, 1), ONE, "--crashes"), (Setting(3, 3, 1, True, 9), ONE, "--rounds"),
        (Setting(3, 3, 1, True, 1), Promise(4), "--set"), (Setting(3, 3, 1, True, 1), Promise(None), "--set"),
        (Setting(3, 3, 1, True, 1), Promise(2, 1), "--set"), (Setting(3, 3, 1, True, 1), Promise(None, 4), "--within"),
        (Setting(3, 3, 1, True, 1), Promise(None, 1, "hamming"), "--metric"),
        (Setting(6, 5, 1, True, 1), ONE, "--processes"), (Setting(5, 3, 1, False, 4), ONE, "--rounds"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(setting: Setting, promise: Promise, path: str) -> None:
    with pytest.raises(SpecError) as error:
        search(setting, promise)
    assert error.value.path == path
    assert error.value.limit or error.value.hint
