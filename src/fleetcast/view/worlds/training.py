"""Training: the verbs of a scenario with one model to train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fleetcast.base.errors import FleetcastError, Unsupported
from fleetcast.scenario.load import TrainingScenario

if TYPE_CHECKING:
    from fleetcast.base.record import Record
    from fleetcast.cost.pebbling.check import Proof
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.scenario.training_plan import TrainingPlan
    from fleetcast.search.ranking import Ranking
    from fleetcast.search.shape.advisor import Advice
    from fleetcast.sim.training.setting import Setting
    from fleetcast.view.checks import Remark
    from fleetcast.view.exports import Export

LOOKS: Final = "fleetcast.view.training.screens"


def plan(scenario: TrainingScenario, *, top: int | None, progress: Callable[[int, int], None] | None = None) -> Ranking:
    """Returns the ranked plans of a scenario, see `view.verbs.plan`."""
    if scenario.workload.features is not None:
        from fleetcast.search.training import placements

        return placements.search(scenario, top=top)
    from fleetcast.search.training import planner

    return planner.search(setting(scenario), top=top, progress=progress)


def plan_learned(
    scenario: TrainingScenario, *, evaluations: int, top: int | None, history: Path | None,
    progress: Callable[[int, int], None] | None,
) -> Ranking:  # fmt: skip
    """Returns the best plans that few launches find, see `view.verbs.plan_learned`."""
    from fleetcast.search.training import learned

    return learned.search(setting(scenario), evaluations=evaluations, top=top, history=history, progress=progress)


def simulate(scenario: TrainingScenario, *, record: bool = False) -> Outcome:
    """Returns what an iteration of the scenario's plan takes, see `view.verbs.simulate`; `timeline` is its record."""
    if scenario.workload.features is not None:
        from fleetcast.sim.training import counted

        return counted.simulate(scenario)
    from fleetcast.sim.training.world import simulate as run

    return run(setting(scenario))


def check(scenario: TrainingScenario) -> list[Remark]:
    """Returns what is wrong or doubtful about a scenario, errors first."""
    from fleetcast.view.training import checks

    if scenario.workload.features is not None:
        return checks.counted(scenario)
    return checks.remarks(setting(scenario))


def prove(scenario: TrainingScenario) -> Proof | None:
    """Returns whether the plan's off-loading and recomputing is legal, see `view.verbs.prove`."""
    from fleetcast.sim.training.pebbled import proof

    if scenario.workload.features is not None:
        return None
    try:
        return proof(setting(scenario))
    except FleetcastError:  # it is open, or `check` says what is wrong
        return None


def timeline(scenario: TrainingScenario) -> Record | None:
    """Returns the event record of the pipeline of a scenario's plan, None where there is nothing to show."""
    from fleetcast.sim.training.timeline import timeline as record

    state, plan = completed(scenario)
    return record(state, plan) if (plan.islands or 1) == 1 and plan.swap is None else None


def advise(scenario: TrainingScenario) -> Advice:
    """Returns which sizes of the scenario's model its devices multiply well, see `view.verbs.advise`."""
    from fleetcast.view.training.sizing import sized

    return sized(setting(scenario))


def completed(scenario: TrainingScenario) -> tuple[Setting, TrainingPlan]:
    """Returns the scenario resolved, and its plan with every choice made.

    Raises:
        SpecError: a degree that does not divide, or a choice that is a list.
    """
    from fleetcast.sim.training.completing import complete

    state = setting(scenario)
    return state, complete(state, scenario.plan).plan


def export(scenario: TrainingScenario, to: str) -> Export:
    """Returns the scenario's plan as what an operator pastes, see `view.verbs.export`."""
    from fleetcast.view import exports
    from fleetcast.view.exports.training import TARGETS
    from fleetcast.view.exports.training import export as make

    if to in exports.TARGETS:
        raise Unsupported(f"--to {to} serves requests, and the scenario trains", f"Take one of {', '.join(TARGETS)}")
    return make(*completed(scenario), to)


def setting(scenario: TrainingScenario) -> Setting:
    """Returns the scenario with its names looked up.

    Raises:
        Unsupported: a job without a model.
    """
    if scenario.workload.features is not None:
        raise Unsupported(
            "workload.features: of such a job no layer is known, so that there is no plan to write out",
            "Name a model instead of features",
        )
    from fleetcast.sim.training.setting import setting as resolve

    return resolve(scenario)


def is_open(scenario: TrainingScenario) -> bool:
    """Returns whether degrees are left out, or anything is a list of values to search."""
    plan = scenario.plan
    if scenario.workload.features is not None:
        return plan.placement is None or isinstance(plan.placement, tuple)
    spread = plan.tensor_parallel is None and plan.pipeline_parallel is None and plan.data_parallel is None
    return spread or any(listed(name, getattr(plan, name)) for name in plan.__struct_fields__)


def listed(name: str, value: Any) -> bool:
    """Returns whether a key of a plan holds several values to search."""
    # what may be offloaded or hidden is a list by itself
    if name in ("offload", "overlap"):
        return value is not None and any(isinstance(item, tuple) for item in value)
    return isinstance(value, tuple)
