"""Who else lives on a fleet of jobs: a service's replicas and functions' nodes, as devices held over time.

A tenant is condensed to two step functions of time, devices held and watts drawn at the top clock, from the outcome of
its own world; what a policy of its own changes there (batching, keep-alive) changes what it holds here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.base.errors import SpecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.sim.functions.world import Pods

STEP = 300.0
"""Seconds in which a tenant's demand is taken as constant."""
DAY = 86_400.0


@dataclass(frozen=True)
class Tenant:
    """Somebody who takes devices of one kind before jobs do.

    Attributes:
        name: for people.
        kind: index of its kind of device.
        times: f8[k], s, ascending from 0; what holds from each on, and the last for ever.
        devices: i8[k].
        watts: f8[k], that they draw at the top clock, all together.
        low: it is slowed with the jobs when power is short; else with what matters.
    """

    name: str
    kind: int
    times: NDArray[np.float64]
    devices: NDArray[np.int64]
    watts: NDArray[np.float64]
    low: bool = False

    def at(self, time: float) -> tuple[int, float]:
        """Returns devices and watts at a time (s)."""
        i = int(np.searchsorted(self.times, time, side="right")) - 1
        return int(self.devices[i]), float(self.watts[i])


def service(
    name: str, kind: int, *, seconds: float, rate: float, per_replica: int, day: Sequence[float], span: float,
    idle: float, busy: float, target: float = 0.7,
) -> Tenant:  # fmt: skip
    """Returns a service that keeps as many replicas as its traffic needs.

    Args:
        name: for people.
        kind: of device.
        seconds: of a replica that one request takes where there is always work: one over the most that it serves.
        rate: requests a second, averaged over the day.
        per_replica: devices of one.
        day: factors on ``rate`` over a day, at equal steps.
        span: s for which it is wanted.
        idle: W of a device without work; ``busy``: of one that works.
        busy: see ``idle``.
        target: share of the most that it serves for which a replica is planned.

    Raises:
        SpecError: an empty day, or a factor below 0.
    """
    if not day or min(day) < 0:
        raise SpecError("day", "must be factors of at least 0", value=list(day), hint="Write e.g. [0.5, 1.5]")
    times = np.arange(0.0, max(span, DAY / len(day)), DAY / len(day))
    load = rate * np.array([day[i % len(day)] for i in range(len(times))]) * seconds
    replicas = np.maximum(np.ceil(load / target - 1e-9), 1).astype(np.int64)
    devices = replicas * per_replica
    watts = devices * idle + load * per_replica * (busy - idle)
    return Tenant(name, kind, times, devices, watts)


def functions(
    name: str, kind: int, pods: Pods, memory: float, *, span: float, idle: float, busy: float, step: float = STEP
) -> Tenant:  # fmt: skip
    """Returns functions that take whole devices (nodes) for the memory of their pods, day after day.

    Args:
        name: for people.
        kind: of device.
        pods: of a run of `sim.functions`; its span repeats.
        memory: B of a device.
        span: s for which they are wanted.
        idle: W of a device without work; ``busy``: of one whose memory is all at work.
        busy: see ``idle``.
        step: s in which demand is taken at its highest.
    """
    edges = np.arange(0.0, pods.trace.span, step)
    held = pods.trace.memory[pods.function]
    times = np.concatenate([pods.start, pods.death])
    change = np.concatenate([held, -held])
    order = np.lexsort((change, times))
    now, level = times[order], np.cumsum(change[order])
    # the highest level in each step: that at its begin, and every one reached within
    begin = level[np.searchsorted(now, edges, side="right") - 1] * (np.searchsorted(now, edges, side="right") > 0)
    inside = np.minimum((now // step).astype(int), len(edges) - 1)
    most = begin.copy()
    np.maximum.at(most, inside, level)
    devices = np.ceil(most / memory - 1e-9).astype(np.int64)
    working = pods.running + pods.starting
    share = float((working * pods.trace.memory).sum()) / max(float(((pods.death - pods.start) * held).sum()), 1e-12)
    watts = devices * idle + np.minimum(most / memory, devices) * share * (busy - idle)
    turns = max(1, int(np.ceil(span / pods.trace.span)))
    return Tenant(
        name, kind, np.concatenate([edges + k * pods.trace.span for k in range(turns)]), np.tile(devices, turns),
        np.tile(watts, turns), low=True,
    )  # fmt: skip
