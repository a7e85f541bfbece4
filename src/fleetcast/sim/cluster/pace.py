"""How fast jobs go in a world: a table of speeds, each job's work in its units, what apart and together cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.base.rng import rng
from fleetcast.cost.jobs import Lying

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from fleetcast.cost.jobs import Speeds
    from fleetcast.scenario.workload.jobs import Jobs
    from fleetcast.sim.cluster.nodes import Nodes

Beside = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, eq=False)
class Pace:
    """Speeds of a trace's jobs on a fleet's devices.

    Attributes:
        speeds: the table; its kinds are the fleet's, in order.
        units: f8[n], each job's work in the table's units.
        model: i4[n], each job's model in the table.
        apart: factor on a gang's speed where it lies on more nodes than it must.
        racks: factor where it lies in several racks.
        beside: factors on a model's speed beside another on a node, "" = any.
        believed: f8[n], factor of each job's speed as policies are told it.
    """

    speeds: Speeds
    units: NDArray[np.float64]
    model: NDArray[np.int32]
    apart: float = 1.0
    racks: float = 1.0
    beside: Beside = field(default_factory=dict)
    believed: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def rate(
        self, job: int, lying: tuple[Lying, ...], phase: int, *, apart: bool = False, racks: bool = False
    ) -> float:
        """Returns what share of a job's work is done in a second (1/s)."""
        found = self.speeds.rate(int(self.model[job]), lying, phase) / float(self.units[job])
        return found * (self.apart if apart else 1.0) * (self.racks if racks else 1.0)

    def phases(self, job: int) -> tuple[float, ...]:
        """Returns at which share of a job's work its speed may change."""
        return self.speeds.phases(int(self.model[job]))

    def together(self, model: str, others: Iterable[str]) -> float:
        """Returns the factor on a model's speed beside others on a node."""
        found = 1.0
        for other in others:
            for row in (self.beside.get(model), self.beside.get("")):
                factor = None if row is None else row.get(other, row.get(""))
                if factor is not None:
                    found *= factor
                    break
        return found


def close(nodes: Nodes, devices: Mapping[int, int]) -> tuple[Lying, ...]:
    """Returns devices by kind as they lie on as few nodes as hold them."""
    return tuple(
        Lying(kind, n, max(1, -(-n // nodes.kinds[kind].node))) for kind, n in sorted(devices.items()) if n
    )  # fmt: skip


def errors(jobs: Jobs, error: float, seed: int) -> NDArray[np.float64]:
    """Returns by what factor each job's speed is misjudged: uniform within ``error`` of 1; () = not at all."""
    if error == 0.0:
        return np.zeros(0)
    return rng(seed, "jobs", "estimates").uniform(1.0 - error, 1.0 + error, len(jobs))
