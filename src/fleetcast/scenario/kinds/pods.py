"""Pods on nodes, jobs with constraints and no duration, and what is already decided of where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import convert
from fleetcast.scenario.kinds.scenario import Parts, Scenario
from fleetcast.scenario.pods_plan import PodsPlan, read_pods_plan
from fleetcast.scenario.workload.pod_list import DrawnPods, PodList

if TYPE_CHECKING:
    from fleetcast.scenario.workload.pods import Nodes, Pods

GOALS = {
    "unplaced": "unplaced", "moves": "moves", "evictions": "evicted", "fragmentation": "fragmentation",
    "wait": "waits.mean",
}  # fmt: skip
"""What a plan of pods may minimise; pods without a node, tier by tier, unless said otherwise."""
RAISED = {"placed": "placed", "allocated": "allocated"}
"""What it may maximise."""


class PodsScenario(Scenario, kw_only=True):
    """Pods on nodes, and what is already decided of where they lie.

    Attributes:
        workload: pods and nodes.
        plan: what is already decided; a list means: search these.
    """

    workload: PodList
    plan: PodsPlan = PodsPlan()

    kind: ClassVar[str] = "jobs"
    about: ClassVar[str] = "pods"
    parts: ClassVar[tuple[str, ...]] = ("fleet", "workload", "objective", "plan")

    def with_plan(self, plan: PodsPlan) -> PodsScenario:
        """Returns the scenario with another plan."""
        return msgspec.structs.replace(self, plan=plan)

    def draw(self) -> tuple[Nodes | None, Pods]:
        """Returns the nodes, None = those of the fleet, and the pods.

        Raises:
            SpecError: no such file, or anything in it that cannot be.
        """
        from fleetcast.scenario.workload.pods import read_nodes, read_pods

        said, folder = self.workload, Path(self.folder)
        if isinstance(said.pods, DrawnPods):
            return said.pods.draw()
        pods = read_pods(folder / said.pods, called=said.pods)
        return (read_nodes(folder / said.nodes, called=said.nodes) if said.nodes else None), pods


def read(parts: Parts) -> PodsScenario:
    """Returns the scenario of a file's parts.

    Raises:
        SpecError: unknown key, wrong unit, out of range, contradictory.
    """
    parts.refuse_slo("a list of pods", '[objective] minimize = "unplaced"')
    workload = convert(parts.workload, PodList, "workload")
    if workload.nodes and isinstance(workload.pods, DrawnPods):
        raise SpecError("workload.nodes", "is named, and generated pods bring their nodes", value=workload.nodes,
                        limit="one of both", hint="Leave it out, or name a table of pods")  # fmt: skip
    parts.objective.goals(GOALS, RAISED)
    return PodsScenario(workload=workload, plan=read_pods_plan(parts.plan), **parts.shared)
