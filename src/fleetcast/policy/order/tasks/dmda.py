"""dmda: each ready task goes to the worker that is expected to end it first, its data counted. StarPU's own default.

"Deque model data aware" (Augonnet, Clet-Ortega, Thibault and Namyst, "Data-aware task scheduling on
multi-accelerator based platforms", ICPADS 2010). Rule: worker = argmin of alpha (when its queue is done + seconds of
the task) + beta seconds of bringing its data; each queue is then served first come, first served. StarPU also has a
term for power, which is 0 by default and left out here.
"""

from __future__ import annotations

from fleetcast.policy.order.tasks.view import View


class Dmda:
    """A ready task goes where it is expected to end first; queues are served in order.

    Args:
        alpha: weight of the time at which the task would end.
        beta: weight of the time that its data travel.
    """

    kind = "dmda"

    def __init__(self, *, alpha: float = 1.0, beta: float = 1.0) -> None:
        self.alpha, self.beta = alpha, beta

    def start(self, view: View) -> None:
        """Needs nothing."""

    def push(self, task: int, view: View) -> int | None:
        """Returns the worker that is expected to end the task first."""
        return view.soonest(task, self.alpha, self.beta)

    def pop(self, worker: int, view: View) -> int | None:
        """Returns the head of the worker's queue."""
        return next(iter(view.queue(worker)), None)
