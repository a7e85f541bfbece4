"""Critical path first: one queue, sorted by upward rank; whoever is idle takes the task with the longest way to go.

List scheduling by the longest path (Hu, "Parallel sequencing and assembly line problems", Operations Research 9,
1961), StarPU's ``prio`` with bottom levels. Rule: highest upward rank among what the worker can run. It asks as little
as eager which device is quick.
"""

from __future__ import annotations

from heapq import heappop, heappush

from fleetcast.policy.order.tasks.view import READY, View


class CriticalPath:
    """An idle worker takes the ready task that is furthest from the end of the graph."""

    kind = "critical_path"

    def start(self, view: View) -> None:
        """Begins with an empty heap."""
        self._heap: list[tuple[float, int]] = []

    def push(self, task: int, view: View) -> int | None:
        """Returns None: the common queue."""
        heappush(self._heap, (-view.rank[task], task))
        return None

    def pop(self, worker: int, view: View) -> int | None:
        """Returns the task of the highest rank that this worker can run."""
        found, passed = None, []
        while self._heap and found is None:
            entry = heappop(self._heap)
            if view.state(entry[1]) == READY:
                if view.runs(entry[1], worker):
                    found = entry[1]
                else:
                    passed.append(entry)
        for entry in passed:
            heappush(self._heap, entry)
        return found
