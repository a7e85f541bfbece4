"""A drifting cluster: counts that can be checked by hand, and what moving buys."""

import numpy as np
import pytest

from fleetcast.policy.place import balance as policies
from fleetcast.scenario.workload.drift import Filled, drawn, drift
from fleetcast.sim.cluster.balancing import balance, costs

GB = 2.0**30


def small(nodes: int = 60, load: float = 0.65) -> Filled:
    random = np.random.default_rng(5)
    capacity = np.tile([32.0, 128 * GB, 4.0], (nodes, 1))
    requests = np.stack(
        [
            random.choice([2.0, 4.0, 8.0], 400),
            random.choice([4, 8, 24], 400) * GB,
            random.choice([0.0, 0.0, 0.5, 1.0], 400),
        ],
        1,
    )
    return drawn(capacity, requests, nodes, load, seed=1)


def test_a_cluster_is_filled_as_asked() -> None:
    found = small()
    load = np.stack([np.bincount(found.node, column, minlength=60) for column in found.mean.T], 1)
    assert found.mean[:, 0].sum() / found.capacity[:, 0].sum() == pytest.approx(0.65, abs=0.01)
    assert (load <= found.capacity * [0.9, 0.9, 1.0] + 1e-6).all()


def test_drift_keeps_its_mean_and_its_limits() -> None:
    found = small()
    uses = np.array(list(drift(found, 288, seed=2)))
    assert (uses[:, :, 0] <= 1.5 * found.request[:, 0] + 1e-9).all()
    assert (uses[:, :, 1] <= found.request[:, 1] + 1e-6).all()
    assert (uses[:, :, 2] == found.request[:, 2]).all()
    assert uses[:, :, 0].sum(1).mean() / found.mean[:, 0].sum() == pytest.approx(1.0, abs=0.06)


def test_counts_of_a_cluster_of_two() -> None:
    """One node overloaded by a quarter in one of two readings; its small task moves once, and it stays there."""
    filled = Filled(np.array([[4.0, GB, 1.0]] * 2), np.ones((2, 3)), np.array([[3.0, GB / 8, 0], [1.0, GB / 4, 0]]),
                    np.array([0, 0], np.int32))  # fmt: skip
    uses = [np.array([[3.0, GB / 8, 0], [1.0, GB / 4, 0]]), np.array([[3.0, GB / 8, 0], [2.0, GB / 4, 0]])]
    still = balance(filled, uses, policies.Stay())
    assert still.overloaded == 0.25
    assert still.excess == pytest.approx(0.25 / 4)
    moved = balance(filled, uses, policies.Greedy())
    assert moved.overloaded == 0.0
    assert moved.moves == 1
    assert moved.moved_bytes == pytest.approx(costs(filled.mean)[0])


@pytest.mark.parametrize("policy", [policies.Greedy(), policies.Agents(), policies.Tabu(), policies.Annealing()],
                         ids=lambda p: p.kind)  # fmt: skip
def test_moving_removes_most_of_the_overload(policy: policies.Policy) -> None:
    filled = small()
    still = balance(filled, drift(filled, 170, seed=3), policies.Stay())
    found = balance(filled, drift(filled, 170, seed=3), policy)
    assert still.overloaded > 0.01
    assert found.overloaded < 0.3 * still.overloaded
    assert found == type(found)(
        **(vars(balance(filled, drift(filled, 170, seed=3), policy)) | {"seconds": found.seconds})
    )
