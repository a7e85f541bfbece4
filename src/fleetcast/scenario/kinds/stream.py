"""A sensor pipeline."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import convert
from fleetcast.scenario.fleet.spec import Fleet
from fleetcast.scenario.kinds.scenario import Parts, Scenario
from fleetcast.scenario.stream_plan import StreamPlan, read_stream_plan
from fleetcast.scenario.workload.streams import Stream

LOWERED = {"power": "power", "latency": "latency"}
RAISED = {"productivity": "productivity", "quality": "f1", "throughput": "output_rate"}
"""What a stream may lower and raise; productivity is raised unless said otherwise."""
OF_FLEET = ("budget", "pue")
"""Keys of a fleet that a stream has; its devices are its nodes."""


class StreamScenario(Scenario, kw_only=True):
    """A sensor pipeline, and which improvements are made.

    Attributes:
        workload: sensors, links, processors, storage.
        plan: what is already decided; what is left out, `plan` searches.
    """

    workload: Stream
    plan: StreamPlan = StreamPlan()

    kind: ClassVar[str] = "stream"
    about: ClassVar[str] = "a sensor pipeline"
    parts: ClassVar[tuple[str, ...]] = ("fleet", "workload", "objective", "plan")

    def with_plan(self, plan: StreamPlan) -> StreamScenario:
        """Returns the scenario with another plan."""
        return msgspec.structs.replace(self, plan=plan)

    def goals(self) -> tuple[tuple[str, str, int], ...]:
        """Returns (goal, metric path, sign); productivity is maximised unless said otherwise."""
        if self.objective.minimize is None and self.objective.maximize is None:
            return (("productivity", "productivity", -1),)
        return self.objective.goals(LOWERED, RAISED)


def read(parts: Parts) -> StreamScenario:
    """Returns the scenario of a file's parts.

    Raises:
        SpecError: unknown key, wrong unit, out of range, contradictory.
    """
    parts.refuse_slo("a stream", '[objective] minimize = "latency"')
    fleet: Fleet = parts.shared["fleet"]
    for name in fleet.__struct_fields__:
        value: Any = getattr(fleet, name)
        if name not in OF_FLEET and value != getattr(Fleet(), name):
            raise SpecError(
                f"fleet.{name}", "is not said of a stream: its devices are its nodes",
                limit=f"of a fleet it takes {', '.join(OF_FLEET)}", hint="Say it of [[workload.nodes]]",
            )  # fmt: skip
    parts.objective.goals(LOWERED, RAISED)
    return StreamScenario(
        workload=convert(parts.workload, Stream, "workload"), plan=read_stream_plan(parts.plan), **parts.shared
    )
