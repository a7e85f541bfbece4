"""The functions of a scenario: who is invoked when, what a pod holds and takes to start, and in which regions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import Spec, build
from fleetcast.base.units import Quantity, Watts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fleetcast.scenario.workload.invocations import Invocations

Time = Annotated[float, Quantity("s", high=1e6)]
DRAWN = 64
"""Starts of each function that are drawn from a law or a log, taken in turn."""
PLAIN = 128e6
"""B of a pod where neither trace nor scenario says it."""


class Law(Spec):
    """How long a part of a cold start takes: lognormal.

    Attributes:
        mean: s.
        deviation: s; 0 = always the mean.
    """

    mean: Time
    deviation: Time = 0.0


class Start(Spec):
    """What a cold start takes, part by part, each drawn by itself.

    Attributes:
        pod_allocation: finding a pod in the pool, or making one.
        code: fetching and unpacking the function's code.
        dependencies: fetching and loading what the code needs.
        scheduling: networking, routing, scheduling.
    """

    pod_allocation: Law = Law(mean=0.0)
    code: Law = Law(mean=0.0)
    dependencies: Law = Law(mean=0.0)
    scheduling: Law = Law(mean=0.0)


class Region(Spec):
    """Where functions run.

    Attributes:
        name: the trace's, or any: then the trace's regions take those of the scenario in turn.
        on: the fleet's group whose devices are its nodes; default the group of the same place in the list.
        grid: carbon intensity, as a fleet's; default the fleet's.
        distance: s that a request from another region takes to it and back.
        solar: instead of a grid: a CSV file of the sun on its panels, W/m2 over time.
        panel: peak power of a node's panels, W at 1,000 W/m2.
        battery: J that a node stores.
        reserve: share of the battery below which a node starts nothing.
    """

    name: str
    on: str = ""
    grid: str | float | None = None
    distance: Time = 0.0
    solar: str = ""
    panel: Watts = 1000.0
    battery: Annotated[float, Quantity("J", high=1e12)] = 3.8 * 3.6e6
    reserve: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.2


class Functions(Spec):
    """Functions that are invoked over time.

    Attributes:
        invocations: path of a trace of Azure Functions (2019 or 2021), or a generator's table, such as
            ``{ kind = "synthetic", hours = 6 }``.
        kind: "functions".
        durations: of a trace of 2019: its table of durations, beside it.
        memories: of a trace of 2019: its table of memory, beside it.
        memory: of a pod, where the trace does not say.
        start: what a cold start takes: parts, or the path of logged ones in the published schema; default the
            generator's, and of a trace the published fit.
        regions: where functions run; default one for each group of the fleet.
    """

    invocations: str | dict[str, Any]
    kind: str = "functions"
    durations: str = ""
    memories: str = ""
    memory: Annotated[float, Quantity("B", low=1.0, high=1e15)] | None = None
    start: Start | str | None = None
    regions: tuple[Region, ...] = ()

    def read(self, seed: int = 0, folder: str | Path = ".") -> Invocations:
        """Returns the trace, with the starts that the scenario says.

        Args:
            seed: of a generator, and of what a trace leaves open.
            folder: where relative paths start.

        Raises:
            SpecError: no such file or generator, or anything in it that cannot be.
        """
        from fleetcast.scenario.workload.invocations import generators
        from fleetcast.scenario.workload.invocations.azure import Beside, read_azure

        kinds = {getattr(generators, name).kind for name in generators.__all__}
        if isinstance(self.invocations, str) and self.invocations not in kinds:
            beside = Beside(self.durations, self.memories, self.memory or PLAIN)
            trace = read_azure(Path(folder) / self.invocations, seed=seed, beside=beside, name=self.invocations)
            return self._started(trace, seed, Path(folder), self.start or PUBLISHED)
        for key in ("durations", "memories"):
            if getattr(self, key):
                raise SpecError(f"workload.{key}", "is of a trace, and this one is generated", limit="a trace of 2019",
                                hint="Leave it out")  # fmt: skip
        made: Invocations = build(generators, self.invocations, "workload.invocations").invocations(seed)
        if self.memory is not None:
            made = _holding(made, self.memory)
        return made if self.start is None else self._started(made, seed, Path(folder), self.start)

    def _started(self, trace: Invocations, seed: int, folder: Path, start: Start | str) -> Invocations:
        import numpy as np

        from fleetcast.base.rng import rng

        draw, size = rng(seed, "functions", "starts"), len(trace.names) * DRAWN
        if isinstance(start, str):
            from fleetcast.scenario.workload.invocations.coldstarts import read_cold_starts

            logged = read_cold_starts(folder / start)
            rows = logged.parts[draw.integers(0, len(logged), size)]
        else:
            laws = (start.pod_allocation, start.code, start.dependencies, start.scheduling)
            rows = np.stack([_drawn(law, draw.standard_normal(size)) for law in laws], axis=1)
        return trace.with_starts(rows, np.arange(len(trace.names) + 1) * DRAWN)


def _drawn(law: Law, normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns lognormal numbers of a mean and a deviation."""
    import numpy as np

    if law.mean == 0.0:
        return np.zeros(len(normal))
    variance = np.log1p((law.deviation / law.mean) ** 2)
    found: NDArray[np.float64] = law.mean * np.exp(np.sqrt(variance) * normal - variance / 2.0)
    return found


def _holding(trace: Invocations, memory: float) -> Invocations:
    """Returns a trace whose pods all hold as much memory."""
    from dataclasses import replace

    import numpy as np

    return replace(trace, memory=np.full(len(trace.names), memory))


PUBLISHED = Start(
    pod_allocation=Law(mean=0.55, deviation=2.9), code=Law(mean=0.22, deviation=1.0),
    dependencies=Law(mean=0.77, deviation=3.6), scheduling=Law(mean=1.70, deviation=5.3),
)  # fmt: skip
"""A start of 3.24 s on average, as the published fit has it. How it is shared among parts is ours."""
