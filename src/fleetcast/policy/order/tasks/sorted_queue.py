"""One worker's queue, sorted by a priority of a policy's own."""

from __future__ import annotations

import heapq

from fleetcast.policy.order.tasks.view import READY, View

_TIES = 8
"""Tasks of equal priority that are compared by their bytes; more would make decisions slow."""


class SortedQueue:
    """Tasks of a worker's queue, highest priority first, among equals those with the fewest bytes to bring.

    Tasks that have left the worker's queue meanwhile (begun, stolen, given back) are passed over.
    """

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._heap: list[tuple[float, int]] = []

    def add(self, task: int, priority: float) -> None:
        """Puts a task in."""
        heapq.heappush(self._heap, (-priority, task))

    def best(self, view: View) -> int | None:
        """Returns the task to begin, which stays in until it has left the worker's queue; None = none is there."""
        heap, queue = self._heap, view.queue(self._worker)
        found: list[tuple[float, int]] = []
        while heap and len(found) < _TIES and (not found or heap[0][0] == found[0][0]):
            entry = heapq.heappop(heap)
            if entry[1] in queue and view.state(entry[1]) == READY and entry not in found:
                found.append(entry)
        for entry in found:
            heapq.heappush(heap, entry)
        if len(found) < 2:
            return found[0][1] if found else None
        return min((task for _, task in found), key=lambda task: view.missing_bytes(task, self._worker))
