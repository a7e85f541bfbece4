"""Place policies ranked: each is played, tiers of priority compared one after the other."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from fleetcast.base.spec import kinds
from fleetcast.policy.place import pods as place
from fleetcast.scenario.choices import kind_of
from fleetcast.scenario.kinds.pods import GOALS, RAISED
from fleetcast.scenario.outcome import Outcome
from fleetcast.search.played import beside, by_goals, each, ranking
from fleetcast.search.ranking import Ranking
from fleetcast.sim.cluster.pods_outcome import DEFAULT, Setting, simulate


def search(
    state: Setting, *, top: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Ranking:  # fmt: skip
    """Returns the ranked policies of a scenario: those of its plan, or all.

    Args:
        state: the scenario, resolved.
        top: how many; None = all.
        progress: called with (policies played, policies).

    Raises:
        SpecError: an unknown policy.
        MissingExtra: a solver that is named and not installed.
    """
    objective = state.scenario.objective
    goals = objective.goals(GOALS, RAISED)
    solver = find_spec("ortools") is not None
    # the null first, so that it wins where nothing is better
    known = [k for k in sorted(kinds(place), key=lambda k: k != DEFAULT) if solver or not k.startswith("cp_sat")]
    named = state.scenario.plan.places or tuple(k for k in known if k != "cp_sat_naive")
    choices, asked = beside(named, DEFAULT, lambda choice: kind_of(choice) == DEFAULT)
    found = each(choices, lambda choice: simulate(state, choice), progress)
    plain = objective.minimize is None and objective.maximize is None

    def rank(outcome: Outcome) -> list[float]:
        m = outcome.metrics
        tiers = [-float(tier["placed"]) for tier in m["by_priority"].values()]  # highest first
        rest = [float(m["evicted"]), float(m["moves"]), float(m["fragmentation"])]
        return [*([] if plain else by_goals(outcome, goals)), *tiers, *rest]

    said = f"place: {', '.join(str(o.plan['place']['kind']) for o in found)}; each was played"
    notes = () if solver else ("OR-Tools is not installed, so cp_sat was not played: pip install 'fleetcast[solve]'",)
    return ranking(
        found, goals, (("moves", GOALS["moves"], 1),), top=top, key=rank, space=(said,), notes=notes,
        null=is_null, asked=asked,
    )  # fmt: skip


def is_null(outcome: Outcome) -> bool:
    """Returns whether an outcome is of kube-scheduler's default."""
    return bool(outcome.plan["place"]["kind"] == DEFAULT)
