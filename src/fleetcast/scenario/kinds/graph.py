"""Tasks with dependencies on a fleet, and what is already decided of where and in which order they run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import Spec, convert
from fleetcast.scenario.choices import check_choices, several
from fleetcast.scenario.kinds.scenario import Parts, Scenario
from fleetcast.scenario.workload.graph import Graph

GOALS = {"time": "makespan", "energy": "energy", "cost": "cost", "carbon": "carbon", "bytes": "moved_bytes"}
"""What a graph's plan may minimise; time unless said otherwise."""
Order = str | dict[str, Any]


class GraphPlan(Spec):
    """Where and in which order tasks run.

    Attributes:
        order: the policy that orders tasks, its name or table; several: search these. Left out, ``simulate`` takes
            "heft" and ``plan`` searches all.
        workers: device or group -> into how many equal workers each of its devices is cut; 1 unless said.
    """

    order: Order | tuple[Order, ...] | None = None
    workers: dict[str, Annotated[int, msgspec.Meta(ge=1, le=1024)]] = msgspec.field(default_factory=dict)

    @property
    def orders(self) -> tuple[Order, ...]:
        """The policies named; () = none."""
        return several(self.order)


class GraphScenario(Scenario, kw_only=True):
    """Tasks with dependencies, and what is already decided of where and in which order they run.

    Attributes:
        workload: the graph and what is known of its speeds.
        plan: what is already decided; a list means: search these values.
    """

    workload: Graph
    plan: GraphPlan = GraphPlan()

    kind: ClassVar[str] = "graph"
    about: ClassVar[str] = "a graph of tasks"
    parts: ClassVar[tuple[str, ...]] = ("fleet", "workload", "objective", "plan")

    def with_plan(self, plan: GraphPlan) -> GraphScenario:
        """Returns the scenario with another plan."""
        return msgspec.structs.replace(self, plan=plan)


def read_graph_plan(table: Mapping[str, Any]) -> GraphPlan:
    """Returns the plan of a table.

    Raises:
        SpecError: unknown key, wrong type, an empty list.
    """
    plan = convert(dict(table), GraphPlan, "plan")
    check_choices(plan, {"order": "heft"})
    return plan


def read(parts: Parts) -> GraphScenario:
    """Returns the scenario of a file's parts.

    Raises:
        SpecError: unknown key, wrong unit, out of range, contradictory.
    """
    parts.refuse_slo("a graph", '[objective] minimize = "time"')
    # a misspelled key is told as such by `convert`, before what is missing
    if "graph" not in parts.workload and set(parts.workload) <= set(Graph.__struct_fields__):
        raise SpecError(
            "workload.graph", "is missing", limit="a file or a generator",
            hint='Write e.g. graph = "montage.json" or graph = { kind = "cholesky", tiles = 16 }',
        )  # fmt: skip
    workload = convert(parts.workload, Graph, "workload")
    parts.objective.goals(GOALS, {})
    return GraphScenario(workload=workload, plan=read_graph_plan(parts.plan), **parts.shared)
