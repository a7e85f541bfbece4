"""What n processes can hear of each other in r rounds while up to f of them crash: every run of a tiny system.

All tell all that they know in each round (full information), so that no protocol of as many rounds knows more.

- Synchronous: a round ends when all messages have come. A process that crashes in a round reaches any part of the
  others in it, and nobody after. Those that never crash decide.
- Asynchronous: a process waits for the messages of n - f processes, its own among them, and goes on with these; which
  ones it hears is chance. Runs with crashes hold fewer decisions that could be heard of in a run without, so those
  without are enough for agreement; anyone may still crash in the end.

A *shape* says who was heard, whom these had heard, and so on: a process's number at the start, later the tuple of its
number and the shapes that it heard. A shape and the ballots of all that are in it
are a *view*: all that a process knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.policy.vote.metrics import Orders, all_orders, places

Shape = Any
"""int, or (int, (Shape, ...))."""
MOST_PATTERNS, MOST_VIEWS, MOST_RUNS = 20_000, 300_000, 30_000_000
HINT = "Ask for fewer processes, plans, crashes or rounds: this is a search of tiny systems"


@dataclass(frozen=True)
class Setting:
    """A tiny system: n processes that rank m plans, up to f of which crash, for a number of rounds."""

    processes: int
    plans: int
    crashes: int
    synchronous: bool
    rounds: int

    def check(self) -> None:
        """Refuses what is no such system, or too large to go through.

        Raises:
            SpecError: names the option.
        """
        for name, value, low, high in (
            ("--processes", self.processes, 1, 6), ("--plans", self.plans, 2, 5),
            ("--crashes", self.crashes, 0, self.processes - 1), ("--rounds", self.rounds, 1, 4),
        ):  # fmt: skip
            if not low <= value <= high:
                raise SpecError(name, "is out of range", value=value, limit=f"{low} to {high}", hint=HINT)


@dataclass(frozen=True)
class Pattern:
    """Who hears what in a run, whatever the ballots: the shape of each process that decides, and who crashed."""

    shapes: tuple[Shape, ...]
    crashed: frozenset[int] = frozenset()


def heard_from(shape: Shape) -> tuple[int, ...]:
    """Returns whose ballots a shape holds, in order.

    Example:
        >>> heard_from((0, (0, (2, (1, 2)))))
        (0, 1, 2)
    """
    if isinstance(shape, int):
        return (shape,)
    return tuple(sorted(set(chain.from_iterable(heard_from(part) for part in shape[1]))))


def who(shape: Shape) -> int:
    """Returns whose shape it is."""
    return shape if isinstance(shape, int) else int(shape[0])


def patterns(setting: Setting) -> list[Pattern]:
    """Returns every pattern, those without a decision of their own left out.

    Raises:
        SpecError: there are too many.
    """
    found: dict[tuple[Shape, ...], Pattern] = {}
    for i, pattern in enumerate(_synchronous(setting) if setting.synchronous else _asynchronous(setting)):
        if i >= 10 * MOST_PATTERNS or len(found) > MOST_PATTERNS:
            raise SpecError(
                "--rounds", "has too many orders of messages and crashes to go through", value=setting.rounds,
                limit=f"{MOST_PATTERNS:,} patterns", hint=HINT,
            )  # fmt: skip
        found.setdefault(pattern.shapes, pattern)
    return list(found.values())


def _subsets(of: list[int], sizes: range) -> list[tuple[int, ...]]:
    return [part for size in sizes for part in combinations(of, size)]


def _asynchronous(setting: Setting) -> Iterator[Pattern]:
    n, others = setting.processes, setting.processes - setting.crashes - 1
    heard = [
        [tuple(sorted((i, *part))) for part in combinations([j for j in range(n) if j != i], others)] for i in range(n)
    ]
    known: list[tuple[Shape, ...]] = [tuple(range(n))]
    for _ in range(setting.rounds):
        # A dict keeps its order, so that the same question always has the same answer.
        longer: dict[tuple[Shape, ...], None] = {}
        for shapes in known:
            for chosen in product(*heard):
                longer[tuple((i, tuple(shapes[j] for j in part)) for i, part in enumerate(chosen))] = None
            if len(longer) > MOST_PATTERNS:
                break
        known = list(longer)
    for shapes in known:
        yield Pattern(shapes)


def _synchronous(setting: Setting) -> Iterator[Pattern]:
    n, rounds = setting.processes, range(setting.rounds)
    for crashed in _subsets(list(range(n)), range(setting.crashes + 1)):
        ways = [list(product(rounds, _subsets([j for j in range(n) if j != c], range(n)))) for c in crashed]
        for chosen in product(*ways):
            fate = dict(zip(crashed, chosen, strict=True))
            shapes: tuple[Shape, ...] = tuple(range(n))
            for now in rounds:
                shapes = tuple(
                    (i, tuple(shapes[j] for j in range(n) if j == i or _reaches(fate.get(j), now, i)))
                    for i in range(n)
                )  # fmt: skip
            yield Pattern(tuple(s for i, s in enumerate(shapes) if i not in fate), frozenset(crashed))


def _reaches(fate: tuple[int, tuple[int, ...]] | None, now: int, whom: int) -> bool:
    return fate is None or now < fate[0] or (now == fate[0] and whom in fate[1])


class Runs:
    """Every run of a setting: a pattern and a ballot of each process. Views are numbered, shape by shape.

    Attributes:
        setting: whose.
        orders: int[m!, m], what a process can rank.
        patterns: those whose decisions are not all in another's.
        ballots: int[profiles, n], the ballots of each profile, as rows of ``orders``.
        start: of each shape, the number of its first view.
        views: how many.
    """

    def __init__(self, setting: Setting) -> None:
        setting.check()
        self.setting = setting
        self.orders: Orders = all_orders(setting.plans)
        self.every = patterns(setting)
        self.patterns = _widest(self.every)
        n, base = setting.processes, len(self.orders)
        if base**n * len(self.patterns) > MOST_RUNS:
            raise SpecError(
                "--processes", "has too many runs to go through", value=base**n * len(self.patterns),
                limit=f"at most {MOST_RUNS:,}", hint=HINT,
            )  # fmt: skip
        self.ballots: Orders = np.indices((base,) * n).reshape(n, -1).T
        self.start: dict[Shape, int] = {}
        self.views = 0
        for pattern in self.patterns:
            for shape in pattern.shapes:
                if shape not in self.start:
                    self.start[shape] = self.views
                    self.views += base ** len(heard_from(shape))
        if self.views > MOST_VIEWS:
            raise SpecError(
                "--processes", "has too many views to go through", value=self.views, limit=f"at most {MOST_VIEWS:,}",
                hint=HINT,
            )  # fmt: skip

    @property
    def count(self) -> int:
        """How many runs."""
        return len(self.patterns) * len(self.ballots)

    def view(self, shape: Shape) -> Orders:
        """Returns the number of a shape's view in each profile, int[profiles]."""
        number = np.zeros(len(self.ballots), dtype=np.int64)
        for j in heard_from(shape):
            number = number * len(self.orders) + self.ballots[:, j]
        return self.start[shape] + number

    def decided(self, pattern: Pattern) -> Orders:
        """Returns the views of those that decide, int[profiles, deciders]."""
        return np.stack([self.view(shape) for shape in pattern.shapes], axis=1)

    def views_in(self, p: int, x: int) -> tuple[int, ...]:
        """Returns the views of those that decide in one run: of pattern ``p``, profile ``x``."""
        base, found = len(self.orders), []
        for shape in self.patterns[p].shapes:
            number = 0
            for j in heard_from(shape):
                number = number * base + int(self.ballots[x, j])
            found.append(self.start[shape] + number)
        return tuple(found)

    def inputs(self, shape: Shape) -> Orders:
        """Returns the ballots of each view of a shape, int[views of it, heard], in the order of `heard_from`."""
        base, heard = len(self.orders), len(heard_from(shape))
        return np.indices((base,) * heard).reshape(heard, -1).T

    @cached_property
    def above(self) -> Any:
        """bool[m!, m, m]: whether a ranking has the row's plan above the column's."""
        p = places(self.orders)
        return np.asarray(p[:, :, None] < p[:, None, :])

    def binding(self, shape: Shape, correct_only: bool) -> list[tuple[int, ...]]:
        """Returns the sets of processes such that what each set agrees on, a view of the shape must keep.

        Args:
            shape: whose view.
            correct_only: whether what the processes that never crash agree on is kept, whatever a crashed one says;
                otherwise what all agree on.
        """
        heard = frozenset(heard_from(shape))
        if not correct_only:
            return [tuple(sorted(heard))]
        n, f = self.setting.processes, self.setting.crashes
        sets: set[frozenset[int]] = set()
        for pattern in self.every:
            if shape in pattern.shapes:
                left = 0 if self.setting.synchronous else f
                for late in _subsets([j for j in range(n) if j != who(shape)], range(left + 1)):
                    sets.add(heard - pattern.crashed - set(late))
        return sorted(tuple(sorted(s)) for s in sets if not any(t < s for t in sets))

    def allowed(self, correct_only: bool) -> NDArray[np.bool_]:
        """Returns which rankings unanimity leaves to each view, bool[views, m!]."""
        free = np.ones((self.views, len(self.orders)), dtype=np.bool_)
        for shape, start in self.start.items():
            heard, inputs = heard_from(shape), self.inputs(shape)
            for bound in self.binding(shape, correct_only):
                agreed = self.above[inputs[:, [heard.index(j) for j in bound]]].all(axis=1)
                broken = (agreed[:, None] & ~self.above[None]).any(axis=(2, 3))
                free[start : start + len(inputs)] &= ~broken
        return free


def _widest(every: list[Pattern]) -> list[Pattern]:
    """Leaves out patterns whose decisions are all in another: they bind nothing more."""
    full = [p for p in every if not p.crashed]
    rest = sorted((p for p in every if p.crashed), key=lambda p: -len(p.shapes))
    holders: dict[Shape, list[frozenset[Shape]]] = {}
    kept = []
    for pattern in (*full, *rest):
        shapes = frozenset(pattern.shapes)
        if any(shapes <= other for other in holders.get(pattern.shapes[0], ())):
            continue
        kept.append(pattern)
        for shape in shapes:
            holders.setdefault(shape, []).append(shapes)
    return kept
