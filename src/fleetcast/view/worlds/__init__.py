"""Which world answers a verb: one file for each kind of scenario, with a function for each verb it answers."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from fleetcast.base.errors import Unsupported
from fleetcast.scenario.load import (
    FunctionsScenario,
    GraphScenario,
    JobsScenario,
    MultitaskScenario,
    PodsScenario,
    Scenario,
    ServerJobsScenario,
    ServingScenario,
    StreamScenario,
    TrainingScenario,
)
from fleetcast.view.worlds import functions, graph, jobs, multitask, pods, server_jobs, serving, stream, training

__all__ = [
    "WORLDS", "ask", "functions", "graph", "jobs", "multitask", "pods", "server_jobs", "serving", "stream", "training",
]  # fmt: skip


WORLDS: Final[dict[type[Scenario], ModuleType]] = {
    ServingScenario: serving,
    TrainingScenario: training,
    MultitaskScenario: multitask,
    GraphScenario: graph,
    FunctionsScenario: functions,
    JobsScenario: jobs,
    PodsScenario: pods,
    ServerJobsScenario: server_jobs,
    StreamScenario: stream,
}


def ask(scenario: Scenario, verb: str) -> Callable[..., Any]:
    """Returns the function with which a scenario's world answers a verb.

    Raises:
        Unsupported: it does not; names the kinds that do.
    """
    found: Callable[..., Any] | None = getattr(WORLDS[type(scenario)], verb, None)
    if found is None:
        kinds = dict.fromkeys(kind.kind for kind, world in WORLDS.items() if hasattr(world, verb))
        known = " or ".join(f"'{kind}'" for kind in kinds)
        raise Unsupported(
            f"workload.kind = '{scenario.kind}': there is no '{verb}' of {scenario.about}",
            f"It takes a workload of kind {known}",
        )
    return found
