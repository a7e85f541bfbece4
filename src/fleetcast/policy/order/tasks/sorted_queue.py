"""One worker's queue, sorted by a priority of a policy's own."""

from __future__ import annotations

import heapq

from fleetcast.policy.order.tasks.view import READY, View

_LOOKED_AT = 8
"""Tasks at the head that are compared by their data; more would make decisions slow."""


class SortedQueue:
    """Tasks of a worker's queue, highest priority first.

    Tasks that have left the worker's queue meanwhile (begun, stolen, given back) are passed over.
    """

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._heap: list[tuple[float, float, int]] = []

    def add(self, task: int, priority: float, second: float = 0.0) -> None:
        """Puts a task in; among equal priorities the higher ``second`` comes first."""
        heapq.heappush(self._heap, (-priority, -second, task))

    def best(self, view: View) -> int | None:
        """Returns the task of the highest priority, of equal ones that with the fewest bytes to bring; None = empty."""
        found = self._head(view, ties=True)
        if len(found) < 2:
            return found[0] if found else None
        return min(found, key=lambda task: view.missing_bytes(task, self._worker))

    def head(self, view: View) -> list[int]:
        """Returns the first few tasks by priority."""
        return self._head(view, ties=False)

    def _head(self, view: View, *, ties: bool) -> list[int]:
        heap, queue = self._heap, view.queue(self._worker)
        found: list[tuple[float, float, int]] = []
        while heap and len(found) < _LOOKED_AT and not (ties and found and heap[0][:2] != found[0][:2]):
            entry = heapq.heappop(heap)
            if entry[2] in queue and view.state(entry[2]) == READY and entry not in found:
                found.append(entry)
        for entry in found:
            heapq.heappush(heap, entry)
        return [entry[2] for entry in found]
