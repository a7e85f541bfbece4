"""The plan of pods on nodes: which policy says where each lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import Spec, convert

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
        if self.place is None:
            return ()
        return tuple(self.place) if isinstance(self.place, list | tuple) else (self.place,)


def read_pods_plan(table: Mapping[str, Any]) -> PodsPlan:
    """Returns the plan of a table.

    Raises:
        SpecError: unknown key, wrong type, an empty list, a policy without a kind or named twice.
    """
    plan = convert(dict(table), PodsPlan, "plan")
    if isinstance(plan.place, list | tuple) and not plan.place:
        raise SpecError("plan.place", "names no policy", value=[], limit="at least one", hint="Leave it out: all")
    for i, choice in enumerate(plan.places):
        path = f"plan.place[{i}]" if len(plan.places) > 1 else "plan.place"
        if isinstance(choice, dict) and "kind" not in choice:
            raise SpecError(f"{path}.kind", "is missing", value=choice, hint='Write e.g. place = { kind = "cp_sat" }')
        if choice in plan.places[:i]:
            raise SpecError(path, "is named before", value=choice, limit="each policy once", hint="Name it once")
    return plan
