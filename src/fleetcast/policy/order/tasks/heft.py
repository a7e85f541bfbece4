"""HEFT: everything is decided before the start, by upward rank and earliest finish.

Topcuoglu, Hariri and Wu, "Performance-effective and low-complexity task scheduling for heterogeneous computing", IEEE
TPDS 13(3), 2002. Rule: tasks by falling upward rank, each to the worker that ends it first, gaps included. Unlike the
paper's, messages hold the ports of devices (`cost.graphs.schedule.heft`), so that a plan is what a run can keep. Where
a worker of the plan is gone, its task goes to the one expected to end it first.
"""

from __future__ import annotations

from fleetcast.cost.graphs.schedule import Schedule, heft
from fleetcast.policy.order.tasks.view import DONE, READY, View


class Heft:
    """Every task runs where and in the order that a plan made beforehand says."""

    kind = "heft"

    schedule: Schedule

    def start(self, view: View) -> None:
        """Plans the whole graph."""
        self.schedule = self.plan(view)
        self._queues = [queue[::-1] for queue in self.schedule.queues(len(view.workers))]

    def plan(self, view: View) -> Schedule:
        """Returns where and when each task is to run."""
        return heft(view.graph, view.platform)

    def push(self, task: int, view: View) -> int | None:
        """Returns the worker of the plan, or of those that are left the one expected to end the task first."""
        worker = int(self.schedule.worker[task])
        if view.runs(task, worker):
            return worker
        return view.soonest(task)

    def pop(self, worker: int, view: View) -> int | None:
        """Returns the worker's next task of the plan once it is ready, or a task whose own worker is gone."""
        queue = self._queues[worker]
        while queue and view.state(queue[-1]) == DONE:
            queue.pop()
        if queue and view.state(queue[-1]) == READY and view.where(queue[-1]) == worker:
            return queue[-1]
        return next((t for t in view.queue(worker) if int(self.schedule.worker[t]) != worker), None)
