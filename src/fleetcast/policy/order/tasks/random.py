"""Random: a ready task goes to any worker that can run it.

The usual baseline of placement (arXiv 2012.05105, 2020, for offloading). Rule: every able worker is equally likely.
"""

from __future__ import annotations

from fleetcast.base.rng import rng
from fleetcast.policy.order.tasks.view import View


class Random:
    """A ready task goes to a random worker that can run it; queues are served in order.

    Args:
        seed: of the draws.
    """

    kind = "random"
    offloads = True

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def start(self, view: View) -> None:
        """Begins the draws anew."""
        self._draw = rng(self.seed, "order", "random")

    def push(self, task: int, view: View) -> int | None:
        """Returns a worker that can run the task."""
        able = [worker for worker in view.workers if view.runs(task, worker)]
        return able[int(self._draw.integers(len(able)))] if able else None

    def pop(self, worker: int, view: View) -> int | None:
        """Returns the head of the worker's queue."""
        return next(iter(view.queue(worker)), None)
