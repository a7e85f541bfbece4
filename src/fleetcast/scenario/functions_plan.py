"""The plan of functions: what is kept warm, which node takes an invocation, how long an asynchronous one may wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from fleetcast.base.spec import Spec, convert
from fleetcast.base.units import Quantity
from fleetcast.scenario.choices import check_choices, several

Choice = str | dict[str, Any]


class FunctionsPlan(Spec):
    """What a scenario says under ``[plan]`` with ``kind = "functions"``.

    Attributes:
        scale: the policy that keeps pods warm, its name or table; several: search these. Left out, ``simulate`` takes
            "fixed" (60 s) and ``plan`` searches all.
        route: the policy that sends an invocation to a node, its name or table; several: search these. Left out, every
            region has memory for all pods that it is asked for.
        patience: s that an asynchronous invocation may wait for a busy pod before one is started for it.
        budget: pod-seconds that a plan may take, as a multiple of those of a keep-alive of 60 s: ``plan`` sets how
            long policies keep pods, or at which price, so that they use it up. Left out, it takes them as they are.
    """

    scale: Choice | tuple[Choice, ...] | None = None
    route: Choice | tuple[Choice, ...] | None = None
    patience: Annotated[float, Quantity("s", high=86400.0)] = 0.0
    budget: Annotated[float, msgspec.Meta(gt=0, le=1000)] | None = None

    @property
    def scales(self) -> tuple[Choice, ...]:
        """The scale policies named; () = none."""
        return several(self.scale)

    @property
    def routes(self) -> tuple[Choice, ...]:
        """The route policies named; () = none."""
        return several(self.route)


def read_functions_plan(table: Mapping[str, Any]) -> FunctionsPlan:
    """Returns the plan of a table.

    Raises:
        SpecError: unknown key, wrong type, an empty list, a policy without a kind or named twice.
    """
    plan = convert(dict(table), FunctionsPlan, "plan")
    check_choices(plan, {"scale": "fixed", "route": "hash"})
    return plan
