"""Which placement suits a job that is known by its counts: each that the fleet holds, quickest first."""

from __future__ import annotations

from fleetcast.scenario.load import TrainingScenario
from fleetcast.scenario.objective import TRAINING
from fleetcast.search.ranking import Ranking
from fleetcast.sim.training.counted import counted, outcome, placements


def search(scenario: TrainingScenario, *, top: int | None = 6) -> Ranking:
    """Returns the ranked placements of a scenario with features; money is time on a fleet that is all taken."""
    state = counted(scenario)
    names = placements(state)
    found = sorted((outcome(state, name) for name in names), key=lambda o: float(o.metrics["iteration_time"]))
    counts = dict.fromkeys(("bounded", "cut_short", "deduplicated"), 0)
    counts |= dict.fromkeys(("enumerated", "memory_feasible", "simulated"), len(names))
    goals = scenario.objective.goals(TRAINING, {})
    said = (f"placements: {', '.join(names)}; memory is not asked: counts say nothing of it",)
    return Ranking(tuple(found[:top]), tuple(found[:1]), (), (), counts, goals, goals, space=said)
