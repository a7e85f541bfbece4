"""What of a decision is carried out: it is asked again in whole numbers, gangs whole, and nobody leaves in vain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from fleetcast.policy.place.pods import Placement
from fleetcast.runtime.kubernetes.cluster import Cluster
from fleetcast.runtime.kubernetes.quantity import show
from fleetcast.runtime.kubernetes.reading import Asked
from fleetcast.runtime.kubernetes.room import Room, allows

__all__ = ["Verdict", "judge", "shortage"]


@dataclass
class Verdict:
    """What is done now.

    Attributes:
        bind: pods that fit as things are, in the order in which they are bound.
        nominate: pods that fit once others have left.
        evict: running pods that leave for those.
        move: running pods that leave, and where their replacement goes.
        refused: waiting pod -> why its place was not accepted.
        notes: what else of the decision was not accepted.
    """

    bind: list[tuple[Asked, str]] = field(default_factory=list)
    nominate: list[tuple[Asked, str]] = field(default_factory=list)
    evict: list[Asked] = field(default_factory=list)
    move: list[tuple[Asked, str]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def judge(cluster: Cluster, room: Room, placement: Placement, gangs: Mapping[str, int], fixed: set[str]) -> Verdict:
    """Returns what of a decision is carried out.

    Args:
        cluster: whose lock is held; pods that are gone or bound meanwhile are passed over.
        room: what is left; is written to.
        placement: the decision.
        gangs: gang -> its waiting pods, which are placed together or not at all.
        fixed: uids of running pods that may not be moved.
    """
    verdict = Verdict()
    wanted: list[tuple[Asked, str]] = []
    for name, node in placement.bound.items():
        pod = cluster.queue.get(cluster.named.get(name, ""))
        if pod is not None and not pod.problem:
            wanted.append((pod, node))
    wanted.sort(key=lambda found: (-cluster.priority(found[0]), found[0].made))
    asked = Counter(pod.group for pod, _ in wanted if pod.group)
    units: dict[str, list[tuple[Asked, str]]] = {}
    for pod, node in wanted:
        if pod.group and asked[pod.group] < gangs.get(pod.group, 0):
            verdict.refused[pod.name] = f"its gang has {gangs[pod.group]} pods and only {asked[pod.group]} found a node"
            continue
        units.setdefault(pod.group or pod.uid, []).append((pod, node))
    later = [unit for unit in units.values() if _enter(room, unit, verdict.bind)]
    leaving, moving = _leaving(cluster, placement, wanted, fixed, verdict)
    for pod in (*leaving, *(pod for pod, _ in moving)):
        room.leave(pod)
    for pod, node in moving:
        room.take(pod, node)
    for unit in later:
        if reason := _enter(room, unit, verdict.nominate):
            verdict.refused.update({pod.name: f"{node} {reason}" for pod, node in unit})
    cleared = {node for _, node in verdict.nominate}
    if moving and (cleared or not later):
        verdict.move = moving
        cleared |= {node for _, node in moving}
    # Nobody leaves in vain, and none for a pod that only its equals or lower ones wait for.
    tallest = max((cluster.priority(p) for p, _ in verdict.nominate if cluster.preempts(p)), default=None)
    if tallest is not None:
        verdict.evict = [p for p in leaving if cluster.place(p) in cleared and cluster.priority(p) < tallest]
    return verdict


def _enter(room: Room, unit: list[tuple[Asked, str]], into: list[tuple[Asked, str]]) -> str:
    """Puts a pod or a whole gang where it goes; returns why one of them cannot, and then none is."""
    for k, (pod, node) in enumerate(unit):
        if reason := room.why(pod, node):
            for put, _ in unit[:k]:
                room.leave(put)
            return reason
        room.take(pod, node)
    into += unit
    return ""


def _leaving(
    cluster: Cluster, placement: Placement, wanted: list[tuple[Asked, str]], fixed: set[str], verdict: Verdict
) -> tuple[list[Asked], list[tuple[Asked, str]]]:
    """Who may really leave: within budgets, with a controller that makes them anew, lower than somebody who comes."""
    tallest = max((cluster.priority(p) for p, _ in wanted if cluster.preempts(p)), default=None)
    left: dict[str, int] = {}
    evicted: list[Asked] = []
    moved: list[tuple[Asked, str]] = []
    for name, to in [*((n, "") for n in placement.evicted), *placement.moved.items()]:
        pod = cluster.pods.get(cluster.named.get(name, ""))
        if pod is None or not pod.node or pod.leaving:
            continue
        reason = ""
        if pod.uid in fixed:
            reason = "was refused by a disruption budget a moment ago"
        elif not pod.owner or pod.daemon:
            reason = "has no controller that would make it anew elsewhere"
        elif not to and (tallest is None or cluster.priority(pod) >= tallest):
            reason = "is not lower than any pod that would come for it"
        elif to and pod.scheduler != cluster.scheduler:
            reason = f"is of the scheduler {pod.scheduler or 'default-scheduler'}, which would place its replacement"
        elif to and to not in cluster.machines:
            reason = f"would go to {to}, which is gone"
        elif to and (kept := allows(pod, cluster.machines[to])):
            reason = f"cannot go to {to}, which {kept}"
        budgets = cluster.budgets_of(pod)
        for budget in budgets if not reason else ():
            if left.setdefault(budget.name, budget.allowed) < 1:
                reason = f"is kept by the disruption budget {budget.name}"
        if reason:
            verdict.notes.append(f"{name} stays: it {reason}")
            continue
        for budget in budgets:
            left[budget.name] -= 1
        if to:
            moved.append((pod, to))
        else:
            evicted.append(pod)
    return evicted, moved


def shortage(room: Room, pod: Asked) -> str:
    """Returns why no node takes a pod, counted over nodes: the resource, what it needs, the most that is left."""
    if not room.machines:
        return f"{pod.name}: the cluster has no nodes"
    why: Counter[str] = Counter()
    most: dict[str, int] = {}
    for name, machine in room.machines.items():
        reason = room.why(pod, name)
        kind = reason.partition(":")[0] if reason.startswith("lacks ") and ":" in reason else reason
        why[kind or "takes it"] += 1
        if kind.startswith("lacks ") and ":" in reason:
            resource = kind.removeprefix("lacks ")
            left = machine.capacity.get(resource, 0) - room.used(name).get(resource, 0)
            most[resource] = max(most.get(resource, 0), left)
    parts = []
    for kind, count in why.most_common(5):
        resource = kind.removeprefix("lacks ")
        if resource in most and kind.startswith("lacks "):
            need = show(resource, pod.requests[resource])
            parts.append(
                f"{count} lack {resource} (needs {need}, the most left on one is {show(resource, most[resource])})"
            )
        else:
            parts.append(f"{count}: {kind}")
    return f"{pod.name}: 0 of {len(room.machines)} nodes take it: {'; '.join(parts)}"
