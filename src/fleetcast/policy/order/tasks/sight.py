"""What the agent of a device sees when it decides where a task of its user runs, as numbers around 1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.cost.graphs.offloading import Users, Weights
from fleetcast.kernels import dag

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.policy.order.tasks.view import View

FAR = 9.0
"""Numbers are cut here; they are around 1."""
PLACES, TASK, ADDS = 6, 5, 5
"""Numbers that say something of each place a task could run, and of the task; which one is what it adds to the bill."""


class Sight:
    """Observations of the agents of a graph's devices, and what a decision adds to the bill.

    A place is the device itself (first) or a server. Of a place: its backlog, seconds of the task, seconds of its data,
    the device's energy, the work it was given before, what it would add to the bill; of the task: how much must follow
    it, its children, the share of the user's tasks that are left, whether it is on the user's longest way, and whether
    it must stay.

    Args:
        view: of the graph before it begins.
        weights: of the bill.
    """

    def __init__(self, view: View, weights: Weights) -> None:
        graph, platform = view.graph, view.platform
        self.users, self.weights = Users.of(graph, platform), weights
        self.agent = {device: i for i, device in enumerate(self.users.devices)}
        quickest = platform.seconds.min(0)
        gap = np.zeros(graph.edges)
        self._after = (np.asarray(dag.upward(graph.order, graph.first, graph.child, quickest, gap)) - quickest).tolist()
        self._owner = self.users.owner.tolist()
        self._tasks = np.bincount(self.users.owner[self.users.owner >= 0], minlength=len(platform)).tolist()
        self._left = list(self._tasks)
        self._alone, self._joules = self.users.seconds.tolist(), self.users.joules.tolist()
        self._power = (platform.busy - platform.idle).tolist()
        self._given = dict.fromkeys(self.users.servers, 0.0)
        self._end = dict.fromkeys(self.users.devices, 0.0)
        self._spread = 0.0

    def places(self, task: int) -> tuple[int, ...]:
        """Returns where a task may run in the order of the numbers: its device, then the servers."""
        return (self._owner[task], *self.users.servers)

    def see(self, task: int, view: View) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns f8[places, PLACES], f8[TASK] of a task that is ready."""
        device = self._owner[task]
        scale = self._alone[device] / self._tasks[device]
        joules = self._joules[device] / self._tasks[device]
        rows, best = [], np.inf
        for place in self.places(task):
            seconds, fetch = view.estimate(task, place), view.fetch(task, place)
            wait = view.free_at(place) - view.now
            best = min(best, wait + seconds + fetch)
            own = place == device
            energy = seconds * self._power[device] if own else fetch * self.weights.radio
            given = 0.0 if own else self._given[place] / max(self.users.load, 1e-12)
            adds = FAR  # a place that cannot run the task adds more than any other
            if seconds < math.inf:
                adds = min(10.0 * len(self.users.devices) * self.would_add(task, place, view), FAR)
            rows.append(
                (wait / scale, min(seconds / scale, 9.0), fetch / scale, min(energy / joules, 9.0), given, adds)
            )
        ahead = view.now + best + self._after[task] - self._end[device]
        told = (
            self._after[task] / self._alone[device], len(view.children(task)) / 4.0,
            self._left[device] / self._tasks[device], float(np.tanh(ahead / scale)), float(rows[-1][1] >= FAR),
        )  # fmt: skip
        return np.array(rows), np.array(told)

    def would_add(self, task: int, place: int, view: View) -> float:
        """Returns what a decision would add to the bill, as far as it can be known now."""
        return self._weighed(task, place, view)[0]

    def add(self, task: int, place: int, view: View) -> float:
        """Notes a decision before it is carried out; returns what it adds to the bill, as far as it can be known now.

        Over a whole graph these sum to the bill but for messages that met others on their way, and for the time that
        must pass after the first task whatever is decided.
        """
        added, end, self._spread = self._weighed(task, place, view)
        device = self._owner[task]
        self._end[device] = max(self._end[device], end)
        self._left[device] -= 1
        if place != device:
            self._given[place] += view.estimate(task, place)
        return added

    def _weighed(self, task: int, place: int, view: View) -> tuple[float, float, float]:
        """What a decision adds, when the user would then be done at best, and the spread over servers."""
        device, weights, count = self._owner[task], self.weights, len(self.users.devices)
        seconds, fetch = view.estimate(task, place), view.fetch(task, place)
        end = max(view.now + fetch, view.free_at(place)) + seconds + self._after[task]
        later = max(0.0, end - self._end[device]) if self._end[device] else 0.0
        energy = seconds * self._power[device] if place == device else fetch * weights.radio
        spread = self._spread
        if place != device:
            given = [done + seconds * (server == place) for server, done in self._given.items()]
            mean = sum(given) / len(given)
            spread = math.sqrt(sum((x - mean) ** 2 for x in given) / len(given)) / max(self.users.load, 1e-12)
        added = (
            weights.time * later / (self._alone[device] * count)
            + weights.energy * energy / (self._joules[device] * count)
            + weights.balance * (spread - self._spread)
        )
        return added, end, spread
