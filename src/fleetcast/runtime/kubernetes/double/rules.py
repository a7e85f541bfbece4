"""What an API server and its controllers do to pods: defaults, binding, eviction, budgets, replacements."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fleetcast.base.errors import SpecError
from fleetcast.runtime.kubernetes.double.store import ApiError, Event, Store, now
from fleetcast.runtime.kubernetes.quantity import amounts
from fleetcast.runtime.kubernetes.selecting import read_selector

__all__ = ["Rules"]


class Rules:
    """Pods' rules over a store.

    Args:
        store: of objects.
        later: called with (seconds, function): calls the function then.
        grace: s that a pod takes to end.
    """

    def __init__(self, store: Store, later: Callable[[float, Callable[[], None]], None], grace: float = 0.0) -> None:
        self.store, self.grace = store, grace
        self.bindings: list[tuple[str, str]] = []
        """(uid, node) of every binding that was accepted."""
        self._later = later
        store.listeners.append(self._listen)

    def create(self, table: Mapping[str, Any], namespace: str) -> dict[str, Any]:
        """Creates a pod with an API server's defaults and checks.

        Raises:
            ApiError: 422, it cannot be; 409.
        """
        spec = dict(table.get("spec") or {})
        containers = spec.get("containers")
        if not isinstance(containers, list) or not containers:
            raise ApiError(422, "Invalid", "spec.containers: Required value")
        for k, row in enumerate(containers):
            for what in ("requests", "limits"):
                try:
                    amounts(((row or {}).get("resources") or {}).get(what), f"spec.containers[{k}].resources.{what}")
                except SpecError as error:
                    raise ApiError(422, "Invalid", str(error)) from error
        spec.setdefault("schedulerName", "default-scheduler")
        self._admit(spec)
        made = {**table, "spec": spec, "status": {"phase": "Pending", **(table.get("status") or {})}}
        return self.store.add("pods", made, namespace)

    def _admit(self, spec: dict[str, Any]) -> None:
        classes = self.store.objects["priorityclasses"].values()
        named = spec.get("priorityClassName")
        if named:
            chosen = next((c for c in classes if c["metadata"]["name"] == named), None)
            if chosen is None:
                raise ApiError(403, "Forbidden", f"no PriorityClass with name {named} was found")
        else:
            chosen = next((c for c in classes if c.get("globalDefault")), None)
        if chosen is not None:
            spec["priority"] = chosen.get("value", 0)
            spec.setdefault("preemptionPolicy", chosen.get("preemptionPolicy", "PreemptLowerPriority"))
        spec.setdefault("priority", 0)

    def bind(self, namespace: str, name: str, body: Mapping[str, Any]) -> None:
        """The binding subresource.

        Raises:
            ApiError: 404; 409: bound already, ending, gated, or not the version or uid asked for.
        """
        with self.store.lock:
            pod = self.store.find("pods", namespace, name)
            meta, spec = pod["metadata"], pod["spec"]
            asked = body.get("metadata") or {}
            node = (body.get("target") or {}).get("name")
            if not node:
                raise ApiError(422, "Invalid", "target.name: Required value")
            for key in ("uid", "resourceVersion"):
                if asked.get(key) and asked[key] != meta[key]:
                    raise ApiError(
                        409,
                        "Conflict",
                        f"Precondition failed: {key} in precondition: {asked[key]}, in object meta: {meta[key]}",
                    )
            if spec.get("nodeName"):
                raise ApiError(409, "Conflict", f'pod {name} is already assigned to node "{spec["nodeName"]}"')
            if meta.get("deletionTimestamp"):
                raise ApiError(409, "Conflict", f"pod {name} is being deleted, cannot be assigned to a host")
            if spec.get("schedulingGates"):
                raise ApiError(409, "Conflict", f"pod {name} has non-empty .spec.schedulingGates")
            self.bindings.append((meta["uid"], node))
            if ("", node) not in self.store.objects["nodes"]:
                # The API server takes any name; the pods of no node are collected later.
                self._later(0.05, lambda: self._lost(node))
            conditions = [
                {"type": kind, "status": "True", "lastTransitionTime": now()} for kind in ("PodScheduled", "Ready")
            ]
            status = {**(pod.get("status") or {}), "phase": "Running", "conditions": conditions}
            status.pop("nominatedNodeName", None)
            self.store.put("pods", {**pod, "spec": {**spec, "nodeName": node}, "status": status}, checked=False)

    def evict(self, namespace: str, name: str, body: Mapping[str, Any]) -> None:
        """The eviction subresource of policy/v1.

        Raises:
            ApiError: 404; 409; 429: a budget allows no more; 500: more than one budget.
        """
        with self.store.lock:
            pod = self.store.find("pods", namespace, name)
            wanted = ((body.get("deleteOptions") or {}).get("preconditions") or {}).get("uid")
            if wanted and wanted != pod["metadata"]["uid"]:
                raise ApiError(409, "Conflict", "the UID in the precondition does not match the UID in record")
            budgets = [b for b in self.store.objects["poddisruptionbudgets"].values() if self._covers(b, pod)]
            if len(budgets) > 1:
                raise ApiError(
                    500,
                    "InternalError",
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                )
            running = pod["spec"].get("nodeName") and not pod["metadata"].get("deletionTimestamp")
            if budgets and running and self._status(budgets[0])["disruptionsAllowed"] < 1:
                raise ApiError(
                    429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget."
                )
            self.delete(namespace, name)

    def delete(self, namespace: str, name: str, *, at_once: bool = False) -> dict[str, Any]:
        """Deletes a pod: it ends first, for the grace of the double."""
        with self.store.lock:
            pod = self.store.find("pods", namespace, name)
            if at_once or self.grace <= 0 or not pod["spec"].get("nodeName"):
                return self.store.remove("pods", namespace, name)
            if not pod["metadata"].get("deletionTimestamp"):
                pod = self.store.put(
                    "pods", {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": now()}}, checked=False
                )
                uid = pod["metadata"]["uid"]
                self._later(self.grace, lambda: self._end(namespace, name, uid))
            return pod

    def _end(self, namespace: str, name: str, uid: str) -> None:
        with self.store.lock:
            found = self.store.objects["pods"].get((namespace, name))
            if found is not None and found["metadata"]["uid"] == uid:
                self.store.remove("pods", namespace, name)

    def _listen(self, plural: str, event: Event) -> None:
        if plural == "pods":
            table = event.table
            if event.kind == "DELETED" or table["metadata"].get("deletionTimestamp"):
                self._later(0.0, lambda: self._replace(table))
            if self.store.objects["poddisruptionbudgets"] and (event.kind != "ADDED" or "nodeName" in table["spec"]):
                self._budgets(table)
        elif plural == "nodes" and event.kind == "DELETED":
            self._later(0.0, lambda: self._lost(event.table["metadata"]["name"]))
        elif plural == "replicasets" and event.kind != "DELETED":
            self.reconcile(event.table)
        elif plural == "poddisruptionbudgets" and event.kind == "ADDED":
            self._write(event.table)

    def _lost(self, node: str) -> None:
        """Pods of a node that is gone go too."""
        with self.store.lock:
            for (namespace, name), pod in list(self.store.objects["pods"].items()):
                if pod["spec"].get("nodeName") == node:
                    self.delete(namespace, name, at_once=True)

    def _replace(self, pod: Mapping[str, Any]) -> None:
        for row in pod["metadata"].get("ownerReferences") or ():
            owner = self.store.objects["replicasets"].get((pod["metadata"]["namespace"], row.get("name", "")))
            if row.get("controller") and owner is not None and owner["metadata"]["uid"] == row.get("uid"):
                self.reconcile(owner)

    def reconcile(self, owner: Mapping[str, Any]) -> None:
        """Makes the pods that a ReplicaSet lacks."""
        with self.store.lock:
            meta = owner["metadata"]
            mine = sum(
                any(r.get("uid") == meta["uid"] for r in p["metadata"].get("ownerReferences") or ())
                and not p["metadata"].get("deletionTimestamp")
                for (namespace, _), p in self.store.objects["pods"].items() if namespace == meta["namespace"]
            )  # fmt: skip
            template = owner["spec"]["template"]
            for _ in range(int(owner["spec"].get("replicas", 1)) - mine):
                reference = {
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": meta["name"], "uid": meta["uid"],
                    "controller": True,
                }  # fmt: skip
                about = {
                    **(template.get("metadata") or {}), "name": f"{meta['name']}-{uuid.uuid4().hex[:5]}",
                    "namespace": meta["namespace"], "ownerReferences": [reference],
                }  # fmt: skip
                self.create({"metadata": about, "spec": template["spec"]}, meta["namespace"])

    def _covers(self, budget: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
        if budget["metadata"]["namespace"] != pod["metadata"]["namespace"]:
            return False
        try:
            selector = read_selector((budget.get("spec") or {}).get("selector"), "spec.selector")
        except SpecError:
            return False
        labels = pod["metadata"].get("labels") or {}
        return selector is not None and all(line.met(labels) for line in selector)

    def _budgets(self, pod: Mapping[str, Any]) -> None:
        for budget in list(self.store.objects["poddisruptionbudgets"].values()):
            if self._covers(budget, pod):
                self._write(budget)

    def _write(self, budget: Mapping[str, Any]) -> None:
        status = self._status(budget)
        if budget.get("status") != status:
            self.store.put("poddisruptionbudgets", {**budget, "status": status}, checked=False)

    def _status(self, budget: Mapping[str, Any]) -> dict[str, int]:
        pods = [p for p in self.store.objects["pods"].values() if self._covers(budget, p)]
        expected, healthy = len(pods), sum(_healthy(pods))
        spec = budget.get("spec") or {}
        if spec.get("minAvailable") is not None:
            desired = _count(spec["minAvailable"], expected)
        else:
            desired = expected - _count(spec.get("maxUnavailable", 1), expected)
        return {
            "expectedPods": expected, "currentHealthy": healthy, "desiredHealthy": max(0, desired),
            "disruptionsAllowed": max(0, healthy - max(0, desired)),
        }  # fmt: skip


def _healthy(pods: Iterable[Mapping[str, Any]]) -> Iterable[bool]:
    return (bool(p["spec"].get("nodeName")) and not p["metadata"].get("deletionTimestamp") for p in pods)


def _count(value: Any, of: int) -> int:
    """A number or a share of pods, which is rounded up."""
    return math.ceil(of * float(value[:-1]) / 100) if isinstance(value, str) and value.endswith("%") else int(value)
