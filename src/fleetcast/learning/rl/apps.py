"""Users' applications, edge servers and a radio: synthetic episodes to train and judge offloading.

Fixed before any agent was trained. An application is random layers of tasks between a first and a last one that stay on
the user's device: the first takes as long as the user waits before it begins. Devices compute a unit of work a second,
servers 4 to 10; links are radios of 10 to 40 Mb/s each way. Data make it worth asking: to offload a task alone costs
about what it saves, a whole branch less.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from fleetcast.base.rng import rng
from fleetcast.cost.graphs.platform import Platform
from fleetcast.scenario.workload.graphs import TaskGraph
from fleetcast.scenario.workload.graphs.graph import assemble


@dataclass(frozen=True, kw_only=True)
class Apps:
    """How episodes are drawn.

    Attributes:
        users: devices, each with one application.
        servers: edge servers.
        tasks: least and most tasks of an application, ends included.
        width: most tasks of a layer.
        work: mean seconds of a task on its device.
        bytes: mean bytes of an edge.
        wait: s over which the applications begin.
    """

    users: int = 4
    servers: int = 3
    tasks: tuple[int, int] = (8, 16)
    width: int = 4
    work: float = 1.0
    bytes: float = 1e6
    wait: float = 3.0

    def episode(self, seed: int) -> tuple[TaskGraph, Platform]:
        """Returns the graph of all users and their platform."""
        draw = rng(seed, "learning", "apps")
        work: list[float] = []
        owner: list[int] = []
        fixed: list[bool] = []
        tail: list[int] = []
        head: list[int] = []
        for user in range(self.users):
            self._application(draw, user, work, owner, fixed, tail, head)
        n, count = len(work), self.users + self.servers
        size = self.bytes * np.exp(draw.normal(-0.32, 0.8, len(tail)))
        graph = assemble(
            name=f"{self.users} applications", names=[f"u{u}.{i}" for i, u in enumerate(owner)], kernels=("task",),
            kernel=np.zeros(n, np.int32), work=work, unit="s", parent=tail, child=head, size=size,
            datum=np.arange(len(tail)), source=f"synthetic: seed {seed}",
        )  # fmt: skip
        mine = np.array(owner)[None, :] == np.arange(self.users)[:, None]
        speed = draw.uniform(4.0, 10.0, self.servers)
        devices = np.where(mine, np.array(work)[None, :], np.inf)
        servers = np.where(np.array(fixed)[None, :], np.inf, np.array(work)[None, :] / speed[:, None])
        rate = np.full((count, count), 1.25e8)
        for user, mbit in enumerate(draw.uniform(10.0, 40.0, self.users)):
            rate[user, :], rate[:, user] = mbit * 1.25e5, mbit * 1.25e5
        rows = {f"device {u}": devices[u].tolist() for u in range(self.users)}
        rows |= {f"server {s}": servers[s].tolist() for s in range(self.servers)}
        return graph, Platform.of(
            rows, rate=rate, latency=0.01, idle=[0.3] * self.users + [50.0] * self.servers,
            busy=[2.3] * self.users + [150.0] * self.servers,
        )  # fmt: skip

    def _application(
        self, draw: np.random.Generator, user: int, work: list[float], owner: list[int], fixed: list[bool],
        tail: list[int], head: list[int],
    ) -> None:  # fmt: skip
        count = int(draw.integers(self.tasks[0], self.tasks[1] + 1))
        first = len(work)
        layers, left = [[first]], count - 2
        while left:
            wide = min(left, int(draw.integers(1, self.width + 1)))
            layers.append(list(range(first + count - 1 - left, first + count - 1 - left + wide)))
            left -= wide
        layers.append([first + count - 1])
        work += [
            float(draw.uniform(0.0, self.wait)),
            *(self.work * draw.lognormal(-0.18, 0.6, count - 2)).tolist(),
            0.05,
        ]
        owner += [user] * count
        fixed += [True, *[False] * (count - 2), True]
        for above, below in itertools.pairwise(layers):
            reached = set()
            for task in below:
                for parent in draw.choice(above, int(draw.integers(1, min(2, len(above)) + 1)), replace=False).tolist():
                    tail.append(parent)
                    head.append(task)
                    reached.add(parent)
            for parent in above:
                if parent not in reached:
                    tail.append(parent)
                    head.append(below[int(draw.integers(len(below)))])
