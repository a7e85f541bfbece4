"""What the scheduler knows of a cluster: what watches said, and what it assumes until they say it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fleetcast.base.errors import SpecError
from fleetcast.runtime.kubernetes.reading import Asked, Budget, Machine, read_budget, read_node, read_pod
from fleetcast.runtime.kubernetes.room import Picker
from fleetcast.runtime.kubernetes.selecting import read_table

__all__ = ["KINDS", "Cluster", "asks"]

KINDS: Final = ("nodes", "pods", "budgets", "priorities", "namespaces")
"""What is watched."""
_KINS: Final = 10_000
"""Sets of labels that are remembered beyond four a pod."""


class Cluster:
    """Nodes, pods and rules of a cluster. Every method takes ``lock``; hold it where several answers must agree.

    Args:
        scheduler: the ``schedulerName`` of the pods that are ours.

    Attributes:
        assumed: pods that were bound here and that no watch has confirmed: uid -> node.
        stirred: something happened since it was last set to False that may let a waiting pod be placed.
        stirs: how often something did.
        seen: when a pod was first seen waiting: uid -> s on the monotonic clock.
        problems: of objects that cannot be read: "kind name" -> sentence.
    """

    def __init__(self, scheduler: str) -> None:
        self.scheduler = scheduler
        self.lock = threading.RLock()
        self.news = threading.Condition(self.lock)
        self.machines: dict[str, Machine] = {}
        self.pods: dict[str, Asked] = {}
        self.named: dict[str, str] = {}
        self.assumed: dict[str, str] = {}
        self.used: dict[str, dict[str, int]] = {}
        self.social: set[str] = set()
        self.queue: dict[str, Asked] = {}
        self.seen: dict[str, float] = {}
        self.budgets: dict[str, Budget] = {}
        self.priorities: dict[str, tuple[int, bool, bool]] = {}
        self.namespaces: dict[str, dict[str, str]] = {}
        self.picker = Picker(self.namespaces)
        self.problems: dict[str, str] = {}
        self.stirred, self.stirs = True, 0
        self.synced: set[str] = set()
        self._kin: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}

    def replace(self, kind: str, tables: Iterable[Mapping[str, Any]]) -> None:
        """Takes a whole list in place of what was known of a kind."""
        with self.news:
            tables = list(tables)
            if kind == "pods":
                kept = {str(_meta(t).get("uid")) for t in tables}
                for uid in [uid for uid in self.pods if uid not in kept]:
                    self._gone(uid)
            elif kind == "nodes":
                names = {_meta(t).get("name") for t in tables}
                for name in [name for name in self.machines if name not in names]:
                    del self.machines[name]
            else:
                known: dict[str, Any] = getattr(self, kind)
                known.clear()
            for table in tables:
                self.apply(kind, "ADDED", table)
            self.synced.add(kind)
            self._stir()

    def apply(self, kind: str, event: str, table: Mapping[str, Any]) -> None:
        """Takes one event of a watch; an object that cannot be read is noted and passed over."""
        with self.news:
            try:
                getattr(self, f"_{kind}")(event, table)
            except (SpecError, TypeError, ValueError, AttributeError, KeyError) as error:
                name = str(_meta(table).get("name"))[:80]
                if len(self.problems) < 1000:
                    self.problems[f"{kind} {name}"] = str(error)

    def place(self, pod: Asked) -> str:
        """Returns where a pod lies, or was put; "" = nowhere."""
        return pod.node or self.assumed.get(pod.uid, "")

    def placed(self) -> list[tuple[Asked, str]]:
        """Returns the pods that have a node, with it."""
        with self.lock:
            return [(p, n) for p in self.pods.values() if (n := self.place(p))]

    def waiting(self) -> list[Asked]:
        """Returns our pods that have no node and may have one, in order of arrival."""
        with self.lock:
            return sorted(self.queue.values(), key=lambda p: (p.made, p.name))

    def priority(self, pod: Asked) -> int:
        """Returns a pod's priority: its own, its class's or the default class's."""
        if pod.priority is not None:
            return pod.priority
        if pod.priority_class in self.priorities:
            return self.priorities[pod.priority_class][0]
        return next((value for value, _, default in self.priorities.values() if default), 0)

    def preempts(self, pod: Asked) -> bool:
        """Returns whether others may leave for a pod."""
        if pod.preempts is not None:
            return pod.preempts
        return self.priorities.get(pod.priority_class, (0, True, False))[1]

    def budgets_of(self, pod: Asked) -> list[Budget]:
        """Returns the disruption budgets that a pod counts in."""
        return [
            b for b in self.budgets.values()
            if b.namespace == pod.namespace and self.picker.picks(((b.selector, (b.namespace,), None),), pod)
        ]  # fmt: skip

    def assume(self, pod: Asked, node: str) -> None:
        """Takes a pod for bound to a node, until a watch says so or `forget` does."""
        with self.lock:
            if pod.uid in self.pods and not self.place(pod):
                self.assumed[pod.uid] = node
                self._use(pod, node, 1)
                self.queue.pop(pod.uid, None)

    def forget(self, uid: str) -> None:
        """Takes an assumption back: the pod waits again."""
        with self.news:
            node, pod = self.assumed.pop(uid, ""), self.pods.get(uid)
            if node and pod is not None and not pod.node:
                self._use(pod, node, -1)
                self._queue(pod)
                self._stir()

    def _stir(self) -> None:
        self.stirred = True
        self.stirs += 1
        self.news.notify_all()

    def _queue(self, pod: Asked) -> None:
        ours = pod.scheduler == self.scheduler and not self.place(pod)
        if ours and not (pod.ended or pod.leaving or pod.gated):
            self.queue[pod.uid] = pod
            self.seen.setdefault(pod.uid, time.monotonic())
        else:
            self.queue.pop(pod.uid, None)

    def _use(self, pod: Asked, node: str, change: int) -> None:
        used = self.used.setdefault(node, {})
        for resource, amount in pod.requests.items():
            used[resource] = used.get(resource, 0) + change * amount

    def _gone(self, uid: str) -> None:
        pod = self.pods.pop(uid, None)
        if pod is None:
            return
        if node := pod.node or self.assumed.get(uid, ""):
            self._use(pod, node, -1)
            self._stir()
        self.assumed.pop(uid, None)
        self.social.discard(uid)
        self.seen.pop(uid, None)
        self.queue.pop(uid, None)
        if self.named.get(pod.name) == uid:
            del self.named[pod.name]

    def _pods(self, event: str, table: Mapping[str, Any]) -> None:
        pod = read_pod(table)
        if event == "DELETED" or pod.ended:
            self._gone(pod.uid)
            return
        if len(self._kin) > 4 * len(self.pods) + _KINS:
            self._know_anew()
        kin = (pod.namespace, tuple(sorted(pod.labels.items())))
        pod.kin = self._kin.setdefault(kin, len(self._kin))
        old = self.pods.get(pod.uid)
        before = self.place(old) if old is not None else ""
        if old is not None and before:
            self._use(old, before, -1)
        self.pods[pod.uid], self.named[pod.name] = pod, pod.uid
        if pod.node:
            self.assumed.pop(pod.uid, None)
        if after := self.place(pod):
            self._use(pod, after, 1)
        if pod.affine or pod.anti or pod.liked or pod.disliked:
            self.social.add(pod.uid)
        else:
            self.social.discard(pod.uid)
        was = pod.uid in self.queue
        self._queue(pod)
        # Our own notes on a pod (a condition, a nomination) are no news.
        waits = pod.uid in self.queue and (not was or (old is not None and asks(old) != asks(pod)))
        if waits or (old is not None and before and (old.requests != pod.requests or old.leaving != pod.leaving)):
            self._stir()

    def _know_anew(self) -> None:
        """Forgets sets of labels that no pod has any more."""
        self._kin, self.picker = {}, Picker(self.namespaces)
        for pod in self.pods.values():
            kin = (pod.namespace, tuple(sorted(pod.labels.items())))
            pod.kin = self._kin.setdefault(kin, len(self._kin))

    def _nodes(self, event: str, table: Mapping[str, Any]) -> None:
        name = str(read_table(table.get("metadata"), "metadata").get("name"))
        if event == "DELETED":
            if self.machines.pop(name, None) is not None:
                self._stir()
            return
        try:
            machine = read_node(table)
        except SpecError:
            # A node that cannot be read takes no pods.
            if self.machines.pop(name, None) is not None:
                self._stir()
            raise
        old = self.machines.get(name)
        if old is not None and old.same(machine):
            return
        self.machines[name] = machine
        self._stir()

    def _budgets(self, event: str, table: Mapping[str, Any]) -> None:
        budget = read_budget(table)
        old = self.budgets.pop(budget.name, None)
        if event != "DELETED":
            self.budgets[budget.name] = budget
        if old is None or old.allowed < budget.allowed:
            self._stir()

    def _priorities(self, event: str, table: Mapping[str, Any]) -> None:
        name = str(read_table(table.get("metadata"), "metadata").get("name"))
        self.priorities.pop(name, None)
        value = table.get("value", 0)
        if not isinstance(value, int):
            raise SpecError("value", "is no whole number", value=value, limit="a whole number")
        if event != "DELETED":
            never = table.get("preemptionPolicy") == "Never"
            self.priorities[name] = (value, not never, bool(table.get("globalDefault")))

    def _namespaces(self, event: str, table: Mapping[str, Any]) -> None:
        meta = read_table(table.get("metadata"), "metadata")
        name = str(meta.get("name"))
        labels = {str(k): str(v) for k, v in read_table(meta.get("labels"), "metadata.labels").items()}
        if event == "DELETED":
            self.namespaces.pop(name, None)
        elif self.namespaces.get(name) != labels:
            self.namespaces[name] = labels
        else:
            return
        self.picker = Picker(self.namespaces)


def _meta(table: Any) -> Mapping[str, Any]:
    found = table.get("metadata") if isinstance(table, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def asks(pod: Asked) -> tuple[object, ...]:
    """Returns what of a pod a decision rests on."""
    return (
        pod.labels, pod.requests, pod.priority, pod.selector, pod.terms, pod.tolerations, pod.affine, pod.anti,
        pod.spread, pod.gated, pod.group, pod.problem,
    )  # fmt: skip
