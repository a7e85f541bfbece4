"""Functions on a fleet, and what is already decided of what is kept warm and where they run."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import convert
from fleetcast.scenario.functions_plan import FunctionsPlan, read_functions_plan
from fleetcast.scenario.kinds.scenario import Parts, Scenario
from fleetcast.scenario.workload.functions import Functions

GOALS = {
    "cold_starts": "cold_starts.count", "pod_seconds": "pod_seconds", "latency": "latency.mean", "tail": "latency.p99",
    "cost": "cost", "carbon": "carbon", "energy": "energy",
}  # fmt: skip
"""What a plan of functions may minimise; cold starts unless said otherwise."""


class FunctionsScenario(Scenario, kw_only=True):
    """Functions that are invoked over time, and what is already decided of their pods.

    Attributes:
        workload: invocations, starts, regions.
        plan: what is already decided; a list means: search these.
    """

    workload: Functions
    plan: FunctionsPlan = FunctionsPlan()

    kind: ClassVar[str] = "functions"
    about: ClassVar[str] = "functions"
    parts: ClassVar[tuple[str, ...]] = ("fleet", "workload", "objective", "plan")

    def with_plan(self, plan: FunctionsPlan) -> FunctionsScenario:
        """Returns the scenario with another plan."""
        return msgspec.structs.replace(self, plan=plan)


def read(parts: Parts) -> FunctionsScenario:
    """Returns the scenario of a file's parts.

    Raises:
        SpecError: unknown key, wrong unit, out of range, contradictory.
    """
    parts.refuse_slo("functions", '[objective] minimize = "tail"')
    if "invocations" not in parts.workload and set(parts.workload) <= set(Functions.__struct_fields__):
        raise SpecError(
            "workload.invocations", "is missing", limit="a trace or a generator",
            hint='Write e.g. invocations = "azure.csv" or invocations = { kind = "synthetic", hours = 6 }',
        )  # fmt: skip
    workload = convert(parts.workload, Functions, "workload")
    names = [region.name for region in workload.regions]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise SpecError(f"workload.regions[{i}].name", "is a second region of that name", value=name,
                            limit="a name each", hint="Rename it")  # fmt: skip
    parts.objective.goals(GOALS, {})
    return FunctionsScenario(workload=workload, plan=read_functions_plan(parts.plan), **parts.shared)
