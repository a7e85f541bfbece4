"""Work stealing: a worker serves its own queue newest first; without one it takes the oldest task of the longest.

Blumofe and Leiserson, "Scheduling multithreaded computations by work stealing", Journal of the ACM 46, 1999; StarPU's
``lws`` keeps tasks near their data in the same way. Rule: a ready task stays with the parent that hands it most data;
tasks without parents are dealt in turn. Differs from the paper in whom it robs: the worker with most seconds waiting
instead of one at random, so that a run repeats.
"""

from __future__ import annotations

from fleetcast.policy.order.tasks.view import View


class WorkStealing:
    """A worker serves its own queue newest first, then takes the oldest task of the longest queue."""

    kind = "work_stealing"

    def start(self, view: View) -> None:
        """Deals from the first worker on."""
        self._turn = 0

    def push(self, task: int, view: View) -> int | None:
        """Returns the worker of the parent that hands over most data, or the next in turn."""
        homes = dict.fromkeys(w for parent in view.parents(task) if (w := view.where(parent)) is not None)
        near = [worker for worker in homes if view.runs(task, worker)]
        if near:
            return min(near, key=lambda worker: view.missing_bytes(task, worker))
        for _ in view.workers:
            worker = self._turn % len(view.workers)
            self._turn += 1
            if view.runs(task, worker):
                return worker
        return None

    def pop(self, worker: int, view: View) -> int | None:
        """Returns the newest task of the worker's queue, else the oldest that it can run of the longest queue."""
        own = view.queue(worker)
        if own:
            return next(reversed(own))
        others = sorted((w for w in view.workers if view.queue(w)), key=lambda w: (-view.free_at(w), w))
        for victim in others:
            for task in view.queue(victim):
                if view.runs(task, worker):
                    return task
        return next((task for task in view.common if view.runs(task, worker)), None)
