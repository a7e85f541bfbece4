"""INSPIRIT: ready tasks are ordered by what they will let start, and the order follows the number of ready tasks.

"INSPIRIT: Optimizing Heterogeneous Task Scheduling through Adaptive Priority in Task-based Runtime Systems", IPDPSW
2025 (arXiv 2404.03226). A ready task goes to the worker that dmda would choose. An idle worker takes the task of its
queue with the greatest *inspiring ability*, how many tasks it lets start, or with the greatest *inspiring efficiency*,
the ability per second on that worker. Which of the two follows the number of ready tasks N:

- rising (N within ``fall`` of its peak): whenever N has risen by ``rise``, the slope since the last time decides.
  Below ``slope``, efficiency; otherwise ability.
- falling: just below each multiple of ``fall`` under the peak, efficiency for half a step; otherwise ability.

How this differs from the paper: abilities are files there, and how they are made is not published. Here a task that has
become ready was made so by its parents in equal parts, so that the ability of a task is the sum over its children of
1 / (number of their parents); together all tasks have as many as there are tasks with parents. Equal ones go by the
longest chain behind them. Of the first few tasks, one whose data are there goes before one that waits for them: by
ability the first such, by efficiency as the waiting counts in the seconds. Slopes are per task that the fleet could
have ended in that time, instead of per second, so that one setting holds for tasks of milliseconds and of hours; steps
count in workers.
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

    def __init__(self, *, slope: float = 0.5, rise: float = 0.5, fall: float = 1.0) -> None:
        self.slope, self.rise, self.fall = slope, rise, fall

    def start(self, view: View) -> None:
        """Reads abilities off the graph."""
        workers = len(view.workers)
        mean = [seconds for seconds in view.platform.mean.tolist() if seconds > 0]
        pace = workers * len(mean) / math.fsum(mean) if mean else 1.0
        step_up, step_down = (max(1, round(part * workers)) for part in (self.rise, self.fall))
        self._controller = Controller(self.slope * pace, step_up, step_down)
        self._ability, self._chain = abilities(view)
        self._by_ability = [SortedQueue(worker) for worker in view.workers]
        self._by_efficiency = [SortedQueue(worker) for worker in view.workers]

    def push(self, task: int, view: View) -> int | None:
        """Returns the worker that is expected to end the task first."""
        worker = view.soonest(task)
        if worker is not None:
            ability, chain = self._ability[task], self._chain[task]
            self._by_ability[worker].add(task, ability, chain)
            self._by_efficiency[worker].add(task, ability / max(view.estimate(task, worker), 1e-12), chain)
        return worker

    def pop(self, worker: int, view: View) -> int | None:
        """Returns the task of the worker's queue that lets most start, now or per second."""
        if self._controller.efficient(view.n_ready, view.now):
            tasks = self._by_efficiency[worker].head(view)
            return max(tasks, key=lambda task: self._per_second(task, worker, view), default=None)
        tasks = self._by_ability[worker].head(view)
        return next((task for task in tasks if not view.fetch(task, worker)), tasks[0] if tasks else None)

    def _per_second(self, task: int, worker: int, view: View) -> float:
        return self._ability[task] / max(view.fetch(task, worker) + view.estimate(task, worker), 1e-12)


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


def abilities(view: View) -> tuple[list[float], list[int]]:
    """Returns of each task those that it lets start, shared with their other parents, and the longest chain behind."""
    parents = [max(len(view.parents(task)), 1) for task in range(len(view.graph))]
    found, chain = [0.0] * len(parents), [0] * len(parents)
    for task in reversed(view.graph.order.tolist()):
        for child in view.children(task):
            found[task] += 1.0 / parents[child]
            chain[task] = max(chain[task], 1 + chain[child])
    return found, chain
