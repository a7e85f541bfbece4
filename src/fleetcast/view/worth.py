"""What each choice buys, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleetcast.base.tables import lookup
from fleetcast.view.words import GOAL_METRIC, TIE, apart, difference, plan_name

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking, Worth


def worth_lines(ranking: Ranking) -> list[str]:
    """Returns a sentence per choice that the search weighed: what the best plan that chooses otherwise has more of.

    Choices that come to the same plan share one.
    """
    best = ranking.best
    if best is None:
        return []
    goals = [goal for goal, _, _ in ranking.goals]
    shared: dict[str, list[Worth]] = {}
    for w in sorted(ranking.worth, key=lambda w: not w.used):
        shared.setdefault(repr(w.other.plan) if w.other is not None else f"none {w.used}", []).append(w)
    return [_line(found, best, goals) for found in shared.values()]


def _line(found: list[Worth], best: Outcome, goals: list[str]) -> str:
    ways = [f"{'without' if w.used else 'with'} {w.choice}" for w in found]
    said = " or ".join(ways)
    other = found[0].other
    if other is None:
        return f"{said[0].upper()}{said[1:]} no plan meets the SLO."
    more = " and ".join(f"{_more(other, best, goal)} {goal}" for goal in goals)
    return f"{said[0].upper()}{said[1:]} the best plan, {plan_name(other.plan)}, has {more}."


def _more(other: Outcome, best: Outcome, goal: str) -> str:
    path = GOAL_METRIC[goal]
    theirs, mine = lookup(other.metrics, path), lookup(best.metrics, path)
    return "the same" if apart(theirs, mine) <= TIE else difference(theirs, mine)
