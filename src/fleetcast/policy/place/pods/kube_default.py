"""What kube-scheduler does by default: pod by pod in order of priority, each on the best-scored node with room.

Score = 1 x least allocated + 1 x balanced allocation + 2 x preferred affinities to nodes and to pods + 3 x taints
that prefer others, each 0 to 100, integers as in the scheduler. A pod that fits nowhere may pre-empt: on each node
the pods of lower priority leave and come back in order of priority as long as the newcomer still fits; of all nodes
that with the lowest highest victim, then the lowest sum of priorities, then the fewest victims is taken.

Differs from kube-scheduler: all feasible nodes are scored (it samples above 100), ties go to the first node instead
of a random one, victims' disruption budgets are never broken (it breaks them as a last resort), and gangs are placed
whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.policy.place.pods import Placement, Pod, Rule, View
from fleetcast.policy.place.pods.greedy import Turned, decide, lay, queue, units
from fleetcast.policy.place.pods.ledger import Ledger
from fleetcast.policy.place.pods.match import admits, tolerated

if TYPE_CHECKING:
    from numpy.typing import NDArray

CANDIDATES = 100
"""Nodes on which pre-emption is tried for one pod, as kube-scheduler's least."""


class KubeDefault:
    """Spreads pods by least allocation; lower priorities leave where nothing else helps.

    Args:
        preempt: whether pods of lower priority may be evicted.
    """

    kind = "kube_default"

    def __init__(self, *, preempt: bool = True) -> None:
        self.preempt = preempt

    def place(self, view: View) -> Placement:
        """Returns who goes where and which pods leave."""
        ledger = view.ledger.copy()
        turned = Turned()
        budgets = {name: allowed for name, (_, allowed) in view.budgets.items()}
        running: set[str] | None = None
        lowest = 0
        for unit in units(queue(view.waiting)):
            key = turned.key(ledger, unit)
            if key in turned.known:
                continue
            if lay(ledger, unit, choose):
                continue
            pod = unit[0]
            if running is None:
                running = {p.name for p in view.running if p.movable and not p.group}
                lowest = min((p.priority for p in view.running if p.name in running), default=1 << 62)
            if self.preempt and len(unit) == 1 and pod.preempts and pod.priority > lowest:
                best = _victims(view, ledger, pod, running, budgets)
                if best is not None:
                    node, victims = best
                    for victim in victims:
                        ledger.remove(victim.name)
                        for name in _covering(view, victim):
                            budgets[name] -= 1
                    ledger.place(pod, node)
                    turned.known.clear()
                    continue
            if key is not None:
                turned.known.add(key)
        return decide(view, ledger)


def choose(ledger: Ledger, pod: Pod, mask: NDArray[np.bool_]) -> tuple[int, None]:
    """Returns the node with the highest score, the first of several."""
    return int(np.argmax(np.where(mask, score(ledger, pod, mask), -1))), None


def score(ledger: Ledger, pod: Pod, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Returns the score of each node for a pod; only those in the mask mean anything."""
    columns = [ledger.column[name] for name in ("cpu", "memory") if name in ledger.column]
    total = np.zeros(len(ledger.nodes), dtype=np.int64)
    if columns:
        have = np.maximum(ledger.capacity[:, columns], 1)
        left = np.maximum(ledger.free[:, columns] - ledger.need(pod).amount[columns], 0)
        total = (left * 100 // have).sum(axis=1) // len(columns)
        used = 1.0 - left / have
        total = total + (100 * (1.0 - used.std(axis=1))).astype(np.int64)
    preferred = [rule for rule in pod.rules if rule.weight]
    if preferred:
        total = total + 2 * _affinity(ledger, [r for r in preferred if not r.pods], mask)
        total = total + 2 * _near(ledger, [r for r in preferred if r.pods], mask)
    if any(taint.effect == "PreferNoSchedule" for node in ledger.nodes for taint in node.taints):
        total = total + 3 * _taints(ledger, pod, mask)
    return total


def _affinity(ledger: Ledger, rules: Sequence[Rule], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    sums = np.zeros(len(ledger.nodes), dtype=np.int64)
    for rule in rules:
        sums += [rule.weight * admits(node, rule) for node in ledger.nodes]
    most = int(sums[mask].max(initial=0))
    return sums * 100 // most if most > 0 else sums * 0


def _near(ledger: Ledger, rules: Sequence[Rule], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    sums = np.zeros(len(ledger.nodes), dtype=np.int64)
    for rule in rules:
        sums += (-1 if rule.anti else 1) * rule.weight * ledger.around(rule)
    low, high = int(sums[mask].min(initial=0)), int(sums[mask].max(initial=0))
    return (sums - low) * 100 // (high - low) if high > low else sums * 0


def _taints(ledger: Ledger, pod: Pod, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    counts = np.array(
        [
            sum(t.effect == "PreferNoSchedule" and not tolerated(t, pod.tolerations) for t in node.taints)
            for node in ledger.nodes
        ],
        dtype=np.int64,
    )
    most = int(counts[mask].max(initial=0))
    return 100 - counts * 100 // most if most else counts * 0 + 100


def _covering(view: View, pod: Pod) -> list[str]:
    return [n for n, (labels, _) in view.budgets.items() if all(pod.labels.get(k) == v for k, v in labels.items())]


def _victims(
    view: View, ledger: Ledger, pod: Pod, running: set[str], budgets: dict[str, int]
) -> tuple[int, list[Pod]] | None:
    """Returns the node on which pre-emption costs least and who leaves it, None = it helps nowhere."""
    on: dict[int, list[Pod]] = {}
    could = ledger.free.copy()
    for other, node, _ in ledger.laid.values():
        if other.priority < pod.priority and other.name in running:
            on.setdefault(node, []).append(other)
            could[node] += ledger.need(other).amount
    need = ledger.need(pod)
    if need.absent:
        return None
    enough = could >= need.amount
    if ledger.gpu >= 0:  # shares leave devices that are not whole: tried below
        enough[:, ledger.gpu] = True
    hopeful = enough.all(axis=1) & ledger.allowed(pod)
    best: tuple[tuple[int, int, int, int], list[Pod]] | None = None
    for node in [n for n in np.flatnonzero(hopeful).tolist() if n in on][:CANDIDATES]:
        victims = _spared(view, ledger, pod, node, on[node], budgets)
        if victims:
            key = (victims[0].priority, sum(v.priority for v in victims), len(victims), node)
            if best is None or key < best[0]:
                best = key, victims
    return None if best is None else (best[0][3], best[1])


def _spared(
    view: View, ledger: Ledger, pod: Pod, node: int, lower: list[Pod], budgets: dict[str, int]
) -> list[Pod] | None:
    """Returns who must leave a node for a pod, highest priority first; None where that does not help or may not be."""
    lower = sorted(lower, key=lambda p: (-p.priority, p.arrival))
    devices = {p.name: ledger.laid[p.name].devices for p in lower}
    for other in lower:
        ledger.remove(other.name)
    victims: list[Pod] = []
    if helps := ledger.fits_on(pod, node):
        for other in lower:
            ledger.place(other, node, devices[other.name])
            if not ledger.fits_on(pod, node):
                ledger.remove(other.name)
                victims.append(other)
    for other in lower:  # as it was
        if other.name not in ledger.laid:
            ledger.place(other, node, devices[other.name])
    spent: dict[str, int] = {}
    for victim in victims:
        for name in _covering(view, victim):
            spent[name] = spent.get(name, 0) + 1
    if not helps or any(count > budgets[name] for name, count in spent.items()):
        return None
    return victims
