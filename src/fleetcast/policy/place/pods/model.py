"""Some nodes, their pods and some that wait as a CP-SAT model: who lies where, tier by tier, with the fewest moves.

Equal pods are one integer a node instead of a column of Booleans each, equal nodes are ordered, and a value that no
placement could use is not in a variable's domain. Whatever is not in the model stays where it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fleetcast.policy.place.pods import Pod, Rule, View
from fleetcast.policy.place.pods.ledger import WHOLE, Ledger
from fleetcast.policy.place.pods.match import company, selects
from fleetcast.policy.place.pods.packing import covered
from fleetcast.policy.place.pods.solver import cp_model

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Goal(NamedTuple):
    """What is maximised: of a tier "kept" or "placed", of all "stays"; its value now and the most there can be."""

    tier: int
    what: str
    sum: Any
    now: int
    most: int


@dataclass
class Kind:
    """Equal pods of a model.

    Attributes:
        pods: they.
        origin: i8[j], how many of them run on each of the model's nodes.
        runs: how many of them run anywhere.
        x: by node of the model, how many lie there: a variable, or the number 0.
        placed: how many lie somewhere.
        kept: how many of those that run still do.
    """

    pods: list[Pod]
    origin: NDArray[np.int64]
    runs: int
    x: list[Any] = field(default_factory=list)
    placed: Any = 0
    kept: Any = 0

    @property
    def tier(self) -> int:
        """Their priority."""
        return self.pods[0].priority


class Model:
    """Nodes and pods that may be placed anew.

    Args:
        view: the cluster before.
        ledger: who lies where now.
        nodes: numbers of the nodes of the model.
        waiting: pods that lie nowhere now and may be placed.
        origin: name of a pod that ran in the view -> number of its node there.
        equals: whether a pod that runs may leave for one of its own priority.
        aggregate: whether equal pods are counted instead of told apart.

    Attributes:
        slow: s of one core that a second of the solver's deterministic time takes, about.
        variables: how many.
    """

    def __init__(
        self, view: View, ledger: Ledger, nodes: Sequence[int], waiting: Sequence[Pod], origin: Mapping[str, int],
        *, equals: bool = False, aggregate: bool = True,
    ) -> None:  # fmt: skip
        self.cp = cp_model()
        self.model = self.cp.CpModel()
        self.view, self.ledger, self.nodes, self.origin, self.equals = view, ledger, list(nodes), origin, equals
        inside = set(self.nodes)
        self.trimmed = ledger.copy()
        lie = [laid.pod for laid in ledger.laid.values() if laid.node in inside and laid.pod.movable]
        for pod in lie:
            self.trimmed.remove(pod.name)
        self.free = self.trimmed.free[self.nodes]
        self.shares = any(ledger.need(p).share for p in (*lie, *waiting)) or bool(
            ((self.trimmed.devices[self.nodes] >= 0) & (self.trimmed.devices[self.nodes] < WHOLE)).any()
        )
        self.rules = {r for p in (*lie, *waiting) for r in company(p)} | {
            r for r, owners in ledger.repelling.items() if owners.any()
        }
        self.kinds = self._kinds([*lie, *waiting], aggregate)
        self.slow = 1.7 if any(len(kind.pods) > 1 for kind in self.kinds) else 1.1
        self.variables = 0
        self._variables()
        self._resources()
        if self.shares:
            self._devices()
        self._company()
        self._gangs()
        self._budgets()
        if aggregate:
            self._symmetry()

    def _kinds(self, pods: Sequence[Pod], aggregate: bool) -> list[Kind]:
        found: dict[object, Kind] = {}
        where = {node: j for j, node in enumerate(self.nodes)}
        for pod in pods:
            need = self.ledger.need(pod)
            alone = (
                not aggregate or pod.group or company(pod) or need.share or covered(self.view, pod)
                or any(selects(r, pod.labels) for r in self.rules)
                or (self.shares and self.ledger.gpu >= 0 and need.amount[self.ledger.gpu])
            )  # fmt: skip
            key: object = pod.name
            if not alone:
                key = (need.amount.tobytes(), pod.priority, pod.preempts, id(self.ledger.allowed(pod)))
            kind = found.setdefault(key, Kind([], np.zeros(len(self.nodes), dtype=np.int64), 0))
            kind.pods.append(pod)
            came = self.origin.get(pod.name, -1)
            kind.runs += came >= 0
            if came in where:
                kind.origin[where[came]] += 1
        return list(found.values())

    def _variables(self) -> None:
        for k, kind in enumerate(self.kinds):
            pod, count = kind.pods[0], len(kind.pods)
            need = self.ledger.need(pod)
            allowed = self.ledger.allowed(pod)[self.nodes] | (kind.origin > 0)
            fit = np.where(need.amount > 0, np.maximum(self.free, 0) // np.maximum(need.amount, 1), count)
            per = fit.min(axis=1, initial=0 if need.absent else count)
            if need.share:
                per = np.minimum(per, (self.trimmed.devices[self.nodes].max(axis=1) >= need.share).astype(np.int64))
            most = np.where(allowed, np.minimum(per, count), 0)
            # a pod that was there stays possible even where more is taken than there is
            most = np.maximum(most, np.minimum(kind.origin, count))
            for j, bound in enumerate(most.tolist()):
                kind.x.append(self.model.new_int_var(0, bound, f"x{k}_{j}") if bound else 0)
                self.variables += bound > 0
            kind.placed = sum(kind.x)
            if count > 1:
                self.model.add(kind.placed <= count)
            elif any(not isinstance(x, int) for x in kind.x):
                self.model.add_at_most_one([x for x in kind.x if not isinstance(x, int)])
            kind.kept = kind.placed
            if kind.runs < count:
                if kind.runs:
                    kind.kept = self.model.new_int_var(0, kind.runs, f"kept{k}")
                    self.model.add(kind.kept <= kind.placed)
                else:
                    kind.kept = 0

    def _resources(self) -> None:
        amounts = [self.ledger.need(kind.pods[0]).amount.tolist() for kind in self.kinds]
        for j in range(len(self.nodes)):
            for r in range(self.free.shape[1]):
                if self.shares and r == self.ledger.gpu:
                    continue
                used = [(a[r], kind.x[j]) for a, kind in zip(amounts, self.kinds, strict=True) if a[r]]
                used = [(a, x) for a, x in used if not isinstance(x, int)]
                if used:
                    self.model.add(sum(a * x for a, x in used) <= max(int(self.free[j, r]), 0))

    def _devices(self) -> None:
        """Which device of its node each pod shares; whole devices are those that nobody shares."""
        self.device: dict[tuple[int, int, int], Any] = {}
        gpu = self.ledger.gpu
        for j, node in enumerate(self.nodes):
            row = self.trimmed.devices[node]
            count = int((row >= 0).sum())
            shared = [self.model.new_bool_var(f"u{j}_{g}") for g in range(count)]
            whole = []
            load: list[list[Any]] = [[] for _ in range(count)]
            for k, kind in enumerate(self.kinds):
                if isinstance(kind.x[j], int):
                    continue
                pod = kind.pods[0]
                need = self.ledger.need(pod)
                # at home a pod keeps the devices that it has in the view
                stays = self.view.ledger.laid[pod.name].devices if kind.origin[j] else ()
                if need.share:
                    mine = []
                    for g in range(count):
                        if row[g] >= need.share and (not stays or g in stays):
                            y = self.model.new_bool_var(f"y{k}_{j}_{g}")
                            self.device[k, j, g] = y
                            mine.append(y)
                            load[g].append((need.share, y))
                            self.model.add_implication(y, shared[g])
                    self.model.add(sum(mine) == kind.x[j])
                elif gpu >= 0 and need.amount[gpu]:
                    whole.append((int(need.amount[gpu]), kind.x[j]))
                    for g in stays:  # whoever stays keeps the devices it has
                        self.model.add(kind.x[j] + shared[g] <= 1)
            for g in range(count):
                if row[g] < WHOLE:
                    self.model.add(shared[g] == 1)
                if load[g]:
                    self.model.add(sum(s * y for s, y in load[g]) <= int(row[g]))
            self.model.add(sum(w * x for w, x in whole) + sum(shared) <= count)

    def _company(self) -> None:
        for rule in self.rules:
            domains = self.ledger.domains(rule.topology)[self.nodes]
            outside = self.trimmed.around(rule)[self.nodes]
            owners = self.trimmed.owners(rule)[self.nodes]
            means = [kind for kind in self.kinds if selects(rule, kind.pods[0].labels)]
            for kind in means:  # pods outside the model that bar it
                for j in np.flatnonzero(owners).tolist():
                    self._forbid(kind, j)
            for kind in self.kinds:
                if rule in company(kind.pods[0]):
                    self._rule(rule, kind, [m for m in means if m is not kind], domains, outside)

    def _forbid(self, kind: Kind, j: int) -> None:
        if not isinstance(kind.x[j], int) and not kind.origin[j]:
            self.model.add(kind.x[j] == 0)

    def _rule(
        self, rule: Rule, kind: Kind, others: list[Kind], domains: NDArray[np.int64], outside: NDArray[np.int64]
    ) -> None:  # fmt: skip
        first: Any = 0
        if not rule.anti and selects(rule, kind.pods[0].labels) and not self.trimmed.matching(rule).any():
            first = self.model.new_bool_var("")  # the first of its kind needs nobody
            for other in others:
                self.model.add(other.placed == 0).only_enforce_if(first)
        for d in sorted(set(domains.tolist())):
            inside = np.flatnonzero(domains == d).tolist()
            mine = sum(kind.x[j] for j in inside)
            if isinstance(mine, int):
                continue
            if d < 0:
                if not rule.anti:
                    self.model.add(mine == 0)
            elif rule.anti:
                if outside[inside[0]]:
                    self.model.add(mine == 0)
                for other in others:
                    there = sum(other.x[j] for j in inside)
                    if not isinstance(there, int):
                        self.model.add(mine + there <= 1)
            elif not outside[inside[0]]:
                self.model.add(mine <= sum(other.x[j] for other in others for j in inside) + first)

    def _gangs(self) -> None:
        gangs: dict[str, list[Kind]] = {}
        for kind in self.kinds:
            if kind.pods[0].group:
                gangs.setdefault(kind.pods[0].group, []).append(kind)
        members = Counter(p.group for p in (*self.view.running, *self.view.waiting) if p.group) if gangs else Counter()
        for group, kinds in gangs.items():
            if len(kinds) < members[group]:  # some are elsewhere: nobody comes, nobody goes
                for kind in kinds:
                    self.model.add(kind.placed == int(kind.pods[0].name in self.ledger.laid))
            for a, b in pairwise(kinds):
                self.model.add(a.placed == b.placed)

    def _budgets(self) -> None:
        for labels, allowed in self.view.budgets.values():
            gone: Any = 0
            for pod in self.view.running:
                laid = self.ledger.laid.get(pod.name)
                if all(pod.labels.get(k) == v for k, v in labels.items()):
                    gone += laid is None or laid.node != self.origin.get(pod.name, -1)
            mine = [k for k in self.kinds if k.runs and all(k.pods[0].labels.get(a) == b for a, b in labels.items())]
            if not mine:
                continue
            for kind in mine:
                laid = self.ledger.laid.get(kind.pods[0].name)
                gone -= laid is None or laid.node != self.origin[kind.pods[0].name]
            self.model.add(sum(1 - self._stay(kind) for kind in mine) <= max(allowed - gone, 0))

    def _stay(self, kind: Kind) -> Any:
        return sum(x for x, was in zip(kind.x, kind.origin.tolist(), strict=True) if was)

    def _symmetry(self) -> None:
        """Orders nodes that are equal in everything: the fuller first."""
        if self.rules or self.shares:
            return
        alike: dict[bytes, list[int]] = {}
        for j, node in enumerate(self.nodes):
            masks = bytes(bool(self.ledger.allowed(kind.pods[0])[node]) for kind in self.kinds)
            ran = np.array([kind.origin[j] for kind in self.kinds]).tobytes()
            alike.setdefault(self.free[j].tobytes() + masks + ran, []).append(j)
        for same in alike.values():
            for a, b in pairwise(same):
                self.model.add(sum(k.x[a] for k in self.kinds) >= sum(k.x[b] for k in self.kinds))

    def goals(self) -> list[Goal]:
        """Returns what is maximised, in order: by tier pods kept, pods placed; then pods that stay where they run."""
        found: list[Goal] = []
        now = iter(self.goals_now())
        for tier in sorted({kind.tier for kind in self.kinds}, reverse=True):
            mine = [kind for kind in self.kinds if kind.tier == tier]
            if not self.equals:
                found.append(Goal(tier, "kept", sum(k.kept for k in mine), next(now), sum(k.runs for k in mine)))
            most = sum(len(k.pods) for k in mine)
            found.append(Goal(tier, "placed", sum(k.placed for k in mine), next(now), most))
        stays: list[Any] = []
        for kind in self.kinds:
            for x, was in zip(kind.x, kind.origin.tolist(), strict=True):
                if was and not isinstance(x, int):
                    if len(kind.pods) == 1:
                        stays.append(x)
                    else:
                        stay = self.model.new_int_var(0, was, "")
                        self.model.add(stay <= x)
                        stays.append(stay)
        most = sum(int(k.origin.sum()) for k in self.kinds)
        return [*found, Goal(0, "stays", sum(stays), next(now), most)]

    def goals_now(self) -> list[int]:
        """Returns the goals' values in the ledger that the model has now."""
        found = []
        laid = self.ledger.laid
        for tier in sorted({kind.tier for kind in self.kinds}, reverse=True):
            lie = [p for kind in self.kinds if kind.tier == tier for p in kind.pods if p.name in laid]
            found += [len(lie)] if self.equals else [sum(p.name in self.origin for p in lie), len(lie)]
        inside = set(self.nodes)
        stay = sum(
            self.origin.get(p.name, -1) == laid[p.name].node and laid[p.name].node in inside
            for kind in self.kinds for p in kind.pods if p.name in laid
        )  # fmt: skip
        return [*found, stay]

    def hint(self) -> None:
        """Tells the solver who lies where now."""
        where = {node: j for j, node in enumerate(self.nodes)}
        for kind in self.kinds:
            counts = Counter(where[laid.node] for p in kind.pods if (laid := self.ledger.laid.get(p.name)) is not None)
            for j, x in enumerate(kind.x):
                if not isinstance(x, int):
                    self.model.add_hint(x, counts.get(j, 0))

    def apply(self, value: Any, ledger: Ledger) -> None:
        """Writes a solution on a ledger: whoever can stay where it ran or lies does."""
        changed: list[tuple[Pod, int, tuple[int, ...] | None]] = []
        for k, kind in enumerate(self.kinds):
            room = [0 if isinstance(x, int) else int(value(x)) for x in kind.x]
            rest: list[Pod] = []
            number = {node: j for j, node in enumerate(self.nodes)}
            for pod in sorted(kind.pods, key=lambda p: p.name not in self.origin):
                j = number.get(self.origin.get(pod.name, -1), -1)
                if j >= 0 and room[j]:
                    room[j] -= 1
                    changed.append((pod, self.nodes[j], self._device(value, k, j)))
                else:
                    rest.append(pod)
            for pod in list(rest):
                laid = ledger.laid.get(pod.name)
                j = -1 if laid is None else number[laid.node]
                # one that runs comes before one that waits
                if (
                    j >= 0
                    and room[j]
                    and (pod.name in self.origin or sum(p.name in self.origin for p in rest) < sum(room))
                ):
                    room[j] -= 1
                    rest.remove(pod)
                    changed.append((pod, self.nodes[j], self._device(value, k, j)))
            free = [j for j, count in enumerate(room) for _ in range(count)]
            changed += [(p, self.nodes[j], self._device(value, k, j)) for p, j in zip(rest, free, strict=False)]
        for kind in self.kinds:
            for pod in kind.pods:
                if pod.name in ledger.laid:
                    ledger.remove(pod.name)
        # those at home keep their devices; then those that share one, then whole ones
        home = [(p, n, self.view.ledger.laid[p.name].devices) for p, n, _ in changed if self.origin.get(p.name) == n]
        away = [c for c in changed if self.origin.get(c[0].name) != c[1]]
        for pod, node, devices in (*home, *sorted(away, key=lambda c: c[2] is None)):
            ledger.place(pod, node, devices)

    def _device(self, value: Any, k: int, j: int) -> tuple[int, ...] | None:
        if not self.shares or not self.ledger.need(self.kinds[k].pods[0]).share:
            return None
        return tuple(g for (kk, jj, g), y in self.device.items() if kk == k and jj == j and value(y))
