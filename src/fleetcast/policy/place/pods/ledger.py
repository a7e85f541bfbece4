"""What is free on each node, as columns: what policies read, and what worlds and the check write on.

Amounts are whole numbers (thousandths of a core, bytes, devices; thousandths of a device where pods share one), rounded
up for what pods ask and down for what nodes have, so that sums are exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fleetcast.base.errors import PolicyError
from fleetcast.policy.place.pods import GPU, Node, Pod, Rule, View
from fleetcast.policy.place.pods.match import admits, company, domain, repelling, required, selects

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHOLE = 1000
"""Thousandths of a device."""


class Need(NamedTuple):
    """What a pod asks for.

    Attributes:
        amount: i8[r], by resource.
        share: thousandths of one device that it shares; 0 = it shares none.
        absent: a resource that it asks for and no node has; "" = there is none.
    """

    amount: NDArray[np.int64]
    share: int
    absent: str


class Laid(NamedTuple):
    """Where a pod lies: on the node of that number, on those devices."""

    pod: Pod
    node: int
    devices: tuple[int, ...]


def amount(resource: str, value: float, *, up: bool) -> int:
    """Returns a quantity in the ledger's whole numbers."""
    scaled = value * 1000 if resource == "cpu" else value
    near = round(scaled)
    if abs(scaled - near) <= 1e-6:
        return near
    return math.ceil(scaled) if up else math.floor(scaled)


class Ledger:
    """Nodes, what is free there, and which pods lie where.

    Attributes:
        nodes: of the cluster.
        number: name of a node -> its number.
        resources: names of the columns.
        capacity: i8[n, r].
        free: i8[n, r]; of ``GPU``, the devices that nobody has or shares.
        devices: i8[n, g], thousandths free of each device, -1 where there is none.
        laid: name of a pod -> where it lies.
        touched: names of pods that were laid or taken away since the ledger was made or `settle` was called.
        repelling: rule of pods that bars others -> i8[n], how many pods on each node have it.
    """

    def __init__(self, nodes: tuple[Node, ...], resources: Iterable[str] = ()) -> None:
        self.nodes = nodes
        self.number = {node.name: i for i, node in enumerate(nodes)}
        names = dict.fromkeys(name for node in nodes for name in node.capacity) | dict.fromkeys(resources)
        first = [name for name in ("cpu", "memory", GPU) if name in names]
        self.resources = (*first, *sorted(name for name in names if name not in first))
        self.column = {name: i for i, name in enumerate(self.resources)}
        self.capacity = np.array(
            [[amount(r, node.capacity.get(r, 0.0), up=False) for r in self.resources] for node in nodes], dtype=np.int64
        ).reshape(len(nodes), len(self.resources))
        self.free = self.capacity.copy()
        self.gpu = self.column.get(GPU, -1)
        count = self.capacity[:, self.gpu] if self.gpu >= 0 else np.zeros(len(nodes), dtype=np.int64)
        most = int(count.max(initial=0))
        self.devices = np.where(np.arange(most) < count[:, None], WHOLE, -1).astype(np.int64)
        self.laid: dict[str, Laid] = {}
        self.touched: dict[str, None] = {}
        self.ready = np.array([node.ready for node in nodes], dtype=bool)
        self._needs: dict[str, tuple[Pod, Need]] = {}
        self._masks: dict[object, NDArray[np.bool_]] = {}
        self._domains: dict[str, NDArray[np.int64]] = {}
        self._matching: dict[Rule, NDArray[np.int64]] = {}
        self.repelling: dict[Rule, NDArray[np.int64]] = {}

    @classmethod
    def of(cls, view: View) -> Ledger:
        """Returns the ledger of a view."""
        found = cls(view.nodes)
        for pod in view.running:
            if pod.node in found.number:
                found.place(pod, found.number[pod.node], pod.gpus or None)
        return found.settle()

    def settle(self) -> Ledger:
        """Forgets which pods were touched; returns the ledger."""
        self.touched = {}
        return self

    def copy(self) -> Ledger:
        """Returns a ledger that can be written on; what never changes is shared."""
        found: Ledger = object.__new__(Ledger)
        found.__dict__ |= self.__dict__
        found.free, found.devices, found.laid = self.free.copy(), self.devices.copy(), self.laid.copy()
        found.touched = self.touched.copy()
        found._matching = {rule: counts.copy() for rule, counts in self._matching.items()}
        found.repelling = {rule: counts.copy() for rule, counts in self.repelling.items()}
        return found

    def need(self, pod: Pod) -> Need:
        """Returns what a pod asks for."""
        known = self._needs.get(pod.name)
        if known is not None and known[0] is pod:
            return known[1]
        found = np.zeros(len(self.resources), dtype=np.int64)
        absent = ""
        for name, value in pod.requests.items():
            if name in self.column:
                found[self.column[name]] = amount(name, value, up=True)
            elif value > 0:
                absent = absent or name
        share = math.ceil(pod.gpu_share * WHOLE - 1e-6)
        if share and self.gpu < 0:
            absent = absent or GPU
        need = Need(found, share, absent)
        self._needs[pod.name] = (pod, need)
        return need

    def allowed(self, pod: Pod) -> NDArray[np.bool_]:
        """Returns which nodes are ready and let the pod on: selector, required rules about nodes, taints."""
        key = (tuple(sorted(pod.selector.items())), required(pod), pod.tolerations)
        mask = self._masks.get(key)
        if mask is None:
            rules = (*(Rule(k, values=(v,)) for k, v in key[0]), *key[1])
            mask = self.ready & np.array(
                [
                    repelling(node, pod.tolerations) is None and all(admits(node, rule) for rule in rules)
                    for node in self.nodes
                ],
                dtype=bool,
            )
            self._masks[key] = mask
        return mask

    def room(self, pod: Pod) -> NDArray[np.bool_]:
        """Returns on which nodes enough is free."""
        need = self.need(pod)
        if need.absent:
            return np.zeros(len(self.nodes), dtype=bool)
        short = (self.free < need.amount).any(axis=1)
        if need.share:
            short |= self.devices.max(axis=1, initial=-1) < need.share
        return np.logical_not(short)

    def domains(self, topology: str) -> NDArray[np.int64]:
        """Returns the number of each node's domain, -1 where it is in none."""
        found = self._domains.get(topology)
        if found is None:
            names: dict[str, int] = {}
            labels = [domain(node, topology) for node in self.nodes]
            found = np.array([-1 if name is None else names.setdefault(name, len(names)) for name in labels])
            self._domains[topology] = found
        return found

    def _around(self, counts: NDArray[np.int64], topology: str) -> NDArray[np.int64]:
        """How many are in each node's domain; 0 where it is in none."""
        where = self.domains(topology)
        inside = where >= 0
        sums = np.bincount(where[inside], counts[inside], minlength=1)
        return np.where(inside, sums[np.maximum(where, 0)], 0).astype(np.int64)

    def around(self, rule: Rule) -> NDArray[np.int64]:
        """Returns how many pods that a rule means are in each node's domain."""
        return self._around(self.matching(rule), rule.topology)

    def owners(self, rule: Rule) -> NDArray[np.int64]:
        """Returns how many pods in each node's domain have a rule that bars others."""
        counts = self.repelling.get(rule)
        return np.zeros(len(self.nodes), dtype=np.int64) if counts is None else self._around(counts, rule.topology)

    def matching(self, rule: Rule) -> NDArray[np.int64]:
        """Returns how many pods on each node a rule means."""
        counts = self._matching.get(rule)
        if counts is None:
            counts = np.zeros(len(self.nodes), dtype=np.int64)
            for pod, node, _ in self.laid.values():
                counts[node] += selects(rule, pod.labels)
            self._matching[rule] = counts
        return counts

    def welcome(self, pod: Pod) -> NDArray[np.bool_]:
        """Returns on which nodes the pod's required rules about pods, and those of pods there, hold.

        As in Kubernetes, a pod that its own rule means may be the first of its kind.
        """
        mask = np.ones(len(self.nodes), dtype=bool)
        for rule in company(pod):
            counts = self.matching(rule)
            around = self.around(rule)
            if rule.anti:
                mask &= around == 0
            elif counts.any() or not selects(rule, pod.labels):
                mask &= around > 0
            else:
                mask &= self.domains(rule.topology) >= 0
        for rule in self.repelling:
            if selects(rule, pod.labels):
                mask &= self.owners(rule) == 0
        return mask

    def fits(self, pod: Pod) -> NDArray[np.bool_]:
        """Returns on which nodes the pod may lie now."""
        mask = self.room(pod) & self.allowed(pod)
        return mask & self.welcome(pod) if pod.rules or self.repelling else mask

    def fits_on(self, pod: Pod, node: int) -> bool:
        """Returns whether the pod may lie on one node now, without a look at the others."""
        need = self.need(pod)
        if need.absent or not self.allowed(pod)[node] or (self.free[node] < need.amount).any():
            return False
        if need.share and self.devices[node].max() < need.share:
            return False
        return not (pod.rules or self.repelling) or bool(self.welcome(pod)[node])

    def choose(self, pod: Pod, node: int) -> tuple[int, ...]:
        """Returns the devices that a pod gets on a node: free ones, or of shared ones the fullest with room."""
        need = self.need(pod)
        row = self.devices[node]
        if need.share:
            room = np.flatnonzero(row >= need.share)
            return (int(room[np.argmin(row[room])]),) if len(room) else ()
        whole = int(need.amount[self.gpu]) if self.gpu >= 0 else 0
        return tuple(int(g) for g in np.flatnonzero(row == WHOLE)[:whole]) if whole else ()

    def place(self, pod: Pod, node: int, devices: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Lays a pod on a node; rows may fall below 0, which who asks must look at.

        Args:
            pod: whoever lies nowhere yet.
            node: its number.
            devices: that it has or shares; None: `choose`.

        Raises:
            PolicyError: it lies somewhere already, or names devices that the node has not.
        """
        if pod.name in self.laid:
            raise PolicyError(f"pod '{pod.name}' lies on node '{self.nodes[self.laid[pod.name].node].name}' already")
        need = self.need(pod)
        devices = self.choose(pod, node) if devices is None else tuple(devices)
        self.free[node] -= need.amount
        if need.share or devices:
            row = self.devices[node]
            if any(not 0 <= g < len(row) or row[g] < 0 for g in devices):
                problem = f"pod '{pod.name}': node '{self.nodes[node].name}' has no devices {list(devices)}"
                raise PolicyError(f"{problem}; it has {int((row >= 0).sum())}")
            for g in devices:
                row[g] -= need.share or WHOLE
            self.free[node, self.gpu] = int((row == WHOLE).sum())
        self.laid[pod.name] = Laid(pod, node, devices)
        self.touched[pod.name] = None
        self._count(pod, node, 1)
        return devices

    def remove(self, name: str) -> Laid:
        """Takes a pod away; returns where it lay."""
        laid = self.laid.pop(name)
        self.touched[name] = None
        pod, node, devices = laid
        need = self.need(pod)
        self.free[node] += need.amount
        if need.share or devices:
            for g in devices:
                self.devices[node, g] += need.share or WHOLE
            self.free[node, self.gpu] = int((self.devices[node] == WHOLE).sum())
        self._count(pod, node, -1)
        return laid

    def _count(self, pod: Pod, node: int, by: int) -> None:
        for rule, counts in self._matching.items():
            if selects(rule, pod.labels):
                counts[node] += by
        for rule in company(pod) if pod.rules else ():
            if rule.anti:
                if rule not in self.repelling:
                    self.repelling[rule] = np.zeros(len(self.nodes), dtype=np.int64)
                self.repelling[rule][node] += by

    def by_node(self) -> list[list[Pod]]:
        """Returns the pods of each node, in the order in which they were laid there."""
        found: list[list[Pod]] = [[] for _ in self.nodes]
        for pod, node, _ in self.laid.values():
            found[node].append(pod)
        return found

    @property
    def plain(self) -> bool:
        """Whether no pod there has a rule about other pods, so that nodes do not depend on each other."""
        return not any(counts.any() for counts in self.repelling.values())


def totals(ledger: Ledger) -> Mapping[str, float]:
    """Returns what share of each resource is taken, 0 to 1; of devices, shares count as shares."""
    found = {}
    for i, name in enumerate(ledger.resources):
        have = float(ledger.capacity[:, i].sum())
        used = have - float(ledger.free[:, i].sum())
        if i == ledger.gpu:
            used = have - float(np.maximum(ledger.devices, 0).sum()) / WHOLE
        found[name] = used / have if have else 0.0
    return found
