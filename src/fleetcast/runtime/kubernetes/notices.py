"""Events and conditions on pods, written by one thread so that they never hold up bindings."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from fleetcast.runtime.kubernetes.calls import Api, Gone, Refused, Unreachable
from fleetcast.runtime.kubernetes.reading import Asked

__all__ = ["Notices"]

_BURST, _RATE = 400.0, 50.0
"""Notices at once, and a second beyond; "Scheduled" gives way to others, and what waits longest is said last."""
_KEPT: Final = 5000


class Notices:
    """Says on pods what became of them.

    Args:
        api: the cluster.
        component: the scheduler's name.
        me: this process.
        stopping: ends it.
    """

    def __init__(self, api: Api, component: str, me: str, stopping: threading.Event) -> None:
        self.dropped = 0
        self._api, self._component, self._me, self._stopping = api, component, me, stopping
        self._queue: dict[tuple[str, str], Callable[[], None]] = {}
        self._more = threading.Condition()
        self._tokens, self._filled = _BURST, time.monotonic()
        self._thread = threading.Thread(target=self._write, name="notices", daemon=True)

    def start(self) -> None:
        """Begins to write."""
        self._thread.start()

    def close(self) -> None:
        """Writes what the rate allows at once, and ends."""
        with self._more:
            self._more.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout=5.0)

    def scheduled(self, pod: Asked, node: str) -> None:
        """Says where a pod was bound."""
        self._put(pod, "Scheduled", lambda: self._event(pod, "Scheduled", f"assigned {pod.name} to {node}", "Normal"))

    def failed(self, pod: Asked, reason: str) -> None:
        """Says why a pod found no node: an event, and its condition PodScheduled."""

        def say() -> None:
            self._api.pending(pod, reason)
            self._event(pod, "FailedScheduling", reason, "Warning")

        self._put(pod, "FailedScheduling", say)

    def nominated(self, pod: Asked, node: str) -> None:
        """Says which node is being cleared for a pod."""
        self._put(pod, "Nominated", lambda: self._api.nominate(pod, node))

    def evicted(self, pod: Asked, why: str) -> None:
        """Says why a pod is evicted."""
        self._put(pod, "Preempted", lambda: self._event(pod, "Preempted", why, "Normal"))

    def _event(self, pod: Asked, reason: str, message: str, kind: str) -> None:
        self._api.event(pod, reason, message, kind=kind, component=self._component, by=self._me)

    def _put(self, pod: Asked, what: str, say: Callable[[], None]) -> None:
        with self._more:
            if len(self._queue) >= _KEPT or (what == "Scheduled" and len(self._queue) > _BURST):
                self.dropped += 1
                return
            self._queue.pop((pod.uid, what), None)
            self._queue[pod.uid, what] = say
            self._more.notify_all()

    def _write(self) -> None:
        while True:
            with self._more:
                while not self._queue and not self._stopping.is_set():
                    self._more.wait(1.0)
                if not self._queue:
                    return
                say = self._queue.pop(next(iter(self._queue)))
            now = time.monotonic()
            self._tokens = min(_BURST, self._tokens + _RATE * (now - self._filled)) - 1
            self._filled = now
            if self._tokens < 0 and self._stopping.wait(-self._tokens / _RATE):
                return
            try:
                say()
            except (Refused, Gone, Unreachable):
                # A notice is a courtesy: the pod may be gone, or the account may not write events.
                self.dropped += 1
