"""The View that a policy gets of a Kubernetes cluster.

Selectors say more than one label and one value, and the protocol's rules say just that. So nodes that meet a term of
affinity, and pods that a term picks, get a label of ours ("=..." which no object can have), and the rule asks for it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping

from fleetcast.policy.place.pods import Node, Pod, Rule, View
from fleetcast.runtime.kubernetes.cluster import Cluster
from fleetcast.runtime.kubernetes.quantity import CPU
from fleetcast.runtime.kubernetes.reading import Asked, Machine, PodTerm
from fleetcast.runtime.kubernetes.room import Guard, Key, Room, key_of
from fleetcast.runtime.kubernetes.selecting import Requirement, Term

__all__ = ["Sight", "natural"]

_REMEMBERED = 20_000
"""Selectors that are remembered, those of pods that are long gone among them."""


def natural(amounts: Mapping[str, int]) -> dict[str, float]:
    """Returns resources as policies see them: cpu in cores, others in their unit."""
    return {name: amount / 1000 if name == CPU else float(amount) for name, amount in amounts.items()}


class Sight:
    """Makes views; keeps what it made of objects that did not change."""

    def __init__(self) -> None:
        self._ids: dict[object, int] = {}
        self._pods: dict[str, tuple[object, Pod]] = {}
        self._nodes: dict[str, tuple[object, Node]] = {}

    def look(
        self, cluster: Cluster, room: Room, waiting: Iterable[Asked], running: Iterable[tuple[Asked, str]],
        tried: set[str], fixed: set[str],
    ) -> View:  # fmt: skip
        """Returns the cluster as a policy sees it.

        Args:
            cluster: whose lock is held.
            room: who lies where.
            waiting: pods to place, by arrival.
            running: pods that have a node, or will have.
            tried: uids of waiting pods for which a steered try failed; others of a spread are dealt out evenly.
            fixed: uids of running pods that may not be moved.
        """
        self._room, self._cluster = room, cluster
        if len(self._ids) > _REMEMBERED:
            self._ids, self._pods, self._nodes = {}, {}, {}
        waiting, running = list(waiting), list(running)
        ours = [*waiting, *(pod for pod, _ in running if pod.uid in cluster.social)]
        self._marks = self._asked(ours)
        self._guards = [(guard, self._id(("guard", guard))) for guard in self._guarding(ours)]
        self._ports = {r for pod in ours for r in pod.requests if r.startswith("port/")}
        self._terms = {term: self._id(("nodes", term)) for pod in ours for term in _sets(pod)}
        self._hard = self._marks or self._guards
        budgets = self._budgets()
        self._first: set[Guard] = set()
        self._dealt: dict[tuple[int, ...], _Deal] = {}
        seen = [self._pod(pod, "", tried, fixed) for pod in waiting]
        placed = [self._pod(pod, node, tried, fixed) for pod, node in running]
        alive = cluster.pods.keys()
        if len(self._pods) > 2 * len(alive) + 100:
            self._pods = {uid: made for uid, made in self._pods.items() if uid in alive}
        return View(tuple(self._node(m) for m in cluster.machines.values()), tuple(placed), tuple(seen), budgets)

    def _id(self, what: object) -> int:
        return self._ids.setdefault(what, len(self._ids))

    def _asked(self, pods: Iterable[Asked]) -> dict[tuple[Key, ...], str]:
        """What terms of affinity pick, and the label that says so."""
        found: dict[tuple[Key, ...], str] = {}
        for pod in pods:
            if pod.affine:
                key = key_of(*pod.affine)
                found[key] = f"=pods/{self._id(key)}"
            for term in (*pod.anti, *pod.liked, *pod.disliked):
                key = key_of(term)
                found[key] = f"=pods/{self._id(key)}"
        return found

    def _guarding(self, pods: Iterable[Asked]) -> list[Guard]:
        found = dict.fromkeys((key_of(term), term.topology) for pod in pods for term in pod.anti)
        return list(found | dict.fromkeys(self._room.guards()))

    def _budgets(self) -> dict[str, tuple[Mapping[str, str], int]]:
        return {name: ({f"=budget/{name}": ""}, budget.allowed) for name, budget in self._cluster.budgets.items()}

    def _pod(self, pod: Asked, node: str, tried: set[str], fixed: set[str]) -> Pod:
        cluster = self._cluster
        movable = bool(node) and pod.uid not in fixed and bool(pod.owner) and not (pod.daemon or pod.leaving)
        state = (
            pod.version, node, movable, bool(self._hard), len(cluster.budgets), cluster.priority(pod), pod.uid in tried,
        )  # fmt: skip
        changing = self._hard or cluster.budgets or (pod.spread and not node) or _sets(pod)
        known = self._pods.get(pod.uid)
        if known is not None and known[0] == state and not changing:
            return known[1]
        labels = dict(pod.labels)
        rules: list[Rule] = []
        for key, label in self._marks.items():
            if cluster.picker.picks(key, pod):
                labels[label] = ""
        for (key, topology), number in self._guards:
            if any(key_of(term) == key and term.topology == topology for term in pod.anti):
                labels[f"=guard/{number}"] = ""
            if cluster.picker.picks(key, pod):
                rules.append(Rule(f"=guard/{number}", "Exists", pods=True, anti=True, topology=topology))
        for budget in cluster.budgets_of(pod) if cluster.budgets and node else ():
            labels[f"=budget/{budget.name}"] = ""
        rules += self._rules(pod)
        if not node:
            rules += self._even(pod, pod.uid not in tried)
        made = Pod(
            name=pod.name, requests=natural(pod.requests), priority=cluster.priority(pod), node=node, labels=labels,
            selector=pod.selector, rules=tuple(rules), tolerations=pod.tolerations, group=pod.group, movable=movable,
            preempts=cluster.preempts(pod), arrival=pod.made,
        )  # fmt: skip
        self._pods[pod.uid] = (state, made)
        return made

    def _rules(self, pod: Asked) -> list[Rule]:
        rules: list[Rule] = []
        if pod.terms is not None:
            rules += self._lines(pod.terms, 0)
        for wish in pod.preferred:
            rules += self._lines((wish,), wish.weight)
        if pod.affine:
            company = key_of(*pod.affine)
            for term in pod.affine:
                guard = (company, term.topology)
                alone = not self._room.counts(*guard).total() and self._cluster.picker.picks(company, pod)
                if alone and guard not in self._first:
                    self._first.add(guard)
                    rules.append(Rule(term.topology, "Exists"))
                else:
                    rules.append(Rule(f"=pods/{self._id(company)}", "Exists", pods=True, topology=term.topology))
        rules += [self._company(term, anti=True) for term in (*pod.anti, *pod.disliked)]
        return rules + [self._company(term, anti=False) for term in pod.liked]

    def _company(self, term: PodTerm, *, anti: bool) -> Rule:
        label = f"=pods/{self._id(key_of(term))}"
        return Rule(label, "Exists", weight=term.weight, pods=True, anti=anti, topology=term.topology)

    def _lines(self, terms: tuple[Term, ...], weight: int) -> list[Rule]:
        """A node selector as rules: its lines, or a label of the nodes that meet it."""
        if len(terms) == 1 and terms[0].lines and not any(line.field for line in terms[0].lines):
            lines: tuple[Requirement, ...] = terms[0].lines
            if not weight or len(lines) == 1:
                return [Rule(line.key, line.operator, line.values, weight) for line in lines]
        return [Rule(f"=nodes/{self._id(('nodes', terms))}", "Exists", weight=weight)]

    def _even(self, pod: Asked, steered: bool) -> list[Rule]:
        """Where a pod keeps its spread even: dealt out in turn, or all that is allowed now."""
        levels = [(spread, self._room.level(pod, spread)) for spread in pod.spread]
        levels.sort(key=lambda found: len(found[1]))
        dealt: list[str] = []
        if steered and levels:
            which = tuple(id(counts) for _, counts in levels[:2])
            deal = self._dealt.get(which)
            if deal is None:
                topologies = [spread.topology for spread, _ in levels[:2]]
                machines = self._cluster.machines.values()
                deal = self._dealt[which] = _Deal([counts for _, counts in levels[:2]], topologies, machines)
            dealt = deal.next()
        return [
            Rule(s.topology, "In", (dealt[k],) if k < len(dealt) else tuple(sorted(self._room.allowed(pod, s))))
            for k, (s, _) in enumerate(levels)
        ]

    def _node(self, machine: Machine) -> Node:
        state = (machine.version, tuple(self._terms.values()), tuple(sorted(self._ports)))
        known = self._nodes.get(machine.name)
        if known is not None and known[0] == state:
            return known[1]
        labels = dict(machine.labels)
        for terms, number in self._terms.items():
            if any(term.met(machine.labels, machine.name) for term in terms):
                labels[f"=nodes/{number}"] = ""
        capacity = natural(machine.capacity) | dict.fromkeys(self._ports, 1.0)
        made = Node(machine.name, capacity, labels, machine.taints, machine.ready)
        self._nodes[machine.name] = (state, made)
        return made


def _sets(pod: Asked) -> list[tuple[Term, ...]]:
    """Node selectors of a pod that are more than plain lines."""
    found = [pod.terms] if pod.terms is not None else []
    found += [(term,) for term in pod.preferred]
    return [
        terms for terms in found
        if len(terms) != 1 or not terms[0].lines or any(line.field for line in terms[0].lines)
        or (terms[0].weight and len(terms[0].lines) > 1)
    ]  # fmt: skip


class _Deal:
    """Deals pods of one spread out: always to the domain that has fewest, and within it likewise."""

    def __init__(self, counts: list[Counter[str]], topologies: list[str], machines: Iterable[Machine]) -> None:
        self._outer = [(count, domain) for domain, count in counts[0].items()]
        heapq.heapify(self._outer)
        self._inner: dict[str, list[tuple[int, str]]] = {}
        if len(counts) > 1:
            pairs = {(m.labels.get(topologies[0]), m.labels.get(topologies[1])) for m in machines}
            for outer, inner in sorted((o, i) for o, i in pairs if o is not None and i is not None):
                if outer in counts[0] and inner in counts[1]:
                    self._inner.setdefault(outer, []).append((counts[1][inner], inner))
            for heap in self._inner.values():
                heapq.heapify(heap)

    def next(self) -> list[str]:
        """Returns the domains that the next pod goes to."""
        if not self._outer:
            return []
        count, domain = self._outer[0]
        heapq.heapreplace(self._outer, (count + 1, domain))
        found = [domain]
        if heap := self._inner.get(domain):
            inner_count, inner = heap[0]
            heapq.heapreplace(heap, (inner_count + 1, inner))
            found.append(inner)
        return found
