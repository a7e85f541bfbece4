"""What it costs users to leave tasks of their applications to servers: time, their devices' energy, balance of servers.

A device is a worker on which some task must run: one that no other worker can run. The tasks that hang together with it
are its user's; every other worker is a server. The cost of a schedule is a mean over users plus the servers' balance,

    w_time mean(latency / latency alone) + w_energy mean(energy / energy alone) + w_balance spread / load,

where alone means every task on the user's device, one after the other; latency counts from the end of the user's first
task; energy is that of computing above idling, and of the radio while data leave or reach the device; spread is the
standard deviation of the servers' busy time and load the mean it would have if all work were theirs. The weighted sum
is that of mobile edge computing (Com-DDPG: arXiv 2012.05105); its weights are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.cost.graphs.platform import Platform
    from fleetcast.cost.graphs.schedule import Schedule
    from fleetcast.scenario.workload.graphs import TaskGraph

NOBODY = -1


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What counts how much.

    Attributes:
        time: of latency.
        energy: of the devices' energy.
        balance: of the spread over servers.
        radio: W of a device while it sends or receives.
    """

    time: float = 0.5
    energy: float = 0.3
    balance: float = 0.2
    radio: float = 1.0


@dataclass(frozen=True, eq=False)
class Users:
    """Whose task is which, and what each user would pay alone.

    Attributes:
        owner: i4[n], the device of a task's user; -1 = nobody's.
        devices: of users, ascending.
        servers: all other workers, ascending.
        seconds: f8[W], of a device: its user's tasks one after the other; 0 for servers.
        joules: f8[W], of a device: their energy above idling.
        load: s, mean busy time of a server if all work that can be were on servers.
    """

    owner: NDArray[np.int32]
    devices: tuple[int, ...]
    servers: tuple[int, ...]
    seconds: NDArray[np.float64]
    joules: NDArray[np.float64]
    load: float

    @classmethod
    def of(cls, graph: TaskGraph, platform: Platform) -> Users:
        """Returns the users of a graph; without a task that is bound to a device there are none."""
        rows = platform.seconds[platform.kind]
        able = np.isfinite(rows)
        n = len(graph)
        ends = (np.ones(graph.edges), (graph.parent_of_edge, graph.child))
        count, part = connected_components(csr_array(ends, shape=(n, n)), directed=False)
        device = np.full(count, NOBODY, np.int32)
        bound = np.flatnonzero(able.sum(0) == 1)
        device[part[bound]] = able[:, bound].argmax(0)
        owner = device[part].astype(np.int32)
        devices = tuple(sorted({int(d) for d in device if d >= 0}))
        servers = tuple(w for w in range(len(platform)) if w not in devices)
        owned = owner >= 0
        own = np.where(owned, rows[owner, np.arange(n)], 0.0)
        seconds = np.bincount(owner[owned], own[owned], len(platform)).astype(float)
        quickest = rows[list(servers)].min(0) if servers else np.full(n, np.inf)
        load = float(quickest[np.isfinite(quickest)].sum()) / max(len(servers), 1)
        return cls(owner, devices, servers, seconds, seconds * (platform.busy - platform.idle), load)


@dataclass(frozen=True)
class Bill:
    """What a schedule costs.

    Attributes:
        time: mean over users of latency over latency alone.
        energy: mean over users of energy over energy alone.
        balance: spread of the servers' busy time over their load.
        total: the weighted sum.
    """

    time: float
    energy: float
    balance: float
    total: float


def bill(schedule: Schedule, graph: TaskGraph, platform: Platform, users: Users, weights: Weights) -> Bill:
    """Returns what a schedule costs the users of a graph."""
    lasts = schedule.finish - schedule.start
    sent = schedule.messages
    entry = np.diff(graph.by_child[0]) == 0
    times, joules = [], []
    for device in users.devices:
        mine = users.owner == device
        times.append((schedule.finish[mine].max() - schedule.finish[mine & entry].min()) / users.seconds[device])
        computing = lasts[mine & (schedule.worker == device)].sum() * (platform.busy - platform.idle)[device]
        talking = (sent.end - sent.begin)[(sent.source == device) | (sent.target == device)].sum() * weights.radio
        joules.append((computing + talking) / users.joules[device])
    busy = np.bincount(schedule.worker, lasts, len(platform))[list(users.servers)]
    spread = float(busy.std() / users.load) if users.servers and users.load else 0.0
    time, energy = float(np.mean(times)), float(np.mean(joules))
    total = weights.time * time + weights.energy * energy + weights.balance * spread
    return Bill(time, energy, spread, total)
