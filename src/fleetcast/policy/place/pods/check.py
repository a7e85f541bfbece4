"""Whether a placement is legal: the one check of policies, worlds and Kubernetes, and the words for why a pod waits.

`carry_out` checks a placement and returns the ledger after it. It knows no policy: capacities, devices, selectors,
taints and rules are looked at in the state that the placement leaves; budgets, gangs and priorities in what it
changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from fleetcast.base.errors import PolicyError
from fleetcast.base.show import show
from fleetcast.policy.place.pods import GPU, Placement, Pod, View
from fleetcast.policy.place.pods.ledger import WHOLE, Ledger
from fleetcast.policy.place.pods.match import company, repelling, required, selects


def carry_out(view: View, placement: Placement) -> Ledger:
    """Returns what is free after a placement.

    Raises:
        PolicyError: it is illegal; names the pod, the node and what is short or broken. Nothing is changed.
    """
    asked = {*placement.moved, *placement.evicted}
    running = {pod.name: pod for pod in view.running if pod.name in asked} if asked else {}
    waiting = {pod.name: pod for pod in view.waiting}
    _names(placement, running, waiting, view)
    leaving = [running[name] for name in (*placement.evicted, *placement.moved)]
    budgets(view, leaving)
    _gangs(view, placement, running, waiting)
    _priorities(view, placement, running, waiting)
    after = view.ledger.copy()
    for pod in leaving:
        if pod.name in after.laid:
            after.remove(pod.name)
    come = [(running[name], node) for name, node in placement.moved.items()]
    come += [(waiting[name], node) for name, node in placement.bound.items()]
    # those that name their device first: the others take what is left
    for pod, name in sorted(come, key=lambda item: item[0].name not in placement.gpus):
        node = after.number[name]
        device = placement.gpus.get(pod.name)
        _there(after, pod, node, device)
        after.place(pod, node, None if device is None else (device,))
    for pod, name in come:
        _company(after, pod, after.number[name])
    return after


def _names(placement: Placement, running: Mapping[str, Pod], waiting: Mapping[str, Pod], view: View) -> None:
    for name, node in (*placement.bound.items(), *placement.moved.items()):
        if node not in view.ledger.number:
            raise PolicyError(f"pod '{name}' is sent to node '{node}', which is not there")
        if not view.nodes[view.ledger.number[node]].ready:
            raise PolicyError(f"pod '{name}' is sent to node '{node}', which takes no pods")
    for name in placement.bound:
        if name not in waiting:
            raise PolicyError(f"pod '{name}' is bound and does not wait")
    for name in placement.moved:
        if name not in running:
            raise PolicyError(f"pod '{name}' is moved and does not run")
        if running[name].node == placement.moved[name]:
            raise PolicyError(f"pod '{name}' is moved to node '{running[name].node}', where it is")
    if len(set(placement.evicted)) < len(placement.evicted):
        raise PolicyError(f"pod '{Counter(placement.evicted).most_common(1)[0][0]}' is evicted twice")
    for name in placement.evicted:
        if name not in running:
            raise PolicyError(f"pod '{name}' is evicted and does not run")
        if name in placement.moved:
            raise PolicyError(f"pod '{name}' is both moved and evicted")
    for name in (*placement.moved, *placement.evicted):
        if not running[name].movable:
            raise PolicyError(f"pod '{name}' is moved or evicted and may not be")


def budgets(view: View, leaving: Iterable[Pod]) -> None:
    """Checks that disruption budgets bear that pods leave or move.

    Raises:
        PolicyError: names the budget, how many it allows and how many leave.
    """
    gone = list(leaving)
    for name, (labels, allowed) in view.budgets.items():
        met = [pod for pod in gone if all(pod.labels.get(k) == v for k, v in labels.items())]
        if len(met) > allowed:
            raise PolicyError(
                f"budget '{name}' lets {allowed} pods leave now, and {len(met)} do, among them '{met[0].name}'"
            )


def _gangs(view: View, placement: Placement, running: Mapping[str, Pod], waiting: Mapping[str, Pod]) -> None:
    come = {waiting[name].group: name for name in placement.bound if waiting[name].group}
    for pod in view.waiting if come else ():
        if pod.group in come and pod.name not in placement.bound:
            raise PolicyError(f"gang '{pod.group}' is torn: pod '{come[pod.group]}' is placed and '{pod.name}' is not")
    out = set(placement.evicted)
    torn = {running[name].group for name in out} - {""}
    for pod in view.running if torn else ():
        if pod.group in torn and pod.name not in out:
            raise PolicyError(f"gang '{pod.group}' is torn: a pod of it is evicted and '{pod.name}' is not")


def _priorities(view: View, placement: Placement, running: Mapping[str, Pod], waiting: Mapping[str, Pod]) -> None:
    if not placement.evicted:
        return
    change = Counter(waiting[name].priority for name in placement.bound)
    change.subtract(running[name].priority for name in placement.evicted)
    gain = next((tier for tier in sorted(change, reverse=True) if change[tier]), None)
    for name in placement.evicted:
        tier = running[name].priority
        if gain is None or change[gain] < 0 or tier > gain:
            raise PolicyError(
                f"pod '{name}' of priority {tier} is evicted, and no more pods of that priority or above run"
            )
    served = [waiting[n] for n in placement.bound if waiting[n].preempts]
    top = max((pod.priority for pod in served), default=None)
    if top is None or any(running[name].priority > top for name in placement.evicted):
        raise PolicyError(f"pod '{placement.evicted[0]}' is evicted for pods that do not pre-empt")


def _there(after: Ledger, pod: Pod, node: int, device: int | None) -> None:
    where = after.nodes[node]
    if not after.allowed(pod)[node]:
        raise PolicyError(f"pod '{pod.name}' may not lie on node '{where.name}': {_refusal(pod, after, node)}")
    need = after.need(pod)
    if need.absent:
        raise PolicyError(f"pod '{pod.name}' needs {need.absent}, which node '{where.name}' has none of")
    for i in np.flatnonzero(after.free[node] < need.amount):
        resource = after.resources[i]
        raise PolicyError(
            f"pod '{pod.name}' needs {_say(resource, need.amount[i])}, and node '{where.name}' has "
            f"{_say(resource, after.free[node, i])} left"
        )
    if need.share:
        row = after.devices[node]
        best = row.max(initial=-1) if device is None else row[device] if 0 <= device < len(row) else -1
        if best < need.share:
            which = f"device {device}" if device is not None else "the emptiest device"
            have = f"{max(int(best), 0) / WHOLE:g} of {which}"
            raise PolicyError(
                f"pod '{pod.name}' needs {need.share / WHOLE:g} of one {GPU}, and node '{where.name}' has {have}"
            )
    elif device is not None:
        raise PolicyError(f"pod '{pod.name}' names device {device} and shares none")


def _company(after: Ledger, pod: Pod, node: int) -> None:
    """Looks at the rules about pods with everybody in place but the pod itself."""
    if not pod.rules and after.plain:
        return
    laid = after.remove(pod.name)
    welcome = bool(after.welcome(pod)[node])
    after.place(pod, node, laid.devices)
    if not welcome:
        raise PolicyError(
            f"pod '{pod.name}' may not lie on node '{after.nodes[node].name}': a rule about the pods there"
        )


def _refusal(pod: Pod, ledger: Ledger, node: int) -> str:
    where = ledger.nodes[node]
    if not where.ready:
        return "the node takes no pods"
    taint = repelling(where, pod.tolerations)
    if taint is not None:
        return f"taint {taint.key}={taint.value}:{taint.effect}"
    for key, value in pod.selector.items():
        if where.labels.get(key) != value:
            return f"label {key} is not '{value}'"
    return "a required rule about nodes: " + ", ".join(f"{r.key} {r.operator} {list(r.values)}" for r in required(pod))


def _say(resource: str, value: int) -> str:
    if resource == "cpu":
        return f"{value / 1000:g} cores"
    return f"{show(float(value), 'B')} of memory" if resource == "memory" else f"{value} {resource}"


def reason(ledger: Ledger, pod: Pod) -> str:
    """Returns why a pod has no node now, in a sentence: the resource and the shortage; "" where it has one.

    Of several shortages it names the one that most nodes have among those that the pod may lie on.
    """
    need, allowed, room = ledger.need(pod), ledger.allowed(pod), ledger.room(pod)
    if not len(ledger.nodes):
        return "there are no nodes"
    if need.absent:
        return f"no node has any {need.absent}"
    if not allowed.any():
        return f"none of {len(ledger.nodes)} nodes lets it on: {_refusal(pod, ledger, 0)}"
    among = np.flatnonzero(allowed)
    if (allowed & room).any():
        if ledger.fits(pod).any():
            return ""
        rule = next(iter(company(pod)), None)
        if rule is None or not any(rule.anti == r.anti and selects(r, pod.labels) for r in company(pod)):
            return (
                f"a rule about pods: {int((allowed & room).sum())} nodes have room, none of them the company it needs"
            )
        return f"a rule about pods: {int((allowed & room).sum())} nodes have room, each with pods that bar it"
    short = (ledger.free[among] < need.amount).sum(axis=0)
    if need.share and (not short.any() or (ledger.free[among] >= need.amount).all(axis=1).any()):
        best = max(int(ledger.devices[among].max(initial=0)), 0)
        share, has = f"{need.share / WHOLE:g}", f"{best / WHOLE:g}"
        return f"{GPU}: needs {share} of one device, and the emptiest of {len(among)} nodes has {has}"
    worst = int(np.argmax(short))
    free = ledger.free[among, worst]
    resource, asked, most = ledger.resources[worst], int(need.amount[worst]), int(free.max())
    largest = int(ledger.capacity[among, worst].max())
    if asked > largest:
        return f"{resource}: needs {_say(resource, asked)}, and the largest node has {_say(resource, largest)}"
    nodes = f"{int(short[worst])} of {len(among)} nodes are short of {resource}"
    total = int(np.maximum(free, 0).sum())
    there = f"the most free on one is {_say(resource, most)}, {_say(resource, total)} on all"
    return f"{resource}: needs {_say(resource, asked)}; {nodes}: {there}"


def reasons(ledger: Ledger, pods: Iterable[Pod]) -> dict[str, str]:
    """Returns `reason` of each pod; of one that would fit alone, that it is part of a gang that does not."""
    found = {}
    for pod in pods:
        why = reason(ledger, pod)
        found[pod.name] = why or (f"gang '{pod.group}' does not fit as a whole" if pod.group else "it was not placed")
    return found
