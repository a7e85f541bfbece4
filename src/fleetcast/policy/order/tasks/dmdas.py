"""dmdas: dmda's workers, and each queue sorted by priority.

StarPU's ``dmdas`` (StarPU handbook 1.3, 2020, on policies with performance models). Rule: a task goes to the
worker that is expected to end it first; an idle worker takes from its queue the task of the highest priority, among
equals the one with the fewest bytes to bring. Priorities are the user's in StarPU; here they are upward ranks, as
libraries on top of it commonly hand over.
"""

from __future__ import annotations

from fleetcast.policy.order.tasks.dmda import Dmda
from fleetcast.policy.order.tasks.sorted_queue import SortedQueue
from fleetcast.policy.order.tasks.view import View


class Dmdas(Dmda):
    """A ready task goes where it is expected to end first; queues are served by upward rank."""

    kind = "dmdas"

    def start(self, view: View) -> None:
        """Makes a sorted queue for each worker."""
        self._queues = [SortedQueue(worker) for worker in view.workers]

    def push(self, task: int, view: View) -> int | None:
        """Returns the worker that is expected to end the task first."""
        worker = super().push(task, view)
        if worker is not None:
            self._queues[worker].add(task, view.rank[task])
        return worker

    def pop(self, worker: int, view: View) -> int | None:
        """Returns the task of the highest rank in the worker's queue."""
        return self._queues[worker].best(view)
