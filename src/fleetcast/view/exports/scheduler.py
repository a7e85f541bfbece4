"""A scheduler as manifests: its rights, its lease, its scenario and two instances of which one is at work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetcast.view.exports import Export
from fleetcast.view.exports.kubernetes import to_yaml
from fleetcast.view.release import release

__all__ = ["CLUSTER_RIGHTS", "LEASE_RIGHTS", "export", "manifests"]

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
_LABELS: Final = {"app": "fleetcast-scheduler"}


def export(scenario: str, *, extras: str = "kubernetes,solve") -> Export:
    """Returns the manifests as a YAML stream.

    Args:
        scenario: the scenario's text, as TOML.
        extras: of the package, that the image needs.
    """
    objects = manifests(scenario)
    notes = [
        f"# Build the image first: FROM python:3.12-slim, RUN pip install 'fleetcast[{extras}]=={release()}'",
        '# Pods are scheduled by it where they say schedulerName: "fleetcast"; kube-scheduler keeps all others.',
    ]
    return Export("\n".join([*notes, "---\n".join(to_yaml(o) for o in objects)]), objects, "yaml")


def manifests(scenario: str, *, namespace: str = "fleetcast", image: str = "") -> list[dict[str, Any]]:
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
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("fleetcast"), "data": {"scenario.toml": scenario},
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
