"""A scheduler as manifests: its rights, its lease, its scenario and two instances of which one is at work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import dump_toml
from fleetcast.scenario.load import PodsScenario
from fleetcast.view.exports import Export
from fleetcast.view.exports.kubernetes import to_yaml
from fleetcast.view.release import release

__all__ = ["CLUSTER_RIGHTS", "LEASE_RIGHTS", "export", "files", "manifests"]

CLUSTER_RIGHTS: Final[list[dict[str, list[str]]]] = [
    {"apiGroups": [""], "resources": ["nodes", "namespaces"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["pods/binding", "pods/eviction"], "verbs": ["create"]},
    {"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
    {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": ["list", "watch"]},
    {"apiGroups": ["scheduling.k8s.io"], "resources": ["priorityclasses"], "verbs": ["list", "watch"]},
]
"""What the scheduler may do in the whole cluster: nothing that it does not do."""
LEASE_RIGHTS: Final[list[dict[str, list[str]]]] = [
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": ["fleetcast"],
        "verbs": ["get", "update"],
    }
]
"""And in its own namespace: its lease, which the manifests make."""
_LARGEST: Final = 900_000
"""Bytes; a ConfigMap holds 1 MiB with all its keys."""
_LABELS: Final = {"app": "fleetcast-scheduler"}


def export(scenario: PodsScenario, *, extras: str = "kubernetes,solve") -> Export:
    """Returns the manifests as a YAML stream.

    Args:
        scenario: its plan's policy places pods; files that it names go into the ConfigMap.
        extras: of the package, that the image needs.

    Raises:
        SpecError: a file that no ConfigMap holds.
    """
    objects = manifests(files(scenario))
    notes = [
        f"# Build the image first: FROM python:3.12-slim, RUN pip install 'fleetcast[{extras}]=={release()}'",
        '# Pods are scheduled by it where they say schedulerName: "fleetcast"; kube-scheduler keeps all others.',
    ]
    return Export("\n".join([*notes, "---\n".join(to_yaml(o) for o in objects)]), objects, "yaml")


def files(scenario: PodsScenario) -> dict[str, str]:
    """Returns the scenario's text and the files that it names, by their names beside it.

    Raises:
        SpecError: not text, or more than a ConfigMap holds.
    """
    table = scenario.table()
    found: dict[str, str] = {}
    for key in ("pods", "nodes"):
        named = table["workload"].get(key)
        if not isinstance(named, str) or not named:
            continue
        path = Path(scenario.folder) / named
        try:
            found[path.name] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(
                f"workload.{key}", "cannot go into a ConfigMap", value=str(error), limit="a file of text",
                hint="Name a generator: a real cluster brings its own pods and nodes",
            ) from error  # fmt: skip
        table["workload"] = {**table["workload"], key: path.name}
    found = {"scenario.toml": dump_toml(table), **found}
    size = sum(len(text.encode()) for text in found.values())
    if size > _LARGEST:
        raise SpecError(
            "workload.pods", "is too large for a ConfigMap", value=size, limit=f"{_LARGEST:,} bytes with its nodes",
            hint="Name a generator: a real cluster brings its own pods and nodes",
        )  # fmt: skip
    return found


def manifests(data: Mapping[str, str], *, namespace: str = "fleetcast", image: str = "") -> list[dict[str, Any]]:
    """Returns Namespace, ServiceAccount, roles and their bindings, Lease, ConfigMap and Deployment as plain tables."""

    def meta(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "namespace": namespace, "labels": dict(_LABELS), **more}

    subject = [{"kind": "ServiceAccount", "name": "fleetcast", "namespace": namespace}]
    group = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("fleetcast")},
        {
            "apiVersion": f"{group}/v1", "kind": "ClusterRole",
            "metadata": {"name": "fleetcast-scheduler", "labels": dict(_LABELS)}, "rules": CLUSTER_RIGHTS,
        },
        {
            "apiVersion": f"{group}/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "fleetcast-scheduler", "labels": dict(_LABELS)},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "fleetcast-scheduler"}, "subjects": subject,
        },
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta("fleetcast-lease"), "rules": LEASE_RIGHTS},
        {
            "apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": meta("fleetcast-lease"),
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "fleetcast-lease"}, "subjects": subject,
        },
        {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta("fleetcast"), "spec": {}},
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("fleetcast"), "data": dict(data),
        },
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("fleetcast"),
            "spec": {
                "replicas": 2, "selector": {"matchLabels": dict(_LABELS)},
                "template": {"metadata": {"labels": dict(_LABELS)}, "spec": _pod(image or f"fleetcast:{release()}")},
            },
        },
    ]  # fmt: skip


def _pod(image: str) -> Mapping[str, Any]:
    command = ["fleetcast", "run", "/etc/fleetcast/scenario.toml", "--on", "kubernetes"]
    return {
        # The scheduler's own pods are another scheduler's.
        "serviceAccountName": "fleetcast", "priorityClassName": "system-cluster-critical",
        "terminationGracePeriodSeconds": 40,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "labelSelector": {"matchLabels": dict(_LABELS)}, "topologyKey": "kubernetes.io/hostname",
            },
        }]}},
        "containers": [{
            "name": "scheduler", "image": image, "command": command,
            "env": [{"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}],
            "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "4Gi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": "scenario", "mountPath": "/etc/fleetcast", "readOnly": True}],
        }],
        "volumes": [{"name": "scenario", "configMap": {"name": "fleetcast"}}],
    }  # fmt: skip
