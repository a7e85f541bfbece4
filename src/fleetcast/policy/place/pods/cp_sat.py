"""Constraint packing where the default has no place for a pod: most pods by tier of priority, then the fewest moves.

After "Priority Matters: Optimising Kubernetes Clusters Usage with Constraint-Based Pod Packing" (2025): tiers of
priority are served one after the other, in each the number of pods that lie somewhere is maximised, then moves and
evictions are minimised. It is used only where a pod cannot be placed.

Differs from the paper's one model of a Boolean for each pod and node: (1) exchanges of one or two pods serve most
pods at once (`exchange`); (2) CP-SAT gets the whole cluster where that is small, else a few nodes at a time, equal
pods and equal nodes as one (`model`); (3) bounds say when there is nothing left to gain (`bounds`). A pod that runs
leaves only for a higher priority unless ``equals``. Nobody leaves before a node is found where the pod fits, with its
devices, its gang and its company. The budget is counted in steps and in the solver's deterministic time, the building
of models included, so that equal views have equal answers.
"""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fleetcast.base.errors import PolicyError
from fleetcast.policy.place.pods import Placement, Pod, View
from fleetcast.policy.place.pods.best_fit import fill
from fleetcast.policy.place.pods.bounds import Answer, Tier, bounds, words
from fleetcast.policy.place.pods.check import carry_out
from fleetcast.policy.place.pods.exchange import improve
from fleetcast.policy.place.pods.greedy import decide
from fleetcast.policy.place.pods.kube_default import KubeDefault
from fleetcast.policy.place.pods.ledger import Ledger
from fleetcast.policy.place.pods.model import Model
from fleetcast.policy.place.pods.packing import Instance
from fleetcast.policy.place.pods.patterns import Grouped, climb
from fleetcast.policy.place.pods.restarts import repack
from fleetcast.policy.place.pods.solver import solver

if TYPE_CHECKING:
    from fleetcast.policy.place.pods.packing import State


class Spend(NamedTuple):
    """How the budget is spent.

    Attributes:
        variables: of a model of the whole cluster, up to which this holds.
        first: share of the budget after which neighbourhoods make way for packing anew.
        second: and for a model of the whole cluster.
        tier: share of what is left that a tier gets in that model; 0 = there is none.
        anew: whether everything is packed anew.
    """

    variables: float
    first: float
    second: float
    tier: float
    anew: bool = True


SPEND = (Spend(600, 0.05, 0.05, 0.95, anew=False), Spend(2_600, 0.3, 0.45, 0.5), Spend(inf, 0.5, 0.85, 0.0))
"""Chosen on seeds from 100 on, of 4 to 32 nodes."""
NODES, ROUND = 5, 0.04
"""Nodes of a neighbourhood, and the solver's deterministic time for it, s."""
PARTS = (0.25, 0.5, 0.75, 1.0)
"""Shares of the nodes that are packed anew by patterns, one after the other."""
VARIABLE = 1.2e-5
"""What building a model takes for each variable, s, about."""
BURST = 4_000
"""Waiting pods above which only greedy rules answer."""


class CpSat:
    """Packs pods by constraint programming where greedy rules leave one without a place.

    Args:
        budget: s of one core, about, as reckoned: models' building included.
        equals: whether a pod that runs may leave so that more pods of its own priority run.
        seed: of neighbourhoods and of the solver.
    """

    kind = "cp_sat"

    def __init__(self, *, budget: float = 1.0, equals: bool = False, seed: int = 0) -> None:
        if not budget > 0:
            raise ValueError(f"budget is above 0, not {budget}")
        self.budget = budget
        self.equals = equals
        self.seed = seed

    def place(self, view: View) -> Placement:
        """Returns who goes where, who moves, who leaves, and what is proven."""
        return self.solve(view).placement

    def solve(self, view: View) -> Answer:
        """Returns the decision with its bounds."""
        ledger = fill(view)
        if not view.nodes or all(pod.name in ledger.laid for pod in view.waiting):
            tiers = bounds(view, ledger, equals=self.equals)
            return Answer(decide(view, ledger, proof="optimal"), tiers, 0, 0, 0.0)
        run = _Run(view, ledger, self.budget, self.seed, self.equals)
        run.greedy()
        if len(view.waiting) <= BURST:
            run.search()
        return run.answer()


class _Run:
    """One call: the best ledger so far and what is left of the budget."""

    def __init__(self, view: View, ledger: Ledger, budget: float, seed: int, equals: bool) -> None:
        self.view, self.best, self.budget, self.seed, self.equals = view, ledger, budget, seed, equals
        self.rng = np.random.default_rng(seed)
        self.spent = 0.0
        self.least = -1
        self.grouped: Grouped | None = None
        self.known: dict[tuple[int, str], int] = {}
        self.origin = {p.name: view.ledger.number[p.node] for p in view.running if p.name in view.ledger.laid}
        self.tiers = sorted({p.priority for p in (*view.running, *view.waiting)}, reverse=True)
        self.value = self.worth(ledger)

    def worth(self, ledger: Ledger) -> tuple[int, ...]:
        """By tier pods kept (unless equals may leave) and placed; then -evictions, -moves."""
        kept, placed = dict.fromkeys(self.tiers, 0), dict.fromkeys(self.tiers, 0)
        ran = moves = 0
        for name, (pod, node, _) in ledger.laid.items():
            placed[pod.priority] += 1
            came = self.origin.get(name)
            if came is not None:
                kept[pod.priority] += 1
                ran += 1
                moves += came != node
        pairs = ((placed[t],) if self.equals else (kept[t], placed[t]) for t in self.tiers)
        return (*(n for pair in pairs for n in pair), ran - len(self.origin), -moves)

    def offer(self, ledger: Ledger) -> bool:
        """Takes a ledger if it is better, and legal."""
        value = self.worth(ledger)
        if value <= self.value:
            return False
        try:
            carry_out(self.view, decide(self.view, ledger, why=False))
        except PolicyError:
            return False
        self.best, self.value = ledger, value
        return True

    def out(self) -> list[Pod]:
        """Who lies nowhere, those that ran first."""
        laid = self.best.laid
        ran = [p for p in self.view.running if p.name in self.origin and p.name not in laid]
        return ran + [p for p in self.view.waiting if p.name not in laid]

    def greedy(self) -> None:
        """Tries what the default does, and exchanges."""
        self.spent += 1e-4 * len(self.view.waiting)
        self.offer(carry_out(self.view, KubeDefault().place(self.view)))
        found = Instance.of(self.view, self.best)
        self.spent += 1e-5 * len(found.pods)
        self.exchange(found, found.state(self.best))

    def exchange(self, found: Instance, state: State) -> None:
        """Improves a state by exchanges."""
        state, steps = improve(found, state, targets=8, budget=self.budget * 0.3)
        self.spent += steps + 2e-5 * len(found.pods)
        self.offer(found.ledger(state))

    def search(self) -> None:
        """Solves patterns, neighbourhoods and, where it is small, the whole cluster; tries packing anew."""
        if not self.out() and self.value[-2] == 0 and not self.value[-1]:
            return
        self.grouped = self.patterned()
        self.limits()
        variables = len(self.view.nodes) * _kinds(self.best, (*self.view.running, *self.view.waiting))
        spend = next(spend for spend in SPEND if variables <= spend.variables)
        if self.grouped is not None:
            if self.open():
                self.some(0.15 * self.budget)
            if self.open():
                self.patterns()
        elif len(self.view.nodes) > NODES:
            self.some(spend.first * self.budget)
        if self.open():
            if spend.anew:
                self.anew()
            if len(self.view.nodes) > NODES:
                self.some(spend.second * self.budget)
        if spend.tier:
            self.whole(spend.tier)
        elif self.value[-1]:
            self.fewer()

    def patterned(self) -> Grouped | None:
        """What one node can hold, where nodes are alike and kinds are few."""
        found = Instance.of(self.view)
        pods = sum(p.name in self.origin for p in self.view.running) + len(self.view.waiting)
        self.spent += 1e-5 * len(found.pods)
        grouped = Grouped.of(found) if len(found.pods) == pods else None
        self.spent += 0.0 if grouped is None else 2e-5 * len(grouped.patterns)
        return grouped

    def patterns(self) -> None:
        """Packs the emptiest nodes anew by patterns, as few of them as reach the bounds."""
        grouped = self.grouped
        assert grouped is not None
        found = Instance.of(self.view)
        state = found.state(self.best)
        order = np.argsort(-(found.scale @ found.left(state)), kind="stable")
        each = 1e-6 * grouped.patterns.size * len(found.tiers) + 1e-2 + 4e-5 * len(found.pods)
        for part in PARTS:
            if self.spent + each > self.budget:
                return
            nodes = order[: max(2, round(part * len(order)))]
            self.spent += each
            try:
                times = climb(grouped.some(found, state, nodes), found.tiers, equals=self.equals)
            except ValueError:
                continue
            after, rest = grouped.laid(found, state, nodes, times)
            ledger = found.ledger(found.stay(after))
            empty = sorted(set(range(len(order))) - {laid.node for laid in ledger.laid.values()})
            self.offer(ledger)
            if self.solve(
                empty[: len(rest)] or rest, [p for p in found.pods if p.name not in ledger.laid], ledger, 2 * ROUND
            ):
                self.limits()
                if not self.open():
                    return

    def anew(self) -> None:
        """Tries half a second of restarts, as the baseline does, and exchanges on what they find."""
        found = Instance.of(self.view, self.best)
        state = found.state(self.best)
        part = min(0.5, self.budget / 2)
        anew = repack(found, state, part, 0.5, 0)
        self.spent += 0.6 * part + 1e-5 * len(found.pods)
        if (anew != state).any():
            self.offer(found.ledger(anew))
            self.exchange(found, anew)
            self.limits()

    def limits(self) -> None:
        """Asks the bounds."""
        self.known_tiers = {tier.priority: tier for tier in self.bounds()}
        self.spent += 5e-3 + 4e-5 * len(self.view.nodes)

    def bounds(self) -> list[Tier]:
        """What is known of each tier."""
        return bounds(self.view, self.best, equals=self.equals, grouped=self.grouped)

    def open(self) -> list[int]:
        """Tiers of which more pods might be placed, highest first."""
        out = Counter(pod.priority for pod in self.out())
        known = [self.known_tiers[tier] for tier in self.tiers if tier in out and tier in self.known_tiers]
        return [t.priority for t in known if t.pods - out[t.priority] < t.bound or t.kept < t.kept_bound]

    def some(self, until: float) -> None:
        """Solves neighbourhoods: nodes with much left, and pods that wait."""
        turn = 0
        left = self.open()
        while left and self.spent < until:
            tier = left[turn % len(left)]
            turn += 1
            out = self.out()
            mine = [p for p in out if p.priority == tier]
            others = [p for p in out if p.priority < tier]
            size = {p.name: float(self.scale @ self.best.need(p).amount) for p in out}
            mine.sort(key=lambda p: size[p.name])
            others.sort(key=lambda p: (-p.priority, size[p.name]))
            pick = mine[: 6 + turn % 7]
            gangs = {p.group for p in pick if p.group}
            chosen = [*pick, *(p for p in mine if p.group in gangs and p not in pick), *others[:3]]
            nodes = self.near(pick[0])
            if not nodes:
                left.remove(tier)
                continue
            if self.solve(nodes, chosen):
                left = self.open()

    @property
    def scale(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """1 over the largest node's capacity, by resource."""
        found: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
        found = 1.0 / np.maximum(self.best.capacity.max(axis=0, initial=0), 1)
        return found

    def near(self, pod: Pod, fixed: tuple[int, ...] = ()) -> list[int]:
        """Draws nodes that a pod may lie on, those with more left the likelier."""
        allowed = np.flatnonzero(self.best.allowed(pod))
        allowed = allowed[~np.isin(allowed, fixed)]
        count = min(NODES - len(fixed), len(allowed))
        if count <= 0:
            return list(fixed)
        slack = np.maximum(self.best.free[allowed] @ self.scale, 0.0) + 1e-3
        keys = self.rng.random(len(allowed)) ** (1.0 / slack**2)
        return [*fixed, *allowed[np.argsort(-keys)[:count]].tolist()]

    def solve(self, nodes: list[int], waiting: list[Pod], start: Ledger | None = None, seconds: float = ROUND) -> bool:
        """Solves some nodes, of another ledger than the best if one is given; returns whether that helped."""
        start = self.best if start is None else start
        model = Model(self.view, start, nodes, waiting, self.origin, equals=self.equals)
        goals = model.goals()
        weight, total, value = 1, 0, 0
        for goal in reversed(goals):
            if not isinstance(goal.sum, int):
                if goal.what == "kept":  # nobody leaves in a neighbourhood
                    model.model.add(goal.sum >= goal.now)
                total += weight * goal.sum
                value += weight * goal.now
            weight *= (goal.most if goal.what != "kept" else goal.most - goal.now) + 1
        model.hint()
        model.model.maximize(total)
        solving = solver(seconds, self.seed)
        status = solving.solve(model.model)
        self.spent += VARIABLE * model.variables + 2e-3 + 1.2e-6 * len(self.best.laid)
        self.spent += solving.response_proto.deterministic_time * model.slow
        if status not in (model.cp.OPTIMAL, model.cp.FEASIBLE) or solving.objective_value <= value:
            return False
        ledger = start.copy()
        model.apply(solving.value, ledger)
        return self.offer(ledger)

    def fewer(self) -> None:
        """Lets pods that moved go home, a few nodes at a time."""
        turn, since, moved = 0, 0, self.moved()
        while self.spent < self.budget and moved and since <= 3 * len(moved):
            node, home, pod = moved[turn % len(moved)]
            turn, since = turn + 1, since + 1
            linked = [n for a, b, _ in moved if {a, b} & {node, home} for n in (a, b)]
            fixed = tuple(dict.fromkeys([home, node, *linked]))[:NODES]
            if self.solve(self.near(pod, fixed), []):
                moved, since = self.moved(), 0

    def moved(self) -> list[tuple[int, int, Pod]]:
        """Pods that run elsewhere than before: node, home, pod."""
        laid = self.best.laid
        return [(p.node, n, p.pod) for name, n in self.origin.items() if (p := laid.get(name)) and p.node != n]

    def whole(self, tier: float) -> None:
        """Solves one model of everything, goal after goal, each fixed before the next and given its share of time."""
        nodes = range(len(self.view.nodes))
        model = Model(self.view, self.best, list(nodes), self.out(), self.origin, equals=self.equals)
        self.spent += VARIABLE * model.variables + 2e-3
        goals = model.goals()
        held = [isinstance(goal.sum, int) for goal in goals]
        for g, goal in enumerate(goals):
            if held[g]:
                continue
            now = model.goals_now()[g]
            known = self.known_tiers.get(goal.tier) if goal.what != "stays" else None
            if known is not None and now >= min(
                goal.most, goal.most - known.pods + known.bound if goal.what == "placed" else known.kept_bound
            ):
                model.model.add(goal.sum >= now)
                continue
            left = self.budget - self.spent
            if left < 0.01:
                return
            model.model.clear_hints()
            model.hint()
            # what comes later breaks ties, so that a pod gained does not empty the tiers below
            later = [other for other in goals[g + 1 : -1] if not isinstance(other.sum, int)]
            weight = 1 + sum(other.most for other in later)
            model.model.maximize(weight * goal.sum + sum(other.sum for other in later))
            solving = solver((left if goal.what == "stays" else left * tier) / model.slow, self.seed)
            status = solving.solve(model.model)
            self.spent += solving.response_proto.deterministic_time * model.slow + 5e-3
            if status in (model.cp.OPTIMAL, model.cp.FEASIBLE):
                ledger = self.best.copy()
                model.apply(solving.value, ledger)
                if self.offer(ledger):
                    model.ledger = self.best
            now = model.goals_now()[g]
            if status in (model.cp.OPTIMAL, model.cp.FEASIBLE):
                bound = int(np.floor(solving.best_objective_bound / weight + 1e-6))
                self.known[goal.tier, goal.what] = max(bound, now)
                if goal.what == "stays":
                    self.least = max(-self.value[-1] - (max(bound, now) - now), 0)
            model.model.add(goal.sum >= now)

    def answer(self) -> Answer:
        """Returns the decision; of what is proven the best."""
        tiers = []
        for tier in self.bounds():
            kept = min(tier.kept_bound, self.known.get((tier.priority, "kept"), tier.kept_bound))
            bound = min(tier.bound, self.known.get((tier.priority, "placed"), tier.bound))
            tiers.append(tier._replace(kept_bound=max(kept, tier.kept), bound=max(bound, tier.placed)))
        moves = -self.value[-1]
        least = self.least if self.least >= 0 else 0 if not moves else -1
        proof = words(tiers, moves, least)
        return Answer(decide(self.view, self.best, proof=proof), tiers, moves, least, self.spent)


def _kinds(ledger: Ledger, pods: tuple[Pod, ...]) -> int:
    needs = ((p, ledger.need(p)) for p in pods)
    return len({(n.amount.tobytes(), n.share, p.priority, id(ledger.allowed(p)), p.group) for p, n in needs})
