"""Local: what has begun on a device stays there. The null of offloading.

The usual baseline of mobile edge computing (arXiv 2012.05105, 2020). Rule: a task runs where its first parent ran, a
task without parents on the first worker that can run it; elsewhere only where it cannot stay.
"""

from __future__ import annotations

from fleetcast.policy.order.tasks.view import View


class Local:
    """A task stays with its first parent; queues are served in order."""

    kind = "local"
    offloads = True

    def start(self, view: View) -> None:
        """Needs nothing."""

    def push(self, task: int, view: View) -> int | None:
        """Returns the worker of the first parent, or the first that can run the task."""
        for parent in view.parents(task):
            worker = view.where(parent)
            if worker is not None and view.runs(task, worker):
                return worker
        return next((worker for worker in view.workers if view.runs(task, worker)), None)

    def pop(self, worker: int, view: View) -> int | None:
        """Returns the head of the worker's queue."""
        return next(iter(view.queue(worker)), None)
