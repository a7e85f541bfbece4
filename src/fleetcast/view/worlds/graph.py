"""Tasks with dependencies: the verbs of a scenario with a graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fleetcast.base.errors import FleetcastError, SpecError
from fleetcast.scenario.load import GraphScenario

if TYPE_CHECKING:
    from fleetcast.cost.pebbling.check import Proof
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking
    from fleetcast.view.checks import Remark
    from fleetcast.view.learned import Learned

LOOKS: Final = "fleetcast.view.graph.screens"


def plan(
    scenario: GraphScenario, *, top: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Ranking:  # fmt: skip
    """Returns the ranked order policies of a scenario, see `view.verbs.plan`."""
    from fleetcast.search.graphs.ranking import search
    from fleetcast.sim.graph.setting import setting

    return search(setting(scenario), top=top, progress=progress)


def simulate(scenario: GraphScenario, *, record: bool = False) -> Outcome:
    """Returns what happens under the plan's order, HEFT where it names none, see `view.verbs.simulate`."""
    from fleetcast.sim.graph.outcome import simulate as run
    from fleetcast.sim.graph.setting import setting

    return run(setting(scenario), record=record)


def prove(scenario: GraphScenario) -> Proof | None:
    """Returns whether the schedule keeps within the devices' memories, see `view.verbs.prove`."""
    from fleetcast.sim.graph.pebbled import proof
    from fleetcast.sim.graph.setting import setting

    try:
        return proof(setting(scenario))
    except FleetcastError:  # `check` says what is wrong
        return None


def run(scenario: GraphScenario, **settings: Any) -> Outcome:
    """Returns what agents make of it, see `view.graph.running.run`."""
    from fleetcast.view.graph import running

    return running.run(scenario, **settings)


def learn(
    scenario: GraphScenario, out: Path, *, checkpoint: Path | None = None, settings: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Learned:  # fmt: skip
    """Trains the plan's Com-DDPG, see `view.verbs.learn`.

    Raises:
        SpecError: a checkpoint was named; its training, some minutes, keeps none.
    """
    from fleetcast.view.learned import order

    if checkpoint is not None:
        raise SpecError("--checkpoint", "is for dl2: com_ddpg trains from the start", value=str(checkpoint),
                        hint="Leave it out")  # fmt: skip
    return order(scenario, out, settings=settings or {}, progress=progress)


def check(scenario: GraphScenario) -> list[Remark]:
    """Returns what is wrong or doubtful about a scenario, errors first."""
    from fleetcast.view.graph.checks import remarks

    return remarks(scenario)


def is_open(scenario: GraphScenario) -> bool:
    """Returns whether the plan names no order, or several."""
    return len(scenario.plan.orders) != 1
