"""Pods on nodes: the verbs of a scenario of kind "jobs" that has pods."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fleetcast.scenario.load import PodsScenario

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking
    from fleetcast.view.checks import Remark
    from fleetcast.view.exports import Export
    from fleetcast.view.scheduling import Cluster

LOOKS: Final = "fleetcast.view.pods.screens"


def plan(
    scenario: PodsScenario, *, top: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Ranking:  # fmt: skip
    """Returns the ranked place policies of a scenario, see `view.verbs.plan`."""
    from fleetcast.search.pods import search
    from fleetcast.sim.cluster.pods_outcome import setting

    return search(setting(scenario), top=top, progress=progress)


def simulate(scenario: PodsScenario, *, record: bool = False) -> Outcome:
    """Returns what happens under the plan's policy, see `view.verbs.simulate`."""
    from fleetcast.sim.cluster.pods_outcome import setting
    from fleetcast.sim.cluster.pods_outcome import simulate as run

    return run(setting(scenario), record=record)


def check(scenario: PodsScenario) -> list[Remark]:
    """Returns what is wrong or doubtful about a scenario, errors first."""
    from fleetcast.view.pods.checks import remarks

    return remarks(scenario)


def run(scenario: PodsScenario, *, cluster: Cluster | None = None) -> Outcome:
    """Returns what the plan's policy does on a cluster of Kubernetes, see `view.scheduling.schedule`.

    Args:
        scenario: of pods; with ``cluster.double`` they and their nodes are the cluster.
        cluster: which, and for how long; None = a double.
    """
    from fleetcast.base.spec import describe
    from fleetcast.sim.cluster.pods import as_nodes, as_pods
    from fleetcast.sim.cluster.pods_outcome import DEFAULT, setting
    from fleetcast.view.scheduling import Cluster, schedule

    state = setting(scenario)
    named = scenario.plan.places
    policy = state.policy(named[0] if named else DEFAULT)
    table = describe(policy)
    table.pop("typical", None)
    asked = cluster if cluster is not None else Cluster(on="kubernetes", double=True)
    return schedule(policy, asked, {"place": table}, nodes=as_nodes(state.nodes), pods=as_pods(state.pods))


def export(scenario: PodsScenario, to: str) -> Export:
    """Returns the scheduler of a scenario's plan as manifests.

    Raises:
        SpecError: an unknown target, or a file that no ConfigMap holds.
    """
    from fleetcast.base.errors import SpecError
    from fleetcast.view.exports.scheduler import export as manifests

    if to != "kubernetes":
        raise SpecError("to", "is unknown", value=to, limit='"kubernetes" for pods', hint="Say --to kubernetes")
    return manifests(scenario)


def is_open(scenario: PodsScenario) -> bool:
    """Returns whether the plan names no place policy, or several."""
    return len(scenario.plan.places) != 1
