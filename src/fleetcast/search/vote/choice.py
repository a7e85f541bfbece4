"""One ranking of a poll, and what it does to the ballots: which axioms it keeps on them, and which it breaks.

No rule keeps everything (Arrow 1951), so the answer says what it breaks *on these ballots*, with a witness. A property
that is not broken here may be broken on other ballots.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from fleetcast.base.spec import build
from fleetcast.policy import vote
from fleetcast.policy.vote.kemeny import LARGEST, best, components
from fleetcast.policy.vote.metrics import Orders, footrule, kendall, places, preferred
from fleetcast.search.vote.ballots import Poll
from fleetcast.search.vote.solver import kemeny


@dataclass(frozen=True)
class Choice:
    """A poll's ranking.

    Attributes:
        poll: whose ballots.
        rule: kind of the rule.
        order: int[m], the plans, best first.
        pairs: int[n], of each ballot, pairs that the ranking orders the other way (Kendall tau).
        moved: int[n], places moved (footrule).
        bound: the least total of ``pairs`` that is not ruled out: equal to it for Kemeny's, unless time ran out.
        winner: the plan that beats every other one to one; None = there is none.
        circle: plans each of which beats the next, and the last the first; None = there are none.
        agreed: pairs (a, b) that all ballots order alike.
        parted: those of them that the ranking orders the other way.
        swayed: (x, a, b): were x last on every ballot, a and b would change places, though no ballot moves them against
            each other; None = no such x. A breach of independence of irrelevant alternatives.
        equals: rankings that the rule finds equally good; 0 = not counted.
    """

    poll: Poll
    rule: str
    order: Orders
    pairs: Orders
    moved: Orders
    bound: int | None
    winner: int | None
    circle: tuple[int, ...] | None
    agreed: tuple[tuple[int, int], ...]
    parted: tuple[tuple[int, int], ...]
    swayed: tuple[int, int, int] | None
    equals: int

    def table(self) -> dict[str, Any]:
        """Returns everything for JSON, plans by name."""
        name = self.poll.plans.__getitem__

        def named(found: Iterable[int] | None) -> list[str] | None:
            return None if found is None else [name(int(i)) for i in found]

        return {
            "rule": self.rule, "ranking": named(self.order),
            "ballots": {
                voter: {"ranking": named(order), "pairs": int(k), "places": int(f)}
                for voter, order, k, f in zip(self.poll.voters, self.poll.orders, self.pairs, self.moved, strict=True)
            },
            "total": {"pairs": int(self.pairs.sum()), "places": int(self.moved.sum()), "bound": self.bound},
            "equally_good": self.equals or None,
            "unanimity": {"pairs": len(self.agreed), "broken": [named(pair) for pair in self.parted]},
            "condorcet": {
                "winner": None if self.winner is None else name(self.winner),
                "kept": self.winner is None or int(self.order[0]) == self.winner, "circle": named(self.circle),
            },
            "independence": {"broken_by": None if self.swayed is None else dict(
                zip(("last", "then_above", "then_below"), (name(i) for i in self.swayed), strict=True))},
            "notes": list(self.poll.notes),
        }  # fmt: skip


def choose(poll: Poll, rule: str = "kemeny") -> Choice:
    """Returns the ranking of a poll by a rule of `policy.vote`.

    Raises:
        SpecError: no such rule.
        MissingExtra: Kemeny's ranking of more than `LARGEST` plans in one circle needs OR-Tools.
    """
    ballots = poll.orders
    wins = preferred(ballots)
    order, bound = _decide(rule, ballots)
    if rule == "kemeny" and bound is None:
        bound = int(kendall(order, ballots).sum())
    agreed = _pairs(wins == len(ballots))
    place = places(order)
    majority = wins > wins.T
    beats_all = np.flatnonzero(majority.sum(axis=1) == len(wins) - 1)
    return Choice(
        poll, rule, order, kendall(order, ballots), footrule(order, ballots), bound,
        int(beats_all[0]) if len(beats_all) else None, circle(majority), agreed,
        tuple((a, b) for a, b in agreed if place[a] > place[b]), swayed(rule, ballots, order), equals(rule, ballots),
    )  # fmt: skip


def _decide(rule: str, ballots: Orders) -> tuple[Orders, int | None]:
    policy = build(vote, rule, "--rule")
    if isinstance(policy, vote.Kemeny) and max(len(p) for p in components(preferred(ballots))) > LARGEST:
        order, _, bound = kemeny(ballots)
        return order, bound
    return policy.decide(ballots), None


def _pairs(which: Any) -> tuple[tuple[int, int], ...]:
    return tuple((int(a), int(b)) for a, b in np.argwhere(which) if a != b)


def circle(majority: Any) -> tuple[int, ...] | None:
    """Returns the shortest circle of alternatives, each of which beats the next, or None.

    Args:
        majority: bool[m, m], whether the row's alternative beats the column's.

    Example:
        >>> circle(np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=bool))
        (0, 1, 2)
    """
    m = len(majority)
    found: tuple[int, ...] | None = None
    for start in range(m):
        paths: list[tuple[int, ...]] = [(start,)]
        seen = {start}
        while paths and (found is None or len(paths[0]) < len(found)):
            if back := next((path for path in paths if majority[path[-1], start]), None):
                found = back
                break
            longer = []
            for path in paths:
                for nxt in np.flatnonzero(majority[path[-1]]).tolist():
                    if nxt not in seen:
                        seen.add(nxt)
                        longer.append((*path, nxt))
            paths = longer
    return found


def swayed(rule: str, ballots: Orders, order: Orders) -> tuple[int, int, int] | None:
    """Returns (x, a, b): the rule ranks a above b with x last on every ballot, and b above a as the ballots are."""
    m = ballots.shape[1]
    place = places(order)
    if m > LARGEST:
        return None
    for x in range(m):
        last = np.array([[*row[row != x], x] for row in ballots])
        changed = places(_decide(rule, last)[0])
        for a, b in permutations([i for i in range(m) if i != x], 2):
            if changed[a] < changed[b] and place[b] < place[a]:
                return x, a, b
    return None


def equals(rule: str, ballots: Orders) -> int:
    """Returns how many rankings the rule finds equally good; 0 = not counted."""
    wins = preferred(ballots)
    if rule == "kemeny":
        parts = components(wins)
        if max(len(part) for part in parts) > LARGEST:
            return 0
        return int(np.prod([best(wins[np.ix_(part, part)])[2] for part in parts], dtype=object))
    if rule == "borda":
        _, counts = np.unique(places(ballots).sum(axis=0), return_counts=True)
        made = 1
        for count in counts.tolist():
            made *= int(np.prod(range(1, count + 1), dtype=object))
        return made
    return 0
