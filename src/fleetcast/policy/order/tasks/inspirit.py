"""INSPIRIT: ready tasks are ordered by what they will let start, and the order follows the number of ready tasks.

"INSPIRIT: Optimizing Heterogeneous Task Scheduling through Adaptive Priority in Task-based Runtime Systems", IPDPSW
2025 (arXiv 2404.03226). A ready task goes to the worker that dmda would choose. An idle worker takes the task of its
queue with the greatest *inspiring ability*, how many tasks it lets start, or with the greatest *inspiring efficiency*,
the ability per second on that worker. Which of the two follows the number of ready tasks N:

- rising (N within ``fall`` of its peak): whenever N has risen by ``rise``, the slope since the last time decides.
  Below ``slope``, efficiency; otherwise ability.
- falling: just below each multiple of ``fall`` under the peak, efficiency for half a step; otherwise ability.

How this differs from the paper: abilities are files there, and how they are made is not published. Here a task that has
become ready was made so by its parents in equal parts, and a task's ability is all that begins with its parts:
sum over children of (1 + their ability) / (their number of parents). Added over the tasks without parents it is the
whole graph. Slopes are per task the fleet could have ended in that time, instead of per second, so that one setting
holds for tasks of milliseconds and of hours; steps count in workers.
"""

from __future__ import annotations

import math

from fleetcast.policy.order.tasks.sorted_queue import SortedQueue
from fleetcast.policy.order.tasks.view import View


class Inspirit:
    """Queues are served by what tasks let start, or by that per second, as the number of ready tasks goes.

    Args:
        slope: ready tasks that should be won per task that the fleet could end meanwhile.
        rise: ready tasks per worker between two looks at the slope.
        fall: ready tasks per worker of one step down.
    """

    kind = "inspirit"

    def __init__(self, *, slope: float = 0.5, rise: float = 1.0, fall: float = 1.0) -> None:
        self.slope, self.rise, self.fall = slope, rise, fall
        self._controller = Controller(slope, 1, 1)
        self._ability: list[float] = []
        self._by_ability: list[SortedQueue] = []
        self._by_efficiency: list[SortedQueue] = []

    def start(self, view: View) -> None:
        """Reads abilities off the graph."""
        workers = len(view.workers)
        mean = [seconds for seconds in view.platform.mean.tolist() if seconds > 0]
        pace = workers * len(mean) / math.fsum(mean) if mean else 1.0
        step_up, step_down = (max(1, round(part * workers)) for part in (self.rise, self.fall))
        self._controller = Controller(self.slope * pace, step_up, step_down)
        self._ability = abilities(view)
        self._by_ability = [SortedQueue(worker) for worker in view.workers]
        self._by_efficiency = [SortedQueue(worker) for worker in view.workers]

    def push(self, task: int, view: View) -> int | None:
        """Returns the worker that is expected to end the task first."""
        worker = view.soonest(task)
        if worker is not None:
            ability = self._ability[task]
            self._by_ability[worker].add(task, ability)
            self._by_efficiency[worker].add(task, ability / max(view.estimate(task, worker), 1e-12))
        return worker

    def pop(self, worker: int, view: View) -> int | None:
        """Returns the task of the worker's queue that lets most start, now or per second."""
        efficient = self._controller.efficient(view.n_ready, view.now)
        return (self._by_efficiency if efficient else self._by_ability)[worker].best(view)


class Controller:
    """Chooses between ability and efficiency by the course of the number of ready tasks.

    Args:
        slope: ready tasks per second below which efficiency is asked for while their number rises.
        rise: ready tasks between two looks at the slope.
        fall: ready tasks of one step down.
    """

    def __init__(self, slope: float, rise: int, fall: int) -> None:
        self._slope, self._rise, self._fall = slope, rise, fall
        self._peak, self._level = 0, 0
        self._from = (0, 0.0)
        self._efficient = True

    def efficient(self, ready: int, now: float) -> bool:
        """Returns whether efficiency decides now.

        Args:
            ready: number of ready tasks.
            now: s.
        """
        if ready > self._peak:
            self._peak, self._level = ready, 0
        if ready >= self._peak - self._fall:
            self._efficient = self._rising(ready, now)
        else:
            self._efficient = self._falling(ready)
            self._from = (ready, now)
        return self._efficient

    def _rising(self, ready: int, now: float) -> bool:
        base, since = self._from
        if ready < base:
            self._from = (ready, now)
        elif ready - base >= self._rise:
            self._from = (ready, now)
            return ready - base < self._slope * (now - since)
        return self._efficient

    def _falling(self, ready: int) -> bool:
        if ready < self._fall or ready <= self._rise:
            return False
        while ready <= self._peak - (self._level + 1) * self._fall:
            self._level += 1
        under = self._peak - self._level * self._fall - ready
        return 0 <= under <= self._fall // 2


def abilities(view: View) -> list[float]:
    """Returns of each task the tasks that its parts let start, and what those let start in turn."""
    found = [0.0] * len(view.graph)
    share = [0.0] * len(view.graph)
    for task in reversed(view.graph.order.tolist()):
        for child in view.children(task):
            found[task] += share[child]
        share[task] = (1.0 + found[task]) / max(len(view.parents(task)), 1)
    return found
