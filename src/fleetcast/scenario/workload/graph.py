"""The graph workload of a scenario: a file or a generator, and what is known of its speeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from fleetcast.base.spec import Spec, build
from fleetcast.base.units import Quantity

if TYPE_CHECKING:
    from fleetcast.scenario.workload.graphs.graph import TaskGraph

Speed = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
Time = Annotated[float, Quantity("s", high=1e9)]


class Graph(Spec):
    """Tasks with dependencies, to be done once by the whole fleet.

    Attributes:
        graph: path of a WfFormat 1.5 file (.json) or a hyperDAG (.hdag), also .gz; or a generator's table, such as
            ``{ kind = "cholesky", tiles = 16, tile = 960 }``.
        kind: "graph".
        dtype: number format in which work in FLOP is done.
        speeds: device or group -> how much quicker it is than its peak says; of a workflow, than the machine of its
            record, which is 1.
        seconds: kernel -> device or group -> what every task of that kernel takes on one worker there; it runs nowhere
            else.
        home: group in whose memory lies what tasks read from outside; left out = everywhere.
        work_unit: what one unit of a hyperDAG's work takes on a device of speed 1.
        data_unit: bytes that one unit of a hyperDAG's messages stands for.
    """

    graph: str | dict[str, Any]
    kind: str = "graph"
    dtype: str = "fp32"
    speeds: dict[str, Speed] = msgspec.field(default_factory=dict)
    seconds: dict[str, dict[str, Time]] = msgspec.field(default_factory=dict)
    home: str = ""
    work_unit: Time = 1e-3
    data_unit: Annotated[float, Quantity("B", high=1e18)] = 1e6

    def read(self, seed: int = 0, folder: str | Path = ".") -> TaskGraph:
        """Returns the graph.

        Args:
            seed: of a generator that draws.
            folder: where a relative path starts.

        Raises:
            SpecError: no such file or generator, or anything in it that cannot be.
        """
        from fleetcast.scenario.workload.graphs import generators
        from fleetcast.scenario.workload.graphs.files import read_graph

        generated = {getattr(generators, name).kind for name in generators.__all__}
        if isinstance(self.graph, str) and self.graph not in generated:
            return read_graph(Path(folder) / self.graph, called=self.graph, work=self.work_unit, size=self.data_unit)
        made: TaskGraph = build(generators, self.graph, "workload.graph").graph(seed)
        return made
