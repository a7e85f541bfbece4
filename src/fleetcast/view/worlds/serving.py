"""Requests: the verbs of a serving scenario, in the world of one pool or of tiers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fleetcast.base.errors import FleetcastError, SpecError, Unsupported
from fleetcast.scenario.load import ServingScenario

if TYPE_CHECKING:
    from fleetcast.cost.pebbling.check import Proof
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.scenario.plan import Plan
    from fleetcast.search.advice.advisor import Advice
    from fleetcast.search.ranking import Ranking
    from fleetcast.sim.serving.setting import Setting
    from fleetcast.view.checks import Remark
    from fleetcast.view.exports import Export

LOOKS: Final = "fleetcast.view.serving.screens"


def plan(scenario: ServingScenario, *, top: int | None, progress: Callable[[int, int], None] | None) -> Ranking:
    """Returns the ranked plans of a scenario, see `view.verbs.plan`."""
    if scenario.workload.exits is not None:
        from fleetcast.search.tiers import planner

        return planner.plan(setting(scenario), top=top)
    from fleetcast.search import parallelism

    return parallelism.search(resolved(scenario), top=top, weigh=True, progress=progress)


def simulate(scenario: ServingScenario, *, record: bool = False) -> Outcome:
    """Returns what happens under the scenario's plan, see `view.verbs.simulate`."""
    if scenario.workload.exits is not None:
        from fleetcast.search.tiers import planner

        return planner.simulate(setting(scenario))
    from fleetcast.sim.serving.world import simulate as run

    return run(*completed(scenario), record=record)


def check(scenario: ServingScenario) -> list[Remark]:
    """Returns what is wrong or doubtful about a scenario, errors first."""
    from fleetcast.view.checks import remarks

    return remarks(resolved(scenario) if scenario.workload.exits is None else setting(scenario))


def prove(scenario: ServingScenario) -> Proof | None:
    """Returns whether evicting requests' caches is legal, where the plan says how; see `view.verbs.prove`."""
    from fleetcast.sim.serving.pebbled import proof

    pools = scenario.plan.pools
    if scenario.workload.exits is not None or all(pool.memory is None for pool in pools):
        return None
    try:
        return proof(*completed(scenario))
    except FleetcastError:  # it is open, or `check` says what is wrong
        return None


def completed(scenario: ServingScenario) -> tuple[Setting, Plan]:
    """Returns the scenario resolved, and its plan with every choice made.

    Raises:
        SpecError: a choice without a default is open.
        Infeasible: the plan does not fit.
    """
    from fleetcast.sim.serving.completing import complete

    state = resolved(scenario)
    return state, complete(state, state.scenario.plan)


def advise(scenario: ServingScenario) -> list[Advice]:
    """Returns by which techniques the scenario's model runs on its devices, see `view.verbs.advise`."""
    from fleetcast.search.advice.advisor import advise as ask
    from fleetcast.search.advice.advisor import asked_of_one

    one, notes = asked_of_one(scenario)
    return ask(setting(one), notes)


def export(scenario: ServingScenario, to: str) -> Export:
    """Returns the scenario's plan as what an operator pastes, see `view.verbs.export`."""
    from fleetcast.view import exports
    from fleetcast.view.exports.training import TARGETS

    if to in TARGETS:
        hint = f"Take one of {', '.join(exports.TARGETS)}"
        raise Unsupported(f"--to {to} trains, and the scenario serves requests", hint)
    return exports.export(*completed(scenario), to)


def resolved(scenario: ServingScenario) -> Setting:
    """Returns the scenario resolved for the serving world alone, which knows no exits.

    Raises:
        Unsupported: it has exits.
    """
    if scenario.workload.exits is not None:
        raise Unsupported(
            "workload.exits: only plan, simulate, advise, check and capacity of users know exits",
            "Leave workload.exits out",
        )
    return setting(scenario)


def setting(scenario: ServingScenario) -> Setting:
    """Returns the scenario with its names looked up."""
    from fleetcast.sim.serving.setting import setting as resolve

    return resolve(scenario)


def is_open(scenario: ServingScenario) -> bool:
    """Returns whether a choice without a default is open, or of tiers the cascade."""
    if scenario.workload.exits is not None:
        return not scenario.plan.cascade
    try:
        completed(scenario)
    except SpecError:
        return True
    except FleetcastError:
        return False
    return False
