"""Moving load: what leaves a node against brute force, every policy on odd clusters, agents that know themselves."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fleetcast.base.errors import PolicyError
from fleetcast.policy.place import balance
from fleetcast.policy.place.balance import Moves, Policy, View
from fleetcast.policy.place.balance.agents import Agent, Agents, negotiate
from fleetcast.policy.place.balance.cluster import leaving
from fleetcast.sim.cluster.balancing import apply

POLICIES = [
    balance.Stay(), balance.Greedy(), balance.Greedy(fullest=True), balance.Tabu(), balance.Annealing(),
    balance.Genetic(generations=20), balance.Genetic(generations=20, seeded=False), balance.Agents(),
]  # fmt: skip
SHARED = POLICIES[1:]


def view(capacity: list[list[float]], use: list[list[float]], node: list[int], cost: list[float] | None = None) -> View:
    return View(
        np.array(capacity, float).reshape(-1, 2), np.array(use, float).reshape(-1, 2), np.array(node, np.int64),
        np.array(cost or [1.0] * len(node)),
    )  # fmt: skip


def overloaded(view: View, node: NDArray[np.int64]) -> int:
    load = View(view.capacity, view.use, node, view.cost).load()
    return int((load > view.capacity * (1 + 1e-6)).any(axis=1).sum())


def after(policy: Policy, seen: View) -> NDArray[np.int64]:
    node = seen.node.copy()
    apply(seen, policy.balance(seen), node)
    return node


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_what_leaves_is_the_cheapest_where_two_suffice(seed: int) -> None:
    """Against all subsets of up to eight tasks: enough, and no dearer where the best needs at most two."""
    random = np.random.default_rng(seed)
    use, cost = random.uniform(0, 10, (8, 2)), random.uniform(1, 5, 8)
    load, capacity = use.sum(0), use.sum(0) * random.uniform(0.6, 0.98, 2)
    chosen = leaving(load.tolist(), capacity.tolist(), use.tolist(), cost.tolist())
    enough = [
        (cost[list(s)].sum(), len(s)) for n in range(1, 9) for s in itertools.combinations(range(8), n)
        if (load - use[list(s)].sum(0) <= capacity + 1e-9).all()
    ]  # fmt: skip
    assert (load - use[chosen].sum(0) <= capacity + 1e-6).all()
    best = min(enough)
    if best[1] <= 2:
        assert cost[chosen].sum() == pytest.approx(best[0])


def test_nothing_leaves_in_vain() -> None:
    """What could leave is not enough: it stays."""
    assert leaving([10.0, 1.0], [5.0, 5.0], [[2.0, 0.5]], [1.0]) == []


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p.kind)
class TestEvery:
    """Every policy."""

    def test_empty_cluster(self, policy: Policy) -> None:
        assert len(policy.balance(view([[4, 4], [4, 4]], [], [])).task) == 0

    def test_a_stable_cluster_is_left_alone(self, policy: Policy) -> None:
        assert len(policy.balance(view([[4, 4], [4, 4]], [[2, 2], [2, 2]], [0, 0])).task) == 0

    def test_nowhere_to_go(self, policy: Policy) -> None:
        seen = view([[4, 4], [4, 4]], [[3, 3], [3, 3], [3, 3], [3, 3]], [0, 0, 1, 1])
        assert overloaded(seen, after(policy, seen)) == 2

    def test_equal_views_give_equal_moves(self, policy: Policy) -> None:
        random = np.random.default_rng(3)
        use, node = random.uniform(0, 4, (60, 2)), random.integers(0, 20, 60)
        seen = view([[9, 9]] * 20, use.tolist(), node.tolist())
        first, again = policy.balance(seen), policy.balance(seen)
        assert (first.task == again.task).all()
        assert (first.node == again.node).all()

    @given(st.integers(0, 10**6))
    @settings(max_examples=15, deadline=None)
    def test_moves_are_legal_and_never_make_it_worse(self, policy: Policy, seed: int) -> None:
        random = np.random.default_rng(seed)
        use, node = random.uniform(0, 4, (50, 2)), random.integers(0, 15, 50)
        seen = view([[9, 12]] * 15, use.tolist(), node.tolist(), random.uniform(1, 9, 50).tolist())
        assert overloaded(seen, after(policy, seen)) <= overloaded(seen, seen.node)


@pytest.mark.parametrize("policy", SHARED, ids=lambda p: p.kind)
def test_one_overloaded_node_is_relieved(policy: Policy) -> None:
    seen = view([[4, 4]] * 6, [[3, 1], [2, 1], [1, 1]], [0, 0, 1], [9.0, 1.0, 1.0])
    node = after(policy, seen)
    assert overloaded(seen, node) == 0
    assert node[0] == 0, "the dear task stays, the cheap one goes"


def legal(view: View, where: NDArray[np.int64]) -> bool:
    """Whether no node is overloaded by what came to it."""
    load = View(view.capacity, view.use, where, view.cost).load()
    came = np.unique(where[where != view.node])
    return bool((load[came] <= view.capacity[came] * (1 + 1e-9)).all())


@pytest.mark.parametrize("policy", [balance.Tabu(), balance.Annealing(), balance.Genetic()], ids=lambda p: p.kind)
def test_searches_find_what_brute_force_finds(policy: Policy) -> None:
    """Tiny clusters: as few overloaded nodes as the best of all ways to lie."""
    worse = 0
    for seed in range(12):
        random = np.random.default_rng(seed)
        use, node = random.uniform(1, 4, (7, 2)), random.integers(0, 2, 7)
        seen = view([[9, 9]] * 3, use.tolist(), node.tolist())
        best = min(
            overloaded(seen, np.array(where)) for where in itertools.product(range(3), repeat=7)
            if legal(seen, np.array(where))
        )  # fmt: skip
        worse += overloaded(seen, after(policy, seen)) > best
    assert worse <= 2


def test_an_agent_refuses_what_another_took_before() -> None:
    """Two sources want the same room; who comes second asks on and both end stable or where they were."""
    full = ((0, 1), (2, 3))
    agents = [Agent([4.0], [5.0], {a: ([2.0], 1.0), b: ([3.0], 9.0)}) for a, b in full]
    agents.append(Agent([4.0], [1.5], {4: ([1.5], 1.0)}))
    moves = negotiate(agents, Agents(rounds=1), seed=0)
    assert len(moves.task) == 1
    assert sum(agent.stable for agent in agents) == 2
    assert agents[2].load == [3.5]


def test_agents_ask_no_more_where_there_are_more_nodes() -> None:
    """Messages of a decision do not grow with the cluster."""

    def messages(nodes: int) -> float:
        random = np.random.default_rng(0)
        use = random.uniform(0, 4, (3 * nodes, 2))
        moves = balance.Agents().balance(
            view([[9, 9]] * nodes, use.tolist(), random.integers(0, nodes, 3 * nodes).tolist())
        )
        return moves.messages / moves.asked

    assert messages(2000) == pytest.approx(messages(100), rel=0.35)


@pytest.mark.parametrize(
    ("moves", "says"),
    [
        (Moves(np.array([0, 0]), np.array([1, 1])), "task 0 is moved twice"),
        (Moves(np.array([9]), np.array([1])), "not there"),
        (Moves(np.array([0]), np.array([7])), "not there"),
        (Moves(np.array([0]), np.array([], np.int64)), "each move needs both"),
        (Moves(np.array([0]), np.array([1])), "node 1 would be overloaded"),
    ],
)
def test_bad_decisions_are_refused(moves: Moves, says: str) -> None:
    seen = view([[4, 4], [4, 4]], [[3, 3], [3, 3]], [0, 1])
    node = seen.node.copy()
    with pytest.raises(PolicyError, match=says):
        apply(seen, moves, node)
    assert (node == seen.node).all()
