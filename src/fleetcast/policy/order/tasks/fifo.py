"""Eager: one queue for all workers, first come, first served. The null of this family.

StarPU's ``eager`` (Augonnet, Thibault, Namyst and Wacrenier, "StarPU: a unified platform for task scheduling on
heterogeneous multicore architectures", Concurrency and Computation 23, 2011). Rule: whoever is idle takes what has been
ready longest, among what it can run. Nobody asks which device is quick.
"""

from __future__ import annotations

from fleetcast.policy.order.tasks.view import View


class Fifo:
    """An idle worker takes the task that has been ready longest."""

    kind = "fifo"

    def start(self, view: View) -> None:
        """Needs nothing."""

    def push(self, task: int, view: View) -> int | None:
        """Returns None: the common queue."""
        return None

    def pop(self, worker: int, view: View) -> int | None:
        """Returns the task at the head that this worker can run."""
        return next((task for task in view.common if view.runs(task, worker)), None)
