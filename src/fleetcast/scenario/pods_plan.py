"""The plan of pods on nodes: which policy says where each lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetcast.base.spec import Spec, convert
from fleetcast.scenario.choices import check_choices, several

Choice = str | dict[str, Any]


class PodsPlan(Spec):
    """What a scenario says under ``[plan]`` with ``kind = "jobs"`` and ``pods``.

    Attributes:
        place: the policy that places pods, its name or table; several: search these. Left out, ``simulate`` takes
            "kube_default" and ``plan`` searches all.
    """

    place: Choice | tuple[Choice, ...] | None = None

    @property
    def places(self) -> tuple[Choice, ...]:
        """The place policies named; () = none."""
        return several(self.place)


def read_pods_plan(table: Mapping[str, Any]) -> PodsPlan:
    """Returns the plan of a table.

    Raises:
        SpecError: unknown key, wrong type, an empty list, a policy without a kind or named twice.
    """
    plan = convert(dict(table), PodsPlan, "plan")
    check_choices(plan, {"place": "cp_sat"})
    return plan
