"""Which promises a vote among processes can keep: a rule that keeps them in every run, or runs that rule it out.

A rule says for each view (all that a process knows after the last round) which ranking it decides. It must keep
unanimity, and agreement: at most k different decisions in a run, or any two of a run within a distance. Whether such a
rule exists is a finite question: rules of a known form are tried first; otherwise the rankings of views become variables
of a SAT problem to which runs are added as long as its answer breaks some. An answer holds for this size and this many
rounds, and says nothing of others. (Arrovian distributed agreement: OPODIS 2024, LIPIcs 324:32.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.base.rng import rng
from fleetcast.policy.vote import Borda, Kemeny
from fleetcast.policy.vote.metrics import METRICS, Orders, diameter
from fleetcast.search.vote.runs import Runs, Setting, Shape, heard_from, who
from fleetcast.search.vote.sat import Solver

BATCH = 200
"""Broken runs that are added to the problem at a time."""
ATTEMPTS, WIDE = 8, 60
"""Orders in which runs are left out of a witness, of which the shortest is told; none where it has more runs than WIDE."""
CONFLICTS = 200_000
"""Conflicts after which the search gives up: some minutes."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Promise:
    """What is asked of the decisions of a run, besides unanimity.

    Attributes:
        most: different decisions; None where a distance is asked for.
        within: the largest distance of two decisions.
        metric: of `policy.vote.metrics`.
        unanimity: "all": what all ballots agree on, the decisions keep; "correct": what those of the processes that
            never crash agree on.
    """

    most: int | None = 1
    within: int | None = None
    metric: str = "kendall"
    unanimity: Literal["all", "correct"] = "all"

    def check(self, setting: Setting) -> None:
        """Refuses what asks for nothing, or for two things.

        Raises:
            SpecError: names the option.
        """
        if (self.most is None) == (self.within is None):
            raise SpecError("--set", "goes without --within", hint="Ask for --set K or for --within DISTANCE")
        if self.most is not None and not 1 <= self.most <= setting.processes:
            limit = f"1 to {setting.processes}"
            raise SpecError("--set", "is out of range", value=self.most, limit=limit, hint="1 is consensus")
        if self.metric not in METRICS:
            raise SpecError("--metric", "is unknown", value=self.metric, limit=f"one of {', '.join(METRICS)}")
        widest = diameter(self.metric, setting.plans)
        if self.within is not None and not 0 <= self.within <= widest:
            raise SpecError(
                "--within", "is out of range", value=self.within, limit=f"0 to {widest}",
                hint=f"No two rankings of {setting.plans} plans are further apart than {widest}",
            )  # fmt: skip

    def near(self, orders: Orders) -> NDArray[np.bool_]:
        """Returns which two rankings a run may hold, bool[m!, m!]; of a promise by number, equal ones."""
        within = 0 if self.within is None else self.within
        return np.asarray(METRICS[self.metric](orders[:, None], orders[None, :]) <= within)

    def said(self) -> str:
        """Returns the promise in words."""
        if self.most is not None:
            agreed = "one ranking" if self.most == 1 else f"at most {self.most} different rankings"
        else:
            pairs = "pairs in another order" if self.metric == "kendall" else "places moved"
            agreed = f"no two rankings more than {self.within} {pairs} apart"
        whose = "all ballots" if self.unanimity == "all" else "the ballots of those that never crash"
        return f"{agreed}, and what {whose} agree on is kept"


@dataclass(frozen=True)
class Run:
    """A run of a witness: each process's ballot, and the view and shape of each that decides."""

    ballots: tuple[int, ...]
    shapes: tuple[Shape, ...]
    views: tuple[int, ...]


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
            leads = f"the {name.capitalize()} ranking of what the lowest-numbered process heard in the last round knew by it"
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


class _Problem:
    """The SAT problem of some runs: a variable for each view and ranking that unanimity leaves it."""

    def __init__(self, promise: Promise, allowed: NDArray[np.bool_], near: NDArray[np.bool_], likely: Orders) -> None:
        self.solver, self._promise, self._allowed, self._near, self._likely = Solver(), promise, allowed, near, likely
        self.views: dict[int, dict[int, int]] = {}
        self._equal: dict[tuple[int, int], int] = {}

    def add(self, views: Sequence[int], selector: int | None = None) -> None:
        """Adds a run; with a selector it counts only where that is assumed."""
        guard = [] if selector is None else [-selector]
        for view in views:
            self._view(view)
        if self._promise.most is None:
            # Both ways, so that what one view's rankings leave to the other follows without a guess.
            for u, w in permutations(views, 2):
                for r, x in self.views[u].items():
                    self.solver.add([*guard, -x, *(y for q, y in self.views[w].items() if self._near[r, q])])
        else:
            for some in combinations(views, self._promise.most + 1):
                self.solver.add([*guard, *(self._same(u, w) for u, w in combinations(some, 2))])

    def _view(self, view: int) -> None:
        if view in self.views:
            return
        likely = int(self._likely[view])
        made = {int(r): self.solver.variable(likely=int(r) == likely) for r in np.flatnonzero(self._allowed[view])}
        self.views[view] = made
        self.solver.add(made.values())
        for x, y in combinations(made.values(), 2):
            self.solver.add((-x, -y))

    def _same(self, u: int, w: int) -> int:
        """Returns the variable that is true only where two views decide the same."""
        u, w = min(u, w), max(u, w)
        if (u, w) not in self._equal:
            same = self._equal[u, w] = self.solver.variable(likely=True)
            other = self.views[w]
            for r, x in self.views[u].items():
                self.solver.add((-same, -x, other[r]) if r in other else (-same, -x))
        return self._equal[u, w]

    def decisions(self) -> Orders:
        """Returns the likely rankings with those of the solution in their place."""
        made = self._likely.copy()
        for view, rankings in self.views.items():
            made[view] = next(r for r, x in rankings.items() if self.solver.holds(x))
        return made


def _solve(
    runs: Runs, promise: Promise, allowed: NDArray[np.bool_], near: NDArray[np.bool_], progress: Progress | None
) -> Answer:
    kemeny = forms(runs)[0][1]
    likely = np.where(allowed[np.arange(runs.views), kemeny], kemeny, allowed.argmax(axis=1))
    solved = 0
    for profiles in _profiles(runs):
        problem, decisions = _Problem(promise, allowed, near, likely), likely
        chosen: list[tuple[int, int]] = []
        while bad := [(p, int(x)) for p, rows in _broken(runs, promise, near, decisions) for x in rows[profiles[rows]]]:
            if progress is not None:
                progress(runs.count - len(bad), runs.count)
            new = bad[:: max(1, len(bad) // BATCH)]
            chosen, solved = chosen + new, solved + len(new)
            for p, x in new:
                problem.add(_views(runs, p, x))
            if problem.solver.solve() is not None:
                witness, minimal = needed(runs, promise, allowed, near, chosen)
                return Answer(runs, promise, False, witness=tuple(witness), minimal=minimal, solved=solved)
            if problem.solver.conflicts > CONFLICTS:
                raise SpecError(
                    "--rounds", "could not be settled", value=runs.setting.rounds, limit=f"{CONFLICTS:,} conflicts",
                    hint="Ask for fewer processes, plans or rounds",
                )  # fmt: skip
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
    few = [[0, back], turned, [*turned, back]]
    return [np.isin(runs.ballots, some).all(axis=1) for some in few] + [np.ones(len(runs.ballots), dtype=np.bool_)]


def _views(runs: Runs, p: int, x: int) -> tuple[int, ...]:
    """Returns the views of those that decide in a run: of pattern ``p``, profile ``x``."""
    base = len(runs.orders)
    found = []
    for shape in runs.patterns[p].shapes:
        number = 0
        for j in heard_from(shape):
            number = number * base + int(runs.ballots[x, j])
        found.append(runs.start[shape] + number)
    return tuple(found)


def needed(
    runs: Runs, promise: Promise, allowed: NDArray[np.bool_], near: NDArray[np.bool_], chosen: list[tuple[int, int]]
) -> tuple[list[Run], bool]:
    """Returns runs that no rule serves together, and whether none of them can be left out."""
    problem = _Problem(promise, allowed, near, np.zeros(runs.views, dtype=np.int64))
    switches: dict[int, Run] = {}
    for p, x in dict.fromkeys(chosen):
        run = Run(tuple(int(b) for b in runs.ballots[x]), runs.patterns[p].shapes, _views(runs, p, x))
        switch = problem.solver.variable(likely=True)
        switches[switch] = run
        problem.add(run.views, switch)
    least = problem.solver.solve(list(switches))
    for _ in range(3):
        least = problem.solver.solve(least or ())
    assert least is not None, "these runs contradict each other"
    minimal = len(least) <= WIDE
    for attempt in range(ATTEMPTS if minimal else 0):
        draw = rng(attempt, "search", "vote", "witness")
        kept = problem.solver.solve([int(s) for s in draw.permutation(list(switches))]) or []
        if len(kept) > WIDE:
            kept = least
        for switch in list(kept):
            if switch in kept and (less := problem.solver.solve([s for s in kept if s != switch])) is not None:
                kept = less
        if len(kept) < len(least) or attempt == 0:
            least = kept
    return [switches[s] for s in sorted(least)], minimal


def contradict(witness: Sequence[Run], promise: Promise, allowed: NDArray[np.bool_], near: NDArray[np.bool_]) -> bool:
    """Returns whether no choice of rankings for the views of these runs keeps the promise: tried one by one.

    It shares nothing with the solver: views are given rankings in turn, and a run is looked at when its last view has one.
    """
    views = list(dict.fromkeys(v for run in witness for v in run.views))
    last = {id(run): max(views.index(v) for v in run.views) for run in witness}
    given: dict[int, int] = {}

    def fine(run: Run) -> bool:
        made = [given[v] for v in run.views]
        if promise.most is not None:
            return len(set(made)) <= promise.most
        return all(near[a, b] for a, b in product(made, made))

    def fits(at: int) -> bool:
        if at == len(views):
            return True
        for r in np.flatnonzero(allowed[views[at]]).tolist():
            given[views[at]] = r
            if all(fine(run) for run in witness if last[id(run)] == at) and fits(at + 1):
                return True
        return False

    return not fits(0)


def table(answer: Answer) -> dict[str, Any]:
    """Returns an answer for JSON, rankings as letters."""
    runs, setting = answer.runs, answer.runs.setting
    return {
        "processes": setting.processes, "plans": setting.plans, "crashes": setting.crashes,
        "model": "synchronous" if setting.synchronous else "asynchronous", "rounds": setting.rounds,
        "promise": {
            "set": answer.promise.most, "within": answer.promise.within,
            "metric": None if answer.promise.within is None else answer.promise.metric,
            "unanimity": answer.promise.unanimity, "said": answer.promise.said(),
        },
        "exists": answer.exists, "rule": answer.rule or None,
        "dictator": None if answer.dictator is None else f"P{answer.dictator + 1}",
        "checked": {"runs": runs.count, "views": runs.views, "rounds": setting.rounds, "in_problem": answer.solved},
        "minimal": answer.minimal,
        "witness": [
            {
                "ballots": [letters(runs.orders[b]) for b in run.ballots],
                "decide": {f"P{who(s) + 1}": told(s) for s in run.shapes}, "views": list(run.views),
            }
            for run in answer.witness
        ],
    }  # fmt: skip


def letters(order: Orders) -> str:
    """Returns a ranking as letters.

    Example:
        >>> letters(np.array([2, 0, 1]))
        'cab'
    """
    return "".join(chr(ord("a") + int(i)) for i in order)


def told(shape: Shape) -> str:
    """Returns who was heard, and for several rounds whom these had heard.

    Example:
        >>> told((0, (0, 1))), told((0, ((0, (0, 1)), (2, (1, 2)))))
        ('P1 P2', 'P1(P1 P2) P3(P2 P3)')
    """
    if isinstance(shape, int):
        return f"P{shape + 1}"
    return " ".join(f"P{part + 1}" if isinstance(part, int) else f"P{part[0] + 1}({told(part)})" for part in shape[1])
