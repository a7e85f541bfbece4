"""Which of several schedulers is at work: a Lease (coordination.k8s.io/v1), renewed, taken over once it ran out.

Clocks of machines are not compared: an instance takes a lease for run out once it saw nobody renew it for its duration.
"""

from __future__ import annotations

import threading
import time
from math import ceil
from typing import Any, Final

from fleetcast.runtime.kubernetes.calls import Api, Gone, Refused, Unreachable, stamp

__all__ = ["Lease"]

_TRUST: Final = 2 / 3
"""Share of its duration for which a holder trusts a lease: it stops before anybody else may begin."""


class Lease:
    """Holds a lease, or waits for it.

    Args:
        api: the cluster.
        namespace: of the lease.
        name: of the lease.
        me: who holds it: another word for each process.
        duration: s after which others may take it.
        retry: s between two tries; default a seventh of the duration.
    """

    def __init__(
        self, api: Api, namespace: str, name: str, me: str, *, duration: float = 15.0, retry: float | None = None
    ) -> None:
        self.namespace, self.name, self.me, self.duration = namespace, name, me, duration
        self.retry = duration / 7.5 if retry is None else retry
        self.holder = ""
        self.problem = ""
        self._api = api
        self._until = 0.0
        self._read = 0.0
        self._seen: tuple[Any, float] = (None, 0.0)
        self._guard = threading.Lock()

    def holds(self) -> bool:
        """Returns whether this process may act, by its own clock alone."""
        return time.monotonic() < self._until

    def confirmed(self, within: float = 1.0) -> bool:
        """Returns whether this process may act and the server said so within so many seconds, or says so now."""
        if not self.holds():
            return False
        if time.monotonic() - self._read <= within:
            return True
        with self._guard:
            began = time.monotonic()
            if began - self._read <= within:
                return self.holds()
            try:
                table = self._api.lease(self.namespace, self.name)
            except (Refused, Unreachable, Gone):
                return False
            if _holder(table) != self.me:
                self._until = 0.0
                return False
            self._read = began
        return self.holds()

    def keep(self, stop: threading.Event) -> None:
        """Takes and renews the lease until told to stop, then gives it back."""
        while not stop.is_set():
            self.attempt()
            stop.wait(self.retry)
        self.release()

    def attempt(self) -> bool:
        """Takes or renews the lease once; returns whether this process holds it now."""
        began = time.monotonic()
        try:
            table = self._api.lease(self.namespace, self.name)
            spec = dict((table or {}).get("spec") or {})
            if table is None:
                body = {
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": self.name, "namespace": self.namespace}, "spec": self._spec({}),
                }  # fmt: skip
                self._api.make_lease(self.namespace, body)
            else:
                self.holder = _holder(table)
                if (mark := (self.holder, spec.get("renewTime"))) != self._seen[0]:
                    self._seen = (mark, began)
                # A lease of 0 s of which we know nothing is nobody's; else its own duration counts.
                lasts = float(spec.get("leaseDurationSeconds") or self.duration)
                if self.holder not in ("", self.me) and began - self._seen[1] < lasts:
                    self._until = 0.0
                    return False
                self._api.write_lease(self.namespace, self.name, {**table, "spec": self._spec(spec)})
        except (Refused, Unreachable, Gone) as error:
            # Somebody else wrote it first (409), or nobody answers: what is held runs out by itself.
            self.problem = str(error)
            return self.holds()
        self.problem, self.holder = "", self.me
        self._until, self._read = began + _TRUST * self.duration, began
        return True

    def release(self) -> None:
        """Gives the lease back, so that another instance need not wait for it to run out."""
        if not self.holds():
            return
        self._until = 0.0
        try:
            table = self._api.lease(self.namespace, self.name)
            if table is not None and _holder(table) == self.me:
                spec = {**dict(table.get("spec") or {}), "holderIdentity": "", "leaseDurationSeconds": 1}
                self._api.write_lease(self.namespace, self.name, {**table, "spec": spec})
        except (Refused, Unreachable, Gone) as error:
            self.problem = str(error)

    def _spec(self, spec: dict[str, Any]) -> dict[str, Any]:
        now, mine = stamp(), spec.get("holderIdentity") == self.me
        return {
            "holderIdentity": self.me, "leaseDurationSeconds": max(1, ceil(self.duration)), "renewTime": now,
            "acquireTime": spec.get("acquireTime") if mine else now,
            "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (not mine),
        }  # fmt: skip


def _holder(table: Any) -> str:
    return str((((table or {}).get("spec") or {}).get("holderIdentity")) or "")
