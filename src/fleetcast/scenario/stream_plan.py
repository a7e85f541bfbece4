"""The plan of a stream: which improvements are made, and where its filter sits."""

from __future__ import annotations

from typing import Any

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.spec import Spec, convert, to_builtins
from fleetcast.scenario.workload.streams import StreamNode

MOST_UPGRADES = 12
NOWHERE = "nowhere"
"""Of a filter: no node makes it."""


class Upgrade(Spec):
    """An improvement that can be made or left.

    Attributes:
        name: unique.
        nodes: what it changes, node by node; keys that are left out stay.
    """

    name: str
    nodes: tuple[StreamNode, ...]


class StreamPlan(Spec):
    """What a scenario says under ``[plan]`` with ``kind = "stream"``.

    Attributes:
        upgrades: improvements that there are.
        use: names of those that are made; left out = none for simulate, any for plan.
        filter: the node at which ``workload.filter`` is made, "sensors" = each of them, or "nowhere"; a list = search
            these. Left out: at the
            first node that takes it for simulate, at any for plan.
    """

    upgrades: tuple[Upgrade, ...] = ()
    use: tuple[str, ...] | None = None
    filter: str | tuple[str, ...] | None = None

    def table(self) -> dict[str, Any]:
        """Returns the table that a file would hold."""
        found: dict[str, Any] = to_builtins(self)
        return found


def read_stream_plan(table: dict[str, Any]) -> StreamPlan:
    """Returns the plan of a table.

    Raises:
        SpecError: unknown keys, an upgrade twice or unknown, or too many of them.
    """
    plan = convert(table, StreamPlan, "plan")
    names = [upgrade.name for upgrade in plan.upgrades]
    if len(names) > MOST_UPGRADES:
        raise SpecError("plan.upgrades", "are too many", value=len(names),
                        limit=f"at most {MOST_UPGRADES}: every set of them is tried")  # fmt: skip
    for i, upgrade in enumerate(plan.upgrades):
        if not upgrade.name.strip() or names.index(upgrade.name) < i:
            raise SpecError(f"plan.upgrades[{i}].name", "is empty or stands twice", value=upgrade.name,
                            limit="each name once")  # fmt: skip
        if not upgrade.nodes:
            raise SpecError(f"plan.upgrades[{i}].nodes", "is empty", hint="Say what it changes, e.g. "
                            '[[plan.upgrades.nodes]] with name = "hlt" and op_energy = "8 J"')  # fmt: skip
    for i, name in enumerate(plan.use or ()):
        if name not in names:
            raise SpecError(f"plan.use[{i}]", "is not an upgrade of the plan", value=name,
                            limit=f"upgrades: {', '.join(names) or 'none'}", hint=closest(name, names))  # fmt: skip
    if plan.filter == ():
        raise SpecError("plan.filter", "names no node", value=[], limit=f'names of nodes, or "{NOWHERE}"')
    return plan
