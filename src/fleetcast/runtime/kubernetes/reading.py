"""Objects of Kubernetes as the scheduler needs them. What cannot be read becomes a `problem`, never a crash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from fleetcast.base.errors import SpecError
from fleetcast.policy.place.pods import Taint, Toleration
from fleetcast.runtime.kubernetes.quantity import amounts, parse
from fleetcast.runtime.kubernetes.selecting import (
    Selector,
    Term,
    read_selector,
    read_table,
    read_term,
    read_terms,
    rows,
)

__all__ = [
    "GROUP",
    "GROUP_SIZE",
    "Asked",
    "Budget",
    "Machine",
    "PodTerm",
    "Spread",
    "read_budget",
    "read_node",
    "read_pod",
]

GROUP: Final = "scheduling.x-k8s.io/pod-group"
"""Label: the gang that a pod belongs to, as the scheduler-plugins of SIG Scheduling have it."""
GROUP_SIZE: Final = "scheduling.x-k8s.io/pod-group-min-available"
"""Label or annotation: how many pods there must be before the gang is placed."""
_UNSCHEDULABLE: Final = Taint("node.kubernetes.io/unschedulable")
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class PodTerm:
    """A term of affinity to pods: those that ``selector`` picks in ``namespaces``, within one ``topology`` domain."""

    selector: Selector | None
    namespaces: tuple[str, ...]
    namespace_selector: Selector | None
    topology: str
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Spread:
    """A topology spread constraint that must hold (``whenUnsatisfiable: DoNotSchedule``)."""

    selector: Selector | None
    topology: str
    skew: int
    least: int
    honour_affinity: bool
    honour_taints: bool


@dataclass(slots=True)
class Asked:
    """A pod as the API server has it.

    ``requests`` as in `quantity.amounts`; ``problem`` = why it cannot be scheduled; ``kin`` = equal for pods of one
    namespace with equal labels; ``shape`` = equal for pods of one controller that ask the same.
    """

    uid: str
    namespace: str
    title: str
    version: str = ""
    node: str = ""
    nominated: str = ""
    scheduler: str = ""
    ended: bool = False
    leaving: bool = False
    gated: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)
    priority: int | None = None
    priority_class: str = ""
    preempts: bool | None = None
    selector: Mapping[str, str] = field(default_factory=dict)
    terms: tuple[Term, ...] | None = None
    preferred: tuple[Term, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    affine: tuple[PodTerm, ...] = ()
    anti: tuple[PodTerm, ...] = ()
    liked: tuple[PodTerm, ...] = ()
    disliked: tuple[PodTerm, ...] = ()
    spread: tuple[Spread, ...] = ()
    group: str = ""
    group_size: int = 1
    owner: str = ""
    daemon: bool = False
    made: float = 0.0
    shape: str = ""
    problem: str = ""
    kin: int = -1

    @property
    def name(self) -> str:
        """Namespace and name, joined by a slash: unique at one moment."""
        return f"{self.namespace}/{self.title}"


@dataclass(frozen=True, slots=True)
class Machine:
    """A node as the API server has it; ``capacity`` as in `quantity.amounts`."""

    name: str
    version: str
    capacity: Mapping[str, int]
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    ready: bool

    def same(self, other: Machine) -> bool:
        """Returns whether nothing changed that a placement reads; heartbeats do not count."""
        return (self.capacity, self.labels, self.taints, self.ready) == (
            other.capacity, other.labels, other.taints, other.ready,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Budget:
    """A disruption budget: whom it is for and how many of them may leave now."""

    name: str
    namespace: str
    selector: Selector | None
    allowed: int


def read_pod(table: Mapping[str, Any]) -> Asked:
    """Reads a pod; what cannot be read stands in ``problem`` and the rest is kept.

    Raises:
        SpecError: not even a name.
    """
    meta = read_table(table.get("metadata"), "metadata")
    title, namespace = meta.get("name"), meta.get("namespace")
    if not isinstance(title, str) or not title or not isinstance(namespace, str) or not namespace:
        raise SpecError("metadata.name", "names no pod", value=title, limit="a name and a namespace")
    pod = Asked(str(meta.get("uid") or f"{namespace}/{title}"), namespace, title, str(meta.get("resourceVersion", "")))
    for part in (_read_state, _read_requests, _read_places, _read_spread, _read_group):
        try:
            part(pod, table)
        except (SpecError, TypeError, ValueError, AttributeError, OverflowError) as error:
            pod.problem = pod.problem or _short(str(error))
    return pod


def _short(text: str) -> str:
    return text if len(text) <= 300 else text[:297] + "..."


def _read_state(pod: Asked, table: Mapping[str, Any]) -> None:
    meta, spec = read_table(table.get("metadata"), "metadata"), read_table(table.get("spec"), "spec")
    status = read_table(table.get("status"), "status")
    pod.node, pod.scheduler = str(spec.get("nodeName") or ""), str(spec.get("schedulerName") or "")
    pod.nominated = str(status.get("nominatedNodeName") or "")
    pod.ended, pod.leaving = status.get("phase") in _ENDED, bool(meta.get("deletionTimestamp"))
    pod.gated = bool(spec.get("schedulingGates"))
    pod.labels = {str(k): str(v) for k, v in read_table(meta.get("labels"), "metadata.labels").items()}
    pod.priority_class = str(spec.get("priorityClassName") or "")
    if isinstance(spec.get("priority"), int):
        pod.priority = spec["priority"]
    if spec.get("preemptionPolicy"):
        pod.preempts = spec["preemptionPolicy"] != "Never"
    for row in rows(meta.get("ownerReferences"), "metadata.ownerReferences"):
        row = read_table(row, "metadata.ownerReferences")
        if row.get("controller"):
            pod.owner, pod.daemon = str(row.get("uid") or ""), row.get("kind") == "DaemonSet"
    if meta.get("creationTimestamp"):
        pod.made = datetime.fromisoformat(str(meta["creationTimestamp"])).timestamp()


def _read_requests(pod: Asked, table: Mapping[str, Any]) -> None:
    """A pod's requests: its containers and sidecars together, or an init container beside the sidecars before it."""
    spec = read_table(table.get("spec"), "spec")
    if not rows(spec.get("containers"), "spec.containers"):
        pod.requests = {"pods": 1}
        raise SpecError("spec.containers", "is empty", hint="A pod has at least one container")
    together: dict[str, int] = {"pods": 1}
    pod.requests = together
    for k, row in enumerate(rows(spec["containers"], "spec.containers")):
        _add(together, _asks(row, f"spec.containers[{k}]"))
        for port in rows(row.get("ports"), f"spec.containers[{k}].ports"):
            if number := read_table(port, "ports").get("hostPort"):
                # A port of a host is a resource of which each node has one.
                together[f"port/{port.get('protocol', 'TCP')}/{number}"] = 1
    alone: dict[str, int] = {}
    sidecars: dict[str, int] = {}
    for k, row in enumerate(rows(spec.get("initContainers"), "spec.initContainers")):
        asked = _asks(row, f"spec.initContainers[{k}]")
        if row.get("restartPolicy") == "Always":
            _add(sidecars, asked)
            asked = {}
        for name in {*asked, *sidecars}:
            alone[name] = max(alone.get(name, 0), asked.get(name, 0) + sidecars.get(name, 0))
    _add(together, sidecars)
    for name, amount in alone.items():
        together[name] = max(together.get(name, 0), amount)
    whole = read_table(spec.get("resources"), "spec.resources")
    together.update(_requested(whole, "spec.resources"))
    _add(together, amounts(spec.get("overhead"), "spec.overhead"))
    for volume in rows(spec.get("volumes"), "spec.volumes"):
        volume = read_table(volume, "spec.volumes")
        if volume.get("persistentVolumeClaim") or volume.get("ephemeral"):
            raise SpecError(
                "spec.volumes", "mounts a persistent volume claim", value=volume.get("name"),
                hint="Fleetcast chooses no nodes for volumes: leave the pod to the default scheduler",
            )  # fmt: skip
    if spec.get("resourceClaims"):
        raise SpecError("spec.resourceClaims", "asks for dynamic resources", hint="Ask for them as extended resources")


def _asks(row: Any, path: str) -> dict[str, int]:
    found = read_table(read_table(row, path).get("resources"), f"{path}.resources")
    return _requested(found, f"{path}.resources")


def _requested(found: Mapping[str, Any], path: str) -> dict[str, int]:
    """Requests, and where one is left out the limit, as the API server fills them in."""
    limits = read_table(found.get("limits"), f"{path}.limits")
    asked = read_table(found.get("requests"), f"{path}.requests")
    made = amounts({**limits, **asked}, f"{path}.requests")
    for name in asked:
        if "/" in str(name) and parse(asked[name]) % 1:
            raise SpecError(f"{path}.requests.{name}", "is no whole number", value=asked[name], limit="whole ones")
    return made


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _read_places(pod: Asked, table: Mapping[str, Any]) -> None:
    spec = read_table(table.get("spec"), "spec")
    pod.selector = {str(k): str(v) for k, v in read_table(spec.get("nodeSelector"), "spec.nodeSelector").items()}
    pod.tolerations = tuple(
        Toleration(
            str(row.get("key") or ""), str(row.get("operator") or "Equal"), str(row.get("value") or ""),
            str(row.get("effect") or ""),
        )
        for row in (read_table(r, "spec.tolerations") for r in rows(spec.get("tolerations"), "spec.tolerations"))
    )  # fmt: skip
    affinity = read_table(spec.get("affinity"), "spec.affinity")
    nodes = read_table(affinity.get("nodeAffinity"), "spec.affinity.nodeAffinity")
    must, rather = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
    pod.terms = read_terms(nodes.get(must), f"spec.affinity.nodeAffinity.{must}")
    pod.preferred = tuple(
        read_term(row.get("preference"), f"spec.affinity.nodeAffinity.{rather}", int(row.get("weight", 1)))
        for row in rows(nodes.get(rather), f"spec.affinity.nodeAffinity.{rather}")
    )
    for kind, hard, soft in (("podAffinity", "affine", "liked"), ("podAntiAffinity", "anti", "disliked")):
        found, path = read_table(affinity.get(kind), f"spec.affinity.{kind}"), f"spec.affinity.{kind}"
        setattr(pod, hard, tuple(_pod_term(pod, row, path, 0) for row in rows(found.get(must), path)))
        setattr(pod, soft, tuple(
            _pod_term(pod, row.get("podAffinityTerm"), path, int(row.get("weight", 1)))
            for row in rows(found.get(rather), path)
        ))  # fmt: skip


def _pod_term(pod: Asked, row: Any, path: str, weight: int) -> PodTerm:
    row = read_table(row, path)
    topology = row.get("topologyKey")
    if not isinstance(topology, str) or not topology:
        raise SpecError(f"{path}.topologyKey", "is missing", hint='Say the domain, as "kubernetes.io/hostname"')
    selector = read_selector(row.get("labelSelector"), f"{path}.labelSelector")
    wider = read_selector(row.get("namespaceSelector"), f"{path}.namespaceSelector")
    named = tuple(str(n) for n in rows(row.get("namespaces"), f"{path}.namespaces"))
    return PodTerm(selector, named or (() if wider is not None else (pod.namespace,)), wider, topology, weight)


def _read_spread(pod: Asked, table: Mapping[str, Any]) -> None:
    made, path = [], "spec.topologySpreadConstraints"
    for row in rows(read_table(table.get("spec"), "spec").get("topologySpreadConstraints"), path):
        row = read_table(row, path)
        if row.get("whenUnsatisfiable", "DoNotSchedule") != "DoNotSchedule":
            continue
        selector = read_selector(row.get("labelSelector"), f"{path}.labelSelector")
        if keys := [str(k) for k in rows(row.get("matchLabelKeys"), f"{path}.matchLabelKeys") if str(k) in pod.labels]:
            mine = read_selector({"matchLabels": {k: pod.labels[k] for k in keys}}, path)
            selector = (*(selector or ()), *(line for line in mine or () if line not in (selector or ())))
        skew, topology = int(row.get("maxSkew", 0)), str(row.get("topologyKey") or "")
        if skew < 1 or not topology:
            raise SpecError(path, "says no spread", value=dict(row), limit="maxSkew of at least 1 and a topologyKey")
        made.append(Spread(
            selector, topology, skew, int(row.get("minDomains") or 1), row.get("nodeAffinityPolicy") != "Ignore",
            row.get("nodeTaintsPolicy") == "Honor",
        ))  # fmt: skip
    pod.spread = tuple(made)


def _read_group(pod: Asked, table: Mapping[str, Any]) -> None:
    meta = read_table(table.get("metadata"), "metadata")
    notes = read_table(meta.get("annotations"), "metadata.annotations")
    if pod.owner:
        # The replacement of a pod that moves has the same owner and asks the same.
        spec = read_table(table.get("spec"), "spec")
        asked = {k: v for k, v in spec.items() if k not in ("nodeName", "hostname", "volumes", "containers")}
        text = json.dumps([pod.owner, pod.requests, asked], sort_keys=True, default=str)
        pod.shape = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    if name := pod.labels.get(GROUP):
        pod.group = f"{pod.namespace}/{name}"
        size = pod.labels.get(GROUP_SIZE, notes.get(GROUP_SIZE, "1"))
        if not str(size).isdigit() or int(size) < 1:
            raise SpecError(f"metadata.labels.{GROUP_SIZE}", "is no number of pods", value=size, limit="1 or more")
        pod.group_size = int(size)


def read_node(table: Mapping[str, Any]) -> Machine:
    """Reads a node.

    Raises:
        SpecError: anything in it that cannot be.
    """
    meta, spec = read_table(table.get("metadata"), "metadata"), read_table(table.get("spec"), "spec")
    status = read_table(table.get("status"), "status")
    name = meta.get("name")
    if not isinstance(name, str) or not name:
        raise SpecError("metadata.name", "names no node", value=name, limit="a name")
    taints = [
        Taint(str(row.get("key") or ""), str(row.get("value") or ""), str(row.get("effect") or "NoSchedule"))
        for row in (read_table(r, "spec.taints") for r in rows(spec.get("taints"), "spec.taints"))
    ]
    if spec.get("unschedulable") and _UNSCHEDULABLE not in taints:
        taints.append(_UNSCHEDULABLE)
    conditions = [read_table(r, "status.conditions") for r in rows(status.get("conditions"), "status.conditions")]
    ready = all(row.get("status") == "True" for row in conditions if row.get("type") == "Ready")
    labels = {str(k): str(v) for k, v in read_table(meta.get("labels"), "metadata.labels").items()}
    found = status.get("allocatable") or status.get("capacity")
    return Machine(
        name, str(meta.get("resourceVersion", "")), amounts(found, "status.allocatable"), labels, tuple(taints),
        ready and not meta.get("deletionTimestamp"),
    )  # fmt: skip


def read_budget(table: Mapping[str, Any]) -> Budget:
    """Reads a PodDisruptionBudget (policy/v1)."""
    meta, spec = read_table(table.get("metadata"), "metadata"), read_table(table.get("spec"), "spec")
    status = read_table(table.get("status"), "status")
    allowed = status.get("disruptionsAllowed", 0)
    return Budget(
        f"{meta.get('namespace')}/{meta.get('name')}", str(meta.get("namespace", "")),
        read_selector(spec.get("selector"), "spec.selector"), allowed if isinstance(allowed, int) else 0,
    )  # fmt: skip
