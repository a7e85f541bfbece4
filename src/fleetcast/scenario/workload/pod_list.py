"""The pods of a scenario: tables or a generator, and the nodes that they lie on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from fleetcast.base.spec import Spec

if TYPE_CHECKING:
    from fleetcast.scenario.workload.pods import Nodes, Pods

Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]


class DrawnPods(Spec):
    """Pods and nodes to draw.

    Attributes:
        kind: "distinct" = all sizes differ, "deployments" = replicas of ``kinds`` deployments.
        nodes: how many equal nodes.
        per_node: pods for each.
        usage: what all pods ask for as a share of what all nodes have; above 1 not all have room.
        tiers: priorities, 0 to this less one.
        kinds: deployments.
        seed: of the draws.
    """

    kind: Literal["distinct", "deployments"] = "distinct"
    nodes: Count = 16
    per_node: Count = 8
    usage: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.95
    tiers: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 2
    kinds: Count = 8
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    def draw(self) -> tuple[Nodes, Pods]:
        """Returns the nodes and the pods, in the order in which they arrive."""
        from fleetcast.scenario.workload.pods import deployments, distinct

        if self.kind == "distinct":
            return distinct(self.nodes, self.per_node, self.usage, self.tiers, self.seed)
        return deployments(self.nodes, self.per_node, self.usage, self.tiers, self.seed, kinds=self.kinds)


class PodList(Spec):
    """Pods and the nodes that they lie on.

    Attributes:
        pods: path of a table of pods, ours or openb's, or a generator's table, such as
            ``{ kind = "distinct", nodes = 16, usage = 0.97 }``, which brings its nodes.
        kind: "jobs".
        nodes: path of a table of nodes, ours or openb's; left out, the devices of the fleet, of which nobody says what
            cpu and memory there are: they do not bind.
        together: whether all pods are there from the start, whatever their trace says.
        stay: whether pods never leave, whatever their trace says.
    """

    pods: str | DrawnPods
    kind: str = "jobs"
    nodes: str = ""
    together: bool = False
    stay: bool = False
