"""Objects with versions, and what happened to them: what a watch replays."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

__all__ = ["RESOURCES", "ApiError", "Event", "Resource", "Store"]


@dataclass(frozen=True)
class Resource:
    """A kind of object, as its address and its JSON name it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api(self) -> str:
        """Its ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version


RESOURCES: Final = {
    r.plural: r
    for r in (
        Resource("", "v1", "pods", "Pod", True),
        Resource("", "v1", "nodes", "Node", False),
        Resource("", "v1", "namespaces", "Namespace", False),
        Resource("", "v1", "events", "Event", True),
        Resource("", "v1", "configmaps", "ConfigMap", True),
        Resource("", "v1", "serviceaccounts", "ServiceAccount", True),
        Resource("apps", "v1", "replicasets", "ReplicaSet", True),
        Resource("apps", "v1", "deployments", "Deployment", True),
        Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True),
        Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False),
        Resource("coordination.k8s.io", "v1", "leases", "Lease", True),
        Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False),
        Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", False),
        Resource("rbac.authorization.k8s.io", "v1", "roles", "Role", True),
        Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", True),
    )
}
_EVENTS: Final = 5000
"""Events that are kept; older ones are forgotten, as a cluster forgets them after an hour."""


class ApiError(Exception):
    """A refusal, as an API server words it."""

    def __init__(self, status: int, reason: str, message: str, after: int = 0) -> None:
        self.status, self.reason, self.message, self.after = status, reason, message, after
        super().__init__(f"{status} {reason}: {message}")

    def table(self) -> dict[str, Any]:
        """Returns the Status object."""
        return {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
            "reason": self.reason, "code": self.status,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to an object: ``kind`` is ADDED, MODIFIED or DELETED; ``line`` is the watch's line."""

    version: int
    kind: str
    table: Mapping[str, Any]
    line: bytes


Name = tuple[str, str]
"""Namespace ("" where there is none) and name."""


class Store:
    """All objects, under one lock; a write makes a version, tells all listeners and is kept for watches.

    Args:
        kept: events that a watch can go back, for each kind.
    """

    def __init__(self, kept: int = 200_000) -> None:
        self.lock = threading.RLock()
        self.version = 1
        self.objects: dict[str, dict[Name, dict[str, Any]]] = {plural: {} for plural in RESOURCES}
        self.history: dict[str, deque[Event]] = {plural: deque(maxlen=kept) for plural in RESOURCES}
        self.floor: dict[str, int] = dict.fromkeys(RESOURCES, 0)
        self.listeners: list[Callable[[str, Event], None]] = []
        self._untold: deque[tuple[str, Event]] = deque()
        self._lines: dict[tuple[str, Name], bytes] = {}

    def find(self, plural: str, namespace: str, name: str) -> dict[str, Any]:
        """Returns an object, not to be written to.

        Raises:
            ApiError: 404.
        """
        found = self.objects[plural].get((namespace if RESOURCES[plural].namespaced else "", name))
        if found is None:
            raise ApiError(404, "NotFound", f'{plural} "{name}" not found')
        return found

    def add(self, plural: str, table: Mapping[str, Any], namespace: str = "default") -> dict[str, Any]:
        """Keeps a new object and returns it as it is kept.

        Raises:
            ApiError: 409, there is one of its name.
        """
        resource = RESOURCES[plural]
        with self.lock:
            meta = dict(table.get("metadata") or {})
            if not meta.get("name"):
                meta["name"] = f"{meta.get('generateName') or plural}{uuid.uuid4().hex[:8]}"
            where = str(meta.get("namespace") or namespace) if resource.namespaced else ""
            if (where, meta["name"]) in self.objects[plural]:
                raise ApiError(409, "AlreadyExists", f'{plural} "{meta["name"]}" already exists')
            if resource.namespaced:
                meta["namespace"] = where
            meta["uid"] = meta.get("uid") or str(uuid.uuid4())
            meta["creationTimestamp"] = meta.get("creationTimestamp") or now()
            made = {"apiVersion": resource.api, "kind": resource.kind, **table, "metadata": meta}
            if plural == "events" and len(self.objects["events"]) >= _EVENTS:
                self.objects["events"].pop(next(iter(self.objects["events"])))
            return self._write(plural, "ADDED", (where, str(meta["name"])), made)

    def put(self, plural: str, table: Mapping[str, Any], *, checked: bool = True) -> dict[str, Any]:
        """Replaces an object; where ``checked`` and it names a version, only that one.

        Raises:
            ApiError: 404, or 409 where somebody else wrote it.
        """
        with self.lock:
            meta = dict(table["metadata"])
            name = (str(meta.get("namespace") or "") if RESOURCES[plural].namespaced else "", str(meta["name"]))
            old = self.find(plural, *name)
            asked = meta.get("resourceVersion")
            if checked and asked and asked != old["metadata"]["resourceVersion"]:
                raise ApiError(
                    409,
                    "Conflict",
                    f'{plural} "{name[1]}": the object has been modified; apply your changes to the latest version',
                )
            meta["uid"], meta["creationTimestamp"] = old["metadata"]["uid"], old["metadata"]["creationTimestamp"]
            return self._write(plural, "MODIFIED", name, {**table, "metadata": meta})

    def remove(self, plural: str, namespace: str, name: str) -> dict[str, Any]:
        """Deletes an object at once and returns it.

        Raises:
            ApiError: 404.
        """
        with self.lock:
            table = self.find(plural, namespace, name)
            where = (namespace if RESOURCES[plural].namespaced else "", name)
            del self.objects[plural][where]
            self._lines.pop((plural, where), None)
            return self._write(plural, "DELETED", where, table)

    def lines(
        self, plural: str, wanted: Callable[[Mapping[str, Any]], bool] | None, namespace: str = ""
    ) -> list[bytes]:
        """Returns objects as JSON, in order of name."""
        with self.lock:
            found = []
            for name, table in self.objects[plural].items():
                if (not namespace or name[0] == namespace) and (wanted is None or wanted(table)):
                    line = self._lines.get((plural, name))
                    if line is None:
                        line = self._lines[plural, name] = msgspec.json.encode(table)
                    found.append(line)
            return found

    def since(self, plural: str, version: int) -> Iterable[Event]:
        """Returns the events after a version.

        Raises:
            ApiError: 410, it is too old.
        """
        with self.lock:
            kept = self.history[plural]
            full = kept.maxlen is not None and len(kept) == kept.maxlen
            if version < max(self.floor[plural], kept[0].version if full else 0):
                raise ApiError(410, "Expired", f"too old resource version: {version} ({self.version})")
            return [event for event in kept if event.version > version]

    def compact(self) -> None:
        """Forgets all events, as etcd does from time to time."""
        with self.lock:
            for plural, kept in self.history.items():
                kept.clear()
                self.floor[plural] = self.version

    def _write(self, plural: str, event: str, name: Name, table: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        table = {**table, "metadata": {**table["metadata"], "resourceVersion": str(self.version)}}
        line = msgspec.json.encode(table)
        if event != "DELETED":
            self.objects[plural][name] = table
            self._lines[plural, name] = line
        said = Event(self.version, event, table, b'{"type":"' + event.encode() + b'","object":' + line + b"}\n")
        self.history[plural].append(said)
        # A listener may write in turn; all must hear of the first write before the second.
        self._untold.append((plural, said))
        if len(self._untold) == 1:
            while self._untold:
                try:
                    for listener in list(self.listeners):
                        listener(*self._untold[0])
                finally:
                    self._untold.popleft()
        return table


def now() -> str:
    """Returns the time of day as objects have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
