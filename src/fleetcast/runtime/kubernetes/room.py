"""Whether a pod may lie on a node: the filters of Kubernetes, exactly, on whole numbers.

A policy sees floats and one protocol for all clusters; what it decides is asked here before anything is bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fleetcast.policy.place.pods.match import tolerated
from fleetcast.runtime.kubernetes.quantity import show
from fleetcast.runtime.kubernetes.reading import Asked, Machine, PodTerm, Spread
from fleetcast.runtime.kubernetes.selecting import Selector

__all__ = ["Guard", "Key", "Picker", "Room", "allows", "key_of"]

Key = tuple[Selector | None, tuple[str, ...], Selector | None]
"""Which pods a term picks: selector, namespaces, selector of namespaces."""
Guard = tuple[tuple[Key, ...], str]
"""Which pods, and the topology in whose domains they are counted or kept off."""


class Picker:
    """Says which pods a term picks; asked once for all pods of equal labels."""

    def __init__(self, namespaces: Mapping[str, Mapping[str, str]]) -> None:
        self.namespaces = namespaces
        self._known: dict[Key, dict[int, bool]] = {}

    def picks(self, keys: tuple[Key, ...], pod: Asked) -> bool:
        """Returns whether all terms pick the pod."""
        return all(self._picks(key, pod) for key in keys)

    def _picks(self, key: Key, pod: Asked) -> bool:
        known = self._known.setdefault(key, {})
        found = known.get(pod.kin) if pod.kin >= 0 else None
        if found is None:
            selector, named, wider = key
            inside = pod.namespace in named or (
                wider is not None and all(line.met(self.namespaces.get(pod.namespace, {})) for line in wider)
            )
            found = inside and selector is not None and all(line.met(pod.labels) for line in selector)
            if pod.kin >= 0:
                known[pod.kin] = found
        return found


def key_of(*terms: PodTerm) -> tuple[Key, ...]:
    """Returns which pods terms pick together: a pod counts if it meets all of them."""
    return tuple((term.selector, term.namespaces, term.namespace_selector) for term in terms)


def allows(pod: Asked, machine: Machine) -> str:
    """Returns why a node's labels and taints keep a pod off, or ""."""
    if not machine.ready:
        return "is not ready"
    for taint in machine.taints:
        if taint.effect != "PreferNoSchedule" and not tolerated(taint, pod.tolerations):
            return f"has taint {taint.key}{'=' + taint.value if taint.value else ''}:{taint.effect}"
    for label, value in pod.selector.items():
        if machine.labels.get(label) != value:
            return f"lacks label {label}={value}"
    if pod.terms is not None and not any(term.met(machine.labels, machine.name) for term in pod.terms):
        return "does not meet the pod's node affinity"
    return ""


@dataclass(slots=True)
class _Level:
    """Counts of one spread constraint: pods by domain, on the nodes that it looks at."""

    key: tuple[Key, ...]
    domain: dict[str, str]
    counts: Counter[str] = field(default_factory=Counter)


class Room:
    """What is left on nodes, and who lies where; `take` and `leave` keep it up to date.

    Args:
        machines: by name.
        used: by node and resource, of ``placed``; not written to.
        placed: pods and where they lie.
        picker: of pods by terms.
    """

    def __init__(
        self, machines: Mapping[str, Machine], used: Mapping[str, Mapping[str, int]],
        placed: Iterable[tuple[Asked, str]], picker: Picker,
    ) -> None:  # fmt: skip
        self.machines, self.picker = machines, picker
        self._given = used
        self._used: dict[str, dict[str, int]] = {}
        self._placed: dict[str, tuple[Asked, str]] = {pod.uid: (pod, node) for pod, node in placed}
        self._counts: dict[Guard, Counter[str]] = {}
        self._levels: dict[tuple[object, ...], _Level] = {}
        self._guards: dict[Guard, Counter[str]] = {}
        for pod, node in self._placed.values():
            if pod.anti:
                self._guard(pod, node, 1)

    def used(self, node: str) -> Mapping[str, int]:
        """Returns what is taken of a node, by resource."""
        return self._used.get(node) or self._given.get(node, {})

    def take(self, pod: Asked, node: str) -> None:
        """Puts a pod on a node."""
        self._placed[pod.uid] = (pod, node)
        self._count(pod, node, 1)

    def leave(self, pod: Asked) -> None:
        """Takes a pod off its node."""
        if (found := self._placed.pop(pod.uid, None)) is not None:
            self._count(pod, found[1], -1)

    def guards(self) -> Iterable[Guard]:
        """Returns the required anti-affinities of the pods that lie somewhere: (whom they keep off, topology)."""
        return [guard for guard, domains in self._guards.items() if domains.total()]

    def why(self, pod: Asked, node: str) -> str:
        """Returns why a pod cannot lie on a node, or ""."""
        machine = self.machines.get(node)
        if machine is None:
            return "is gone"
        if reason := allows(pod, machine):
            return reason
        used = self.used(node)
        for resource, need in pod.requests.items():
            have = 1 if resource.startswith("port/") else machine.capacity.get(resource, 0)
            left = have - used.get(resource, 0)
            if need > left:
                spare, whole = show(resource, max(0, left)), show(resource, have)
                return f"lacks {resource}: needs {show(resource, need)}, {spare} of {whole} left"
        return self._company(pod, machine)

    def _company(self, pod: Asked, machine: Machine) -> str:
        """Why pods that lie elsewhere or here keep a pod off a node."""
        for guard, domains in self._guards.items():
            domain = machine.labels.get(guard[1])
            if domain is not None and domains[domain] > 0 and self.picker.picks(guard[0], pod):
                return f"is kept by a pod's anti-affinity in {guard[1]}={domain}"
        for term in pod.anti:
            domain = machine.labels.get(term.topology)
            if domain is not None and self.counts(key_of(term), term.topology)[domain] > 0:
                return f"has pods that the pod's anti-affinity avoids in {term.topology}={domain}"
        company = key_of(*pod.affine)
        for term in pod.affine:
            domain = machine.labels.get(term.topology)
            counts = self.counts(company, term.topology)
            # The first of those that seek their own kind may lie anywhere.
            if domain is None or (counts[domain] <= 0 and (counts.total() or not self.picker.picks(company, pod))):
                return f"has no pod that the pod's affinity asks for in {term.topology}={domain}"
        for spread in pod.spread:
            domain = machine.labels.get(spread.topology)
            if domain is None or domain not in self.allowed(pod, spread):
                return f"would make the spread over {spread.topology} uneven by more than {spread.skew}"
        return ""

    def counts(self, key: tuple[Key, ...], topology: str) -> Counter[str]:
        """Returns how many pods a term picks, by domain."""
        found = self._counts.get((key, topology))
        if found is None:
            found = self._counts[key, topology] = Counter()
            for pod, node in self._placed.values():
                if node in self.machines and self.picker.picks(key, pod):
                    domain = self.machines[node].labels.get(topology)
                    if domain is not None:
                        found[domain] += 1
        return found

    def level(self, pod: Asked, spread: Spread) -> Counter[str]:
        """Returns how many pods of a spread constraint lie in each domain that it looks at."""
        return self._level(pod, spread).counts

    def allowed(self, pod: Asked, spread: Spread) -> set[str]:
        """Returns the domains in which one more such pod keeps the spread even."""
        level = self._level(pod, spread)
        counts = level.counts
        least = min(counts.values(), default=0) if len(counts) >= spread.least else 0
        mine = int(self.picker.picks(level.key, pod))
        return {domain for domain, count in counts.items() if count + mine - least <= spread.skew}

    def _level(self, pod: Asked, spread: Spread) -> _Level:
        places = (tuple(sorted(pod.selector.items())), pod.terms) if spread.honour_affinity else None
        tolerations = pod.tolerations if spread.honour_taints else None
        which = (spread, pod.namespace, places, tolerations)
        if (found := self._levels.get(which)) is not None:
            return found
        domain = {}
        for machine in self.machines.values():
            if all(s.topology in machine.labels for s in pod.spread) and self._looks(pod, spread, machine):
                domain[machine.name] = machine.labels[spread.topology]
        found = self._levels[which] = _Level(((spread.selector, (pod.namespace,), None),), domain)
        found.counts.update(dict.fromkeys(domain.values(), 0))
        for other, node in self._placed.values():
            if node in domain and not other.leaving and self.picker.picks(found.key, other):
                found.counts[domain[node]] += 1
        return found

    def _looks(self, pod: Asked, spread: Spread, machine: Machine) -> bool:
        if spread.honour_affinity:
            if any(machine.labels.get(k) != v for k, v in pod.selector.items()):
                return False
            if pod.terms is not None and not any(t.met(machine.labels, machine.name) for t in pod.terms):
                return False
        return not spread.honour_taints or all(
            t.effect == "PreferNoSchedule" or tolerated(t, pod.tolerations) for t in machine.taints
        )

    def _guard(self, pod: Asked, node: str, change: int) -> None:
        for term in pod.anti:
            domain = self.machines[node].labels.get(term.topology) if node in self.machines else None
            if domain is not None:
                self._guards.setdefault((key_of(term), term.topology), Counter())[domain] += change

    def _count(self, pod: Asked, node: str, change: int) -> None:
        used = self._used.get(node)
        if used is None:
            used = self._used[node] = dict(self._given.get(node, {}))
        for resource, amount in pod.requests.items():
            used[resource] = used.get(resource, 0) + change * amount
        self._guard(pod, node, change)
        if node not in self.machines:
            return
        for (key, topology), counts in self._counts.items():
            domain = self.machines[node].labels.get(topology)
            if domain is not None and self.picker.picks(key, pod):
                counts[domain] += change
        for level in self._levels.values():
            if node in level.domain and not pod.leaving and self.picker.picks(level.key, pod):
                level.counts[level.domain[node]] += change
