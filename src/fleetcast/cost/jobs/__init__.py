"""How fast a job goes on devices of some kinds that lie on some nodes.

Every table of speeds answers one question, `Speeds.rate`: work a second of one model on one placement. What a unit of
work is (a step, a sample, a sample worth as much as one of the reference batch) is the table's own affair: a job's
work is ``seconds`` times the rate of its reference placement, so that units cancel. Where the worth of a sample
changes while a model learns, the rate has *phases*, which begin at known shares of a job's work.

Tables: `Linear` (the null: each device adds its kind's factor), `Throughputs` (Gavel's steps per second), `Profiles`
(measured step times by placement and gradient noise, as Pollux and Sia use them), `Virtual` (EasyScale's fixed
workers on any devices).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fleetcast.scenario.workload.jobs import Jobs

__all__ = ["Linear", "Lying", "Profiles", "Speeds", "Throughputs", "Virtual", "closest", "work"]


class Lying(NamedTuple):
    """Devices of one kind that one job has.

    Attributes:
        kind: index into the table's kinds.
        devices: how many.
        nodes: on how many nodes they lie.
    """

    kind: int
    devices: int
    nodes: int = 1


class Speeds(Protocol):
    """A table of speeds.

    Attributes:
        kinds: names of the kinds of devices, in the order of the fleet's.
        models: names of what it knows.
        source: where it is from.
    """

    kinds: tuple[str, ...]
    models: tuple[str, ...]
    source: str

    def rate(self, model: int, lying: tuple[Lying, ...], phase: int = 0) -> float:
        """Returns work a second, 0 where the model cannot run so."""
        ...

    def phases(self, model: int) -> tuple[float, ...]:
        """Returns at which share of the work done each phase begins, ascending from 0."""
        ...

    def whole(self, model: int) -> float:
        """Returns work of a whole job of a model, 0 where that is the trace's affair."""
        ...


def work(speeds: Speeds, jobs: Jobs, kind: int, size: int) -> NDArray[np.float64]:
    """Returns each job's work in the table's units, f8[jobs].

    Args:
        speeds: the table; its models are the jobs'.
        jobs: with ``units`` where the trace counts in them.
        kind: on which the trace's ``seconds`` hold, on as few nodes as can be.
        size: devices of a node of it.
    """
    result = np.zeros(len(jobs))
    for i, (model, demand) in enumerate(zip(jobs.model.tolist(), jobs.demand.tolist(), strict=True)):
        said = (0.0 if jobs.units is None else float(jobs.units[i])) or speeds.whole(model)
        result[i] = said or jobs.seconds[i] * speeds.rate(model, (closest(kind, demand, size),))
    return result


def called(device: str, known: Collection[str]) -> str | None:
    """Returns what a table calls a device: its own name, or that before the first "-" ("v100" for "v100-sxm-16g")."""
    return next((name for name in (device, device.split("-")[0]) if name in known), None)


def closest(kind: int, devices: int, size: int) -> Lying:
    """Returns how devices lie on as few nodes of ``size`` devices as hold them."""
    return Lying(kind, devices, max(1, -(-devices // size)))


from fleetcast.cost.jobs.gavel import Throughputs  # noqa: E402  (they need the types above)
from fleetcast.cost.jobs.linear import Linear  # noqa: E402
from fleetcast.cost.jobs.profiles import Profiles  # noqa: E402
from fleetcast.cost.jobs.virtual import Virtual  # noqa: E402
