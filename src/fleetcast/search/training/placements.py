"""Which placement suits a job that is known by its counts: each that the fleet holds, quickest first."""

from __future__ import annotations

from fleetcast.base.errors import SpecError
from fleetcast.scenario.fleet.tree import Tree
from fleetcast.scenario.load import TrainingScenario
from fleetcast.scenario.objective import TRAINING
from fleetcast.search.ranking import Ranking
from fleetcast.sim.training.counted import counted, outcome, placements


def search(scenario: TrainingScenario, *, top: int | None = 6, tree: Tree | None = None) -> Ranking:
    """Returns the ranked placements of a scenario with features; money is time on a fleet that is all taken.

    Args:
        scenario: as it was read.
        top: how many; None = all.
        tree: another fleet than the scenario's; None = its own.

    Raises:
        SpecError: an objective that nothing is known of.
    """
    state = counted(scenario, tree)
    goals = scenario.objective.goals(TRAINING, {})
    for name, _, _ in goals:
        if name not in ("time", "cost"):
            raise SpecError(
                "objective.minimize", "is not known of a job with features: counts say nothing of it", value=name,
                limit="time or cost", hint="Leave it out for time, or name a model",
            )  # fmt: skip
        if name == "cost" and state.group.price is None:
            device = state.group.device.id
            raise SpecError(
                "objective.minimize", f"needs a price, and {device} has none", value="cost", limit="known prices",
                hint=f'Add price = {{ "{device}" = "1.00 $/h" }} to [fleet]',
            )  # fmt: skip
    names = placements(state)
    found = sorted((outcome(state, name) for name in names), key=lambda o: float(o.metrics["iteration_time"]))
    counts = dict.fromkeys(("bounded", "cut_short", "deduplicated"), 0)
    counts |= dict.fromkeys(("enumerated", "memory_feasible", "simulated"), len(names))
    said = (f"placements: {', '.join(names)}; memory is not asked: counts say nothing of it",)
    return Ranking(tuple(found[:top]), tuple(found[:1]), (), (), counts, goals, goals, space=said)
