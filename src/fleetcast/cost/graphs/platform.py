"""Workers and what lies between them: all that an order of tasks is decided by.

A worker is one device, or a part of one: workers of one ``node`` share its memory. Work takes ``seconds[kind, task]``;
a message from worker a to b takes ``latency[a, b] + bytes / rate[a, b]`` s and holds its channels from begin to end. A
channel carries one message at a time, in the order asked for (one port a device and direction: Beaumont, Legrand,
Marchal and Robert, 2005); messages without a channel in common pass each other. Channels are the ports of devices, and
a medium that several of them share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.kernels import dag

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.scenario.workload.graphs import TaskGraph

NONE = -1
"""No channel, no worker."""


@dataclass(frozen=True, eq=False)
class Platform:
    """W workers of K kinds under one graph of n tasks.

    Attributes:
        workers: names.
        kinds: names of kinds of device.
        kind: i4[W], index into ``kinds``.
        node: i4[W]: workers of one node have one memory, and nothing travels between them.
        seconds: f8[K, n]; inf where a kind cannot run a task.
        memory: f8[W], bytes; inf = nobody says.
        latency: f8[W, W], s.
        rate: f8[W, W], B/s; inf within a node.
        channels: i4[W, W, 2], what a message from a to b holds; -1 = nothing.
        ports: names of channels.
        home: worker at which what tasks read from outside lies and where results go; -1 = nobody says, they are free.
        idle: f8[W], W.
        busy: f8[W], W.
    """

    workers: tuple[str, ...]
    kinds: tuple[str, ...]
    kind: NDArray[np.int32]
    node: NDArray[np.int32]
    seconds: NDArray[np.float64]
    memory: NDArray[np.float64]
    latency: NDArray[np.float64]
    rate: NDArray[np.float64]
    channels: NDArray[np.int32]
    ports: tuple[str, ...]
    home: int
    idle: NDArray[np.float64]
    busy: NDArray[np.float64]

    def __len__(self) -> int:
        """Number of workers."""
        return len(self.workers)

    @cached_property
    def usual(self) -> tuple[float, float]:
        """(latency s, s per byte) between two different workers, the mean of all pairs; nothing where there is one."""
        apart = ~np.eye(len(self), dtype=bool)
        if not apart.any():
            return 0.0, 0.0
        return float(self.latency[apart].mean()), float((1.0 / self.rate[apart]).mean())

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """f8[n]: seconds of a task, the mean of the workers that can run it."""
        times = np.bincount(self.kind, minlength=len(self.kinds)).astype(float)
        able = np.isfinite(self.seconds)
        total = (np.where(able, self.seconds, 0.0) * times[:, None]).sum(0)
        return np.asarray(total / np.maximum((able * times[:, None]).sum(0), 1.0))

    def check(self, graph: TaskGraph) -> None:
        """Refuses a graph of which a task fits no worker.

        Raises:
            Infeasible: its memory is more than any worker has that can run it.
            SpecError: no worker can run it at all.
        """
        able = np.isfinite(self.seconds)
        if not able.any(0).all():
            task = int(np.argmin(able.any(0)))
            raise SpecError(
                f"{graph.name}.{graph.names[task]}", "runs on no device of the fleet",
                value=graph.kernels[graph.kernel[task]], limit=f"devices: {', '.join(self.kinds)}",
                hint="Give its seconds on one of them",
            )  # fmt: skip
        fits = able & (graph.memory[None, :] <= self.roomiest[:, None])
        if not fits.any(0).all():
            task = int(np.argmin(fits.any(0)))
            raise Infeasible(
                f"memory of task {graph.names[task]} on one device", need=float(graph.memory[task]),
                have=float(self.roomiest[able[:, task]].max()), unit="B", hint="Cut it into smaller tasks",
            )  # fmt: skip

    @cached_property
    def roomiest(self) -> NDArray[np.float64]:
        """f8[K], bytes: the most memory that a worker of each kind has."""
        return np.array([self.memory[self.kind == k].max() for k in range(len(self.kinds))])

    @classmethod
    def of(
        cls, seconds: Mapping[str, Sequence[float]], *, rate: float | Any = 1e9, latency: float | Any = 0.0,
        kinds: Sequence[str] = (), memory: float | Sequence[float] = np.inf, idle: float | Sequence[float] = 0.0,
        busy: float | Sequence[float] = 0.0, home: int = NONE,
    ) -> Platform:  # fmt: skip
        """Returns a platform written in code: a port in and a port out of every worker.

        Args:
            seconds: worker -> its seconds for each task; inf = it cannot run it.
            rate: B/s between two workers, one number or W x W.
            latency: s between two workers, one number or W x W.
            kinds: of the workers; () = each its own.
            memory: bytes, one number or W.
            idle: W, one number or W.
            busy: W, one number or W.
            home: worker where inputs from outside lie; -1 = they are free.
        """
        names, count = tuple(seconds), len(seconds)
        known = tuple(dict.fromkeys(kinds or names))
        kind = np.array([known.index(k) for k in (kinds or names)], np.int32)
        rows = np.array([list(seconds[names[int(np.argmax(kind == k))]]) for k in range(len(known))], float)
        apart = ~np.eye(count, dtype=bool)
        channels = np.full((count, count, 2), NONE, np.int32)
        a, b = np.nonzero(apart)
        channels[a, b, 0], channels[a, b, 1] = a, count + b
        full = [np.broadcast_to(np.asarray(v, float), count).copy() for v in (memory, idle, busy)]
        ports = tuple(f"{w} {way}" for way in ("out", "in") for w in names)
        return cls(
            names, known, kind, np.arange(count, dtype=np.int32), rows, full[0], np.where(apart, latency, 0.0),
            np.where(apart, rate, np.inf), channels, ports, home, full[1], full[2],
        )  # fmt: skip


def upward_ranks(graph: TaskGraph, platform: Platform) -> NDArray[np.float64]:
    """Returns f8[n], s: the longest mean way from a task's begin to the end (HEFT: Topcuoglu, Hariri, Wu, 2002)."""
    latency, pace = platform.usual
    return np.asarray(dag.upward(graph.order, graph.first, graph.child, platform.mean, latency + pace * graph.size))
