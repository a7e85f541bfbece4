"""The plan of many jobs: who gets how much of the fleet, where gangs lie, how often that is settled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fleetcast.base.spec import Spec, convert
from fleetcast.base.units import Quantity
from fleetcast.scenario.choices import check_choices, several

Choice = str | dict[str, Any]


class JobsPlan(Spec):
    """What a scenario says under ``[plan]`` with ``kind = "jobs"``.

    Attributes:
        share: the policy that deals devices to jobs, its name or table, or in Python an object; several: search these.
            Left out, ``simulate`` takes "fifo" and ``plan`` searches all list policies.
        place: the policy that says on which nodes a job's devices lie; several: search these. Left out, "best_fit".
        round: time between decisions; left out, every arrival and every end is one.
        power: the policy that sets clocks where the fleet has a ``budget``, its name or table; several: search these.
            Left out, "uncapped": then the breaker's brake alone keeps it.
        tick: time between two readings of the power.
    """

    share: Any = None
    place: Any = None
    round: Annotated[float, Quantity("s", high=1e7)] = 0.0
    power: Any = None
    tick: Annotated[float, Quantity("s", low=1.0, high=1e6)] = 300.0

    @property
    def shares(self) -> tuple[Any, ...]:
        """The share policies named; () = none."""
        return several(self.share)

    @property
    def places(self) -> tuple[Any, ...]:
        """The place policies named; () = none."""
        return several(self.place)

    @property
    def powers(self) -> tuple[Any, ...]:
        """The power policies named; () = none."""
        return several(self.power)


def read_jobs_plan(table: Mapping[str, Any]) -> JobsPlan:
    """Returns the plan of a table.

    Raises:
        SpecError: unknown key, wrong type, an empty list, a policy without a kind or named twice.
    """
    plan = convert(dict(table), JobsPlan, "plan")
    check_choices(plan, {"share": "fifo", "place": "best_fit", "power": "polca"})
    return plan
