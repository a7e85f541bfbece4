"""Nodes and pods of a scenario as objects of Kubernetes: what the double is filled with."""

from __future__ import annotations

from typing import Any

from fleetcast.base.errors import SpecError
from fleetcast.policy.place.pods import Node, Pod, Rule
from fleetcast.runtime.kubernetes.reading import GROUP

__all__ = ["node_table", "pod_table"]


def node_table(node: Node) -> dict[str, Any]:
    """Returns a Node; it can hold 110 pods, as a kubelet's default, unless its capacity says."""
    taints = [{"key": t.key, "value": t.value, "effect": t.effect} for t in node.taints]
    return {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node.name, "labels": {"kubernetes.io/hostname": node.name, **node.labels}},
        "spec": {"taints": taints} if taints else {},
        "status": {
            "allocatable": {"pods": "110", **_quantities(node.capacity)},
            "conditions": [{"type": "Ready", "status": "True" if node.ready else "False"}],
        },
    }  # fmt: skip


def pod_table(pod: Pod, scheduler: str = "fleetcast", *, image: str = "registry.k8s.io/pause:3.10") -> dict[str, Any]:
    """Returns a Pod that asks for the same.

    Raises:
        SpecError: it asks for what Kubernetes has no words for.
    """
    if pod.gpu_share:
        raise SpecError(
            f"pod {pod.name}", "shares a device", value=pod.gpu_share, limit="whole devices",
            hint="Kubernetes counts devices whole: leave the pod out, or ask for an extended resource of shares",
        )  # fmt: skip
    namespace, _, title = pod.name.rpartition("/")
    labels = dict(pod.labels)
    if pod.group:
        labels[GROUP] = pod.group.rpartition("/")[2]
    resources = {"requests": _quantities(pod.requests)}
    gpus = {name: amount for name, amount in resources["requests"].items() if "/" in name}
    if gpus:
        resources["limits"] = gpus
    container = {"name": "main", "image": image, "resources": resources}
    spec: dict[str, Any] = {"schedulerName": scheduler, "priority": pod.priority, "containers": [container]}
    if pod.selector:
        spec["nodeSelector"] = dict(pod.selector)
    if pod.tolerations:
        spec["tolerations"] = [
            {k: v for k, v in (("key", t.key), ("operator", t.operator), ("value", t.value), ("effect", t.effect)) if v}
            for t in pod.tolerations
        ]
    if not pod.preempts:
        spec["preemptionPolicy"] = "Never"
    if affinity := _affinity(pod.rules):
        spec["affinity"] = affinity
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": title, "namespace": namespace or "default", "labels": labels}, "spec": spec,
    }  # fmt: skip


def _quantities(amounts: Any) -> dict[str, str]:
    """Exact text: cpu in thousandths, others whole, both rounded up."""
    made = {}
    for name, amount in amounts.items():
        scaled = amount * 1000 if name == "cpu" else amount
        whole = -int(-scaled // 1) if abs(scaled - round(scaled)) > 1e-6 else round(scaled)
        made[name] = f"{whole}m" if name == "cpu" else str(whole)
    return made


def _affinity(rules: tuple[Rule, ...]) -> dict[str, Any]:
    must, rather = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
    made: dict[str, Any] = {}
    for rule in rules:
        lines = [_line(one) for one in (rule, *rule.also)]
        if not rule.pods:
            terms = [{"matchExpressions": lines}, *({"matchExpressions": [_line(one)]} for one in rule.either)]
            nodes = made.setdefault("nodeAffinity", {})
            if rule.weight:
                nodes.setdefault(rather, []).extend({"weight": rule.weight, "preference": term} for term in terms)
                continue
            known = nodes.setdefault(must, {"nodeSelectorTerms": [{"matchExpressions": []}]})["nodeSelectorTerms"]
            # All rules must hold and each is any of its terms: multiplied out.
            nodes[must]["nodeSelectorTerms"] = [
                {"matchExpressions": [*old["matchExpressions"], *term["matchExpressions"]]}
                for old in known for term in terms
            ]  # fmt: skip
            continue
        term = {"labelSelector": {"matchExpressions": lines}, "topologyKey": rule.topology}
        kind = made.setdefault("podAntiAffinity" if rule.anti else "podAffinity", {})
        if rule.weight:
            kind.setdefault(rather, []).append({"weight": rule.weight, "podAffinityTerm": term})
        else:
            kind.setdefault(must, []).append(term)
    return made


def _line(rule: Rule) -> dict[str, Any]:
    return {"key": rule.key, "operator": rule.operator, **({"values": list(rule.values)} if rule.values else {})}
