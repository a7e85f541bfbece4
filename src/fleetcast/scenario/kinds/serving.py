"""Requests for a model."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import convert
from fleetcast.scenario.kinds.scenario import Parts, Scenario
from fleetcast.scenario.objective import Slo
from fleetcast.scenario.plan import Plan, read_plan
from fleetcast.scenario.workload.serving import Serving


class ServingScenario(Scenario, kw_only=True):
    """Requests for a model, limits on their latency, and what is already decided.

    Attributes:
        workload: a model and its requests.
        slo: upper limits on latency.
        plan: what is already decided; a list means: search these values.
    """

    workload: Serving
    slo: Slo = Slo()
    plan: Plan = Plan()

    kind: ClassVar[str] = "serving"
    about: ClassVar[str] = "requests"
    parts: ClassVar[tuple[str, ...]] = ("fleet", "workload", "slo", "objective", "plan")

    def with_plan(self, plan: Plan) -> ServingScenario:
        """Returns the scenario with another plan."""
        return msgspec.structs.replace(self, plan=plan)


def read(parts: Parts) -> ServingScenario:
    """Returns the scenario of a file's parts.

    Raises:
        SpecError: unknown key, wrong unit, out of range, contradictory.
    """
    if "model" not in parts.workload:
        raise SpecError("workload.model", "is missing", hint='Write e.g. model = "llama-3.1-70b"')
    workload = convert(parts.workload, Serving, "workload")
    parts.objective.goals()
    slo = convert(parts.slo, Slo, "slo")
    slo.check()
    return ServingScenario(workload=workload, slo=slo, plan=read_plan(parts.plan), **parts.shared)
