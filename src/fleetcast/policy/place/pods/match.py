"""Which nodes a pod's selector, required rules and tolerations leave, and which pods a rule means."""

from __future__ import annotations

from collections.abc import Mapping

from fleetcast.policy.place.pods import Node, Pod, Rule, Taint, Toleration

HOST = "kubernetes.io/hostname"


def tolerated(taint: Taint, tolerations: tuple[Toleration, ...]) -> bool:
    """Returns whether one of the tolerations bears the taint."""
    return any(
        (not t.effect or t.effect == taint.effect)
        and (not t.key or t.key == taint.key)
        and (t.operator == "Exists" or (t.key != "" and t.value == taint.value))
        for t in tolerations
    )


def repelling(node: Node, tolerations: tuple[Toleration, ...]) -> Taint | None:
    """Returns the first taint that keeps a pod with these tolerations off a node, None = no taint does."""
    for taint in node.taints:
        if taint.effect != "PreferNoSchedule" and not tolerated(taint, tolerations):
            return taint
    return None


def _compares(rule: Rule, labels: Mapping[str, str]) -> bool:
    found = labels.get(rule.key)
    match rule.operator:
        case "In":
            return found is not None and found in rule.values
        case "NotIn":
            return found is None or found not in rule.values
        case "Exists":
            return found is not None
        case "DoesNotExist":
            return found is None
        case "Gt" | "Lt":
            try:
                value, limit = int(found or ""), int(rule.values[0])
            except (ValueError, IndexError):
                return False
            return value > limit if rule.operator == "Gt" else value < limit
        case _:
            return False


def selects(rule: Rule, labels: Mapping[str, str]) -> bool:
    """Returns whether labels meet a rule: its own condition and all those that it has ``also``."""
    return _compares(rule, labels) and all(_compares(other, labels) for other in rule.also)


def admits(node: Node, rule: Rule) -> bool:
    """Returns whether a rule about nodes, or one that is enough instead, lets a pod onto a node."""
    labels = node.labels if HOST in node.labels else {**node.labels, HOST: node.name}
    return selects(rule, labels) or any(selects(other, labels) for other in rule.either)


def required(pod: Pod) -> tuple[Rule, ...]:
    """Returns the rules about nodes that must hold."""
    return tuple(rule for rule in pod.rules if not rule.weight and not rule.pods)


def company(pod: Pod) -> tuple[Rule, ...]:
    """Returns the rules about other pods that must hold."""
    return tuple(rule for rule in pod.rules if not rule.weight and rule.pods)


def domain(node: Node, topology: str) -> str | None:
    """Returns which domain of a topology a node is in, None = in none."""
    return node.labels.get(topology, node.name if topology == HOST else None)
