"""Which promises a vote among processes can keep: a rule that keeps them in every run, or runs that rule it out.

A rule says for each view (all that a process knows after the last round) which ranking it decides. It must keep
unanimity, and agreement: at most k different decisions in a run, or any two of a run within a distance. Whether such a
rule exists is a finite question: rules of a known form are tried first; otherwise the rankings of views become
variables of a SAT problem to which runs are added as long as its answer breaks some. An answer holds for this size and
this many rounds, and says nothing of others. (Arrovian distributed agreement: OPODIS 2024, LIPIcs 324:32.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.policy.vote import Borda, Kemeny
from fleetcast.policy.vote.metrics import Orders
from fleetcast.search.vote.problem import Problem, Promise
from fleetcast.search.vote.runs import Runs, Setting, Shape, heard_from, who
from fleetcast.search.vote.sat import Unsettled
from fleetcast.search.vote.witness import Run, needed

BATCH = 200
"""Broken runs that are added to the problem at a time."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Answer:
    """What a search found.

    Attributes:
        runs: the system.
        promise: what was asked.
        exists: whether a rule keeps it.
        rule: its form in words, where it has one; "" = only a table.
        map: int[views], a row of ``runs.orders`` for each view; None = there is none.
        dictator: whose ballot every decision of every run repeats; None = nobody's.
        witness: runs that no rule can serve together.
        minimal: whether each of them is needed.
        solved: runs in the last SAT problem; 0 = none was needed.
    """

    runs: Runs
    promise: Promise
    exists: bool
    rule: str = ""
    map: Orders | None = None
    dictator: int | None = None
    witness: tuple[Run, ...] = ()
    minimal: bool = True
    solved: int = 0


def search(setting: Setting, promise: Promise, progress: Progress | None = None) -> Answer:
    """Looks for a rule that keeps a promise in every run.

    Raises:
        SpecError: a size that is too large; a promise that asks for nothing.
    """
    promise.check(setting)
    runs = Runs(setting)
    allowed = runs.allowed(promise.unanimity == "correct")
    near = promise.near(runs.orders)
    for said, decisions in forms(runs):
        kept = allowed[np.arange(runs.views), decisions].all()
        if kept and not any(len(rows) for _, rows in _broken(runs, promise, near, decisions)):
            return Answer(runs, promise, True, said, decisions, dictator(runs, decisions))
    return _solve(runs, promise, allowed, near, progress)


def forms(runs: Runs) -> list[tuple[str, Orders]]:
    """Returns rules of a known form: (what it says, int[views])."""
    base = len(runs.orders)
    heard_by: dict[tuple[str, int], Orders] = {}
    for count in sorted({len(heard_from(s)) for s in runs.start} | {len(heard_from(_leader(s))) for s in runs.start}):
        inputs = np.indices((base,) * count).reshape(count, -1).T
        for name, rule in (("kemeny", Kemeny()), ("borda", Borda())):
            made: dict[tuple[int, ...], int] = {}
            index = {tuple(row): i for i, row in enumerate(runs.orders.tolist())}
            for row in inputs.tolist():
                key = tuple(sorted(row))
                if key not in made:
                    made[key] = index[tuple(rule.decide(runs.orders[list(key)]).tolist())]
            heard_by[name, count] = np.array([made[tuple(sorted(row))] for row in inputs.tolist()], dtype=np.int64)
    found = []
    for name in ("kemeny", "borda"):
        decisions = np.zeros(runs.views, dtype=np.int64)
        led = np.zeros(runs.views, dtype=np.int64)
        for shape, start in runs.start.items():
            heard, inputs = heard_from(shape), runs.inputs(shape)
            decisions[start : start + len(inputs)] = heard_by[name, len(heard)]
            known = heard_from(_leader(shape))
            columns = inputs[:, [heard.index(j) for j in known]]
            number = (columns * base ** np.arange(len(known) - 1, -1, -1)).sum(axis=1)
            led[start : start + len(inputs)] = heard_by[name, len(known)][number]
        found.append((f"the {name.capitalize()} ranking of all ballots heard of", decisions))
        leads = "the ballot of the lowest-numbered process heard"
        if runs.setting.rounds > 1:
            leads = f"the {name.capitalize()} ranking of what the lowest-numbered process heard last knew till then"
        found.append((leads, led))
    return found


def _leader(shape: Shape) -> Shape:
    """Returns what the lowest-numbered process of those heard in the last round said."""
    return min(shape[1], key=who)


def _broken(
    runs: Runs, promise: Promise, near: NDArray[np.bool_], decisions: Orders
) -> list[tuple[int, NDArray[np.int64]]]:
    """Returns (pattern, profiles in which the decisions break the promise)."""
    found = []
    for p, pattern in enumerate(runs.patterns):
        made = decisions[runs.decided(pattern)]
        if promise.most is not None:
            made = np.sort(made, axis=1)
            bad = 1 + (made[:, 1:] != made[:, :-1]).sum(axis=1) > promise.most
        else:
            bad = ~near[made[:, :, None], made[:, None, :]].all(axis=(1, 2))
        found.append((p, np.flatnonzero(bad)))
    return found


def dictator(runs: Runs, decisions: Orders) -> int | None:
    """Returns the process whose ballot every decision of every run repeats, or None."""
    for i in range(runs.setting.processes):
        if all((decisions[runs.decided(p)] == runs.ballots[:, [i]]).all() for p in runs.patterns):
            return i
    return None


def _solve(
    runs: Runs, promise: Promise, allowed: NDArray[np.bool_], near: NDArray[np.bool_], progress: Progress | None
) -> Answer:
    kemeny = forms(runs)[0][1]
    likely = np.where(allowed[np.arange(runs.views), kemeny], kemeny, allowed.argmax(axis=1))
    solved = 0
    for profiles in _profiles(runs):
        problem, decisions = Problem(promise, allowed, near, likely), likely
        chosen: list[tuple[int, int]] = []
        while bad := [(p, int(x)) for p, rows in _broken(runs, promise, near, decisions) for x in rows[profiles[rows]]]:
            if progress is not None:
                progress(runs.count - len(bad), runs.count)
            new = bad[:: max(1, len(bad) // BATCH)]
            chosen, solved = chosen + new, solved + len(new)
            for p, x in new:
                problem.add(runs.views_in(p, x))
            try:
                if problem.solver.solve() is not None:
                    witness, minimal = needed(runs, promise, allowed, near, chosen)
                    return Answer(runs, promise, False, witness=tuple(witness), minimal=minimal, solved=solved)
            except Unsettled:
                raise SpecError(
                    "--rounds", "could not be settled", value=runs.setting.rounds,
                    limit=f"{problem.solver.limit:,} conflicts",
                    hint="Ask for fewer processes, plans or rounds, or for a number of rankings",
                ) from None  # fmt: skip
            decisions = problem.decisions()
    return Answer(runs, promise, True, "", decisions, dictator(runs, decisions), solved=solved)


def _profiles(runs: Runs) -> list[NDArray[np.bool_]]:
    """Returns which profiles to look at, bool[profiles] each, all of them last.

    A contradiction among few ballots is sooner found and shorter told; only the last set can say that a rule exists.
    """
    m = runs.setting.plans
    index = {tuple(row): i for i, row in enumerate(runs.orders.tolist())}
    turned = [index[tuple((i + s) % m for i in range(m))] for s in range(m)]
    back = index[tuple(range(m))[::-1]]
    few = [[0, back], turned, [*turned, back], list(range(len(runs.orders)))]
    return [np.asarray(np.isin(runs.ballots, some).all(axis=1), dtype=np.bool_) for some in few]
