"""Policies ranked by playing each of them: what searches of graphs, jobs, pods and functions have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fleetcast.base.errors import SpecError
from fleetcast.base.tables import lookup
from fleetcast.scenario.fleet.tree import Group
from fleetcast.scenario.outcome import Outcome
from fleetcast.search.ranking import Axis, Ranking, undominated, values

Progress = Callable[[int, int], None]


def check_priced(goals: Sequence[Axis], groups: Iterable[Group]) -> None:
    """Refuses to minimise a cost that nobody knows.

    Raises:
        SpecError: cost is a goal, and a group has no price.
    """
    unpriced = next((group.device.id for group in groups if group.price is None), None)
    if unpriced is not None and any(name == "cost" for name, _, _ in goals):
        raise SpecError(
            "objective.minimize", f"needs a price, and {unpriced} has none", value="cost", limit="known prices",
            hint=f'Add price = {{ "{unpriced}" = "1.00 $/h" }} to [fleet]',
        )  # fmt: skip


def each(choices: Sequence[Any], play: Callable[[Any], Outcome], progress: Progress | None) -> list[Outcome]:
    """Returns what each choice comes to; ``progress`` is called with (choices played, choices)."""
    if progress is not None:
        progress(0, len(choices))
    found = []
    for i, choice in enumerate(choices):
        found.append(play(choice))
        if progress is not None:
            progress(i + 1, len(choices))
    return found


def beside(choices: Iterable[Any], null: Any, is_null: Callable[[Any], bool]) -> tuple[list[Any], bool]:
    """Returns choices with the null among them, first where it was not, and whether it was."""
    found = list(choices)
    asked = any(map(is_null, found))
    return found if asked else [null, *found], asked


def by_goals(outcome: Outcome, goals: Sequence[Axis]) -> list[float]:
    """Returns what outcomes are sorted by; what differs in the tenth digit is a tie, which the first played wins."""
    return [float(f"{value:.9g}") for value in values(outcome, goals)]


def ranking(
    found: Sequence[Outcome], goals: tuple[Axis, ...], rivals: Sequence[Axis], *, top: int | None,
    null: Callable[[Outcome], bool], asked: bool = True,
    key: Callable[[Outcome], list[float]] | None = None, space: Sequence[str] = (), notes: Sequence[str] = (),
) -> Ranking:  # fmt: skip
    """Returns the ranking of what was played.

    Args:
        found: outcomes, the null first, so that it wins where nothing is better.
        goals: what they are ranked by, unless ``key`` says otherwise.
        rivals: the frontier trades the first of them against a single goal, the next where that is the goal itself.
        top: how many; None = all.
        null: which outcome is the null's; it always stands in the ranking.
        asked: whether the null is among what is searched; where a plan names other policies alone, it is played for
            comparison and stands last, whatever it comes to.
        key: what outcomes are sorted by instead.
        space: what was searched, in sentences; ``notes``: what was decided on the way.
        notes: see ``space``.
    """
    order = key or (lambda outcome: by_goals(outcome, goals))
    ranked = sorted(found, key=lambda outcome: [not asked and null(outcome), *order(outcome)])
    searched = [outcome for outcome in ranked if asked or not null(outcome)]
    rival = next((axis for axis in rivals if axis[0] != goals[0][0]), None)
    axes = goals if len(goals) > 1 or rival is None else (*goals, rival)
    frontier = [searched[i] for i in undominated([values(outcome, axes) for outcome in searched])]
    frontier.sort(key=lambda outcome: axes[0][2] * float(lookup(outcome.metrics, axes[0][1])))
    counts = dict.fromkeys(("bounded", "cut_short", "deduplicated"), 0)
    counts |= dict.fromkeys(("enumerated", "memory_feasible", "simulated"), len(found))
    kept = ranked if top is None else [*ranked[:top], *(outcome for outcome in ranked[top:] if null(outcome))]
    return Ranking(
        tuple(kept), tuple(frontier), (), (), counts, goals, axes, space=tuple(space), notes=tuple(notes)
    )  # fmt: skip
