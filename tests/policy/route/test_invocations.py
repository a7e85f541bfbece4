"""Routes of invocations: carbon never attracts load, shares as promised, few moves as greenness changes."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fleetcast.policy.route import invocations as route
from fleetcast.policy.route.invocations import Policy, View

INF = float("inf")
GREEN: list[Policy] = [
    route.Greenest(), route.Rendezvous(), route.Rendezvous(power=3.0), route.Fill(), route.Fill(rest=0.0),
]  # fmt: skip
EVERY: list[Policy] = [*GREEN, route.Hash(across=True), route.ConsistentHash()]


def view(
    carbon: list[float], *, name: str = "f", room: list[bool] | None = None, warm: list[int] | None = None,
    free: list[float] | None = None, energy: list[float] | None = None, idle: list[float] | None = None,
) -> View:  # fmt: skip
    n = len(carbon)
    return View(
        now=0.0, function=0, name=name, memory=1.0, home=0, region=np.arange(n, dtype=np.int32),
        room=np.array(room or [True] * n), warm=np.array(warm or [0] * n), free=np.array(free or [10.0] * n),
        size=np.full(n, 10.0), distance=np.zeros(n), carbon=np.array(carbon), power=np.full(n, 300.0),
        idle=np.array(idle or [0.0] * n),
        energy=np.array(energy or [INF] * n),
    )  # fmt: skip


def picks(policy: Policy, carbon: list[float], functions: int = 400, **more: list[float]) -> NDArray[np.int64]:
    found = [policy.pick(view(carbon, name=f"f{i}", **more)) for i in range(functions)]
    return np.array([-1 if node is None else node for node in found])


@pytest.mark.parametrize("policy", GREEN, ids=lambda p: p.kind)
@given(st.lists(st.floats(1, 1000), min_size=2, max_size=6), st.data())
@settings(max_examples=40, deadline=None)
def test_more_carbon_never_attracts_load(policy: Policy, carbon: list[float], data: st.DataObject) -> None:
    """The published simulator of grids sorts the wrong way; here no function comes to a node that got dirtier."""
    node = data.draw(st.integers(0, len(carbon) - 1))
    dirtier = carbon.copy()
    dirtier[node] *= data.draw(st.floats(1, 10))
    before, after = picks(policy, carbon, 30), picks(policy, dirtier, 30)
    assert not ((after == node) & (before != node)).any()


@pytest.mark.parametrize("policy", GREEN, ids=lambda p: p.kind)
@given(st.lists(st.floats(1, 1e7), min_size=2, max_size=6), st.data())
@settings(max_examples=25, deadline=None)
def test_more_energy_never_repels_load(policy: Policy, energy: list[float], data: st.DataObject) -> None:
    node = data.draw(st.integers(0, len(energy) - 1))
    fuller = energy.copy()
    fuller[node] *= data.draw(st.floats(1, 10))
    dark = [0.0] * len(energy)
    before, after = picks(policy, dark, 30, energy=energy), picks(policy, dark, 30, energy=fuller)
    assert not ((before == node) & (after != node)).any()


def test_rendezvous_gives_shares_by_greenness() -> None:
    """A node of a quarter of the carbon takes four times the functions, within chance."""
    found = np.bincount(picks(route.Rendezvous(), [100.0, 400.0, 400.0], 6000), minlength=3) / 6000
    assert found == pytest.approx([4 / 6, 1 / 6, 1 / 6], abs=0.025)


def test_rendezvous_moves_no_more_functions_than_it_must() -> None:
    """A node that becomes dirtier loses functions; none of the others' change places."""
    before = picks(route.Rendezvous(), [100.0, 200.0, 300.0], 3000)
    after = picks(route.Rendezvous(), [100.0, 200.0, 600.0], 3000)
    assert (before[before != after] == 2).all()


def test_a_ring_moves_few_functions_when_a_node_comes() -> None:
    ring = route.ConsistentHash()
    before, after = picks(ring, [1.0] * 9, 2000), picks(ring, [1.0] * 10, 2000)
    assert (after[before != after] == 9).all()
    assert (before != after).mean() == pytest.approx(0.1, abs=0.06)


@pytest.mark.parametrize("policy", EVERY, ids=lambda p: p.kind)
class TestEvery:
    """Every route."""

    def test_no_room_anywhere(self, policy: Policy) -> None:
        assert policy.pick(view([1.0, 2.0], room=[False, False])) is None

    def test_only_one_has_room(self, policy: Policy) -> None:
        assert policy.pick(view([9.0, 1.0, 5.0], room=[True, False, False])) == 0

    def test_equal_views_give_equal_picks(self, policy: Policy) -> None:
        assert policy.pick(view([5.0] * 5)) == policy.pick(view([5.0] * 5))

    def test_a_pick_has_room(self, policy: Policy) -> None:
        random = np.random.default_rng(0)
        for _ in range(100):
            seen = view(random.uniform(1, 900, 5).tolist(), room=(random.random(5) < 0.5).tolist(),
                        warm=random.integers(0, 2, 5).tolist(), free=random.uniform(0, 10, 5).tolist())  # fmt: skip
            node = policy.pick(dataclasses.replace(seen, warm=seen.warm * seen.room))
            assert (node is None) == (not seen.room.any())
            assert node is None or seen.room[node]


def test_filling_leaves_warm_pods_until_a_cleaner_region_has_room_to_spare() -> None:
    fill = route.Fill(keep=0.0, leave=0.2)
    assert fill.pick(view([10.0, 100.0], warm=[0, 1], free=[1.0, 5.0])) == 1
    assert fill.pick(view([10.0, 100.0], warm=[0, 1], free=[3.0, 5.0])) == 0
    assert fill.pick(view([98.0, 100.0], warm=[0, 1], free=[9.0, 5.0])) == 1, "hardly cleaner is not worth a cold start"


def test_filling_ends_only_what_has_idled_long() -> None:
    """The clean region holds idle pods alone: room, but nothing free. Half of the span of carbon is half the rest."""
    full = {"free": [0.0, 9.0, 9.0]}
    fill = route.Fill(rest=60.0)
    assert fill.pick(view([10.0, 55.0, 100.0], idle=[25.0, 0.0, 0.0], **full)) == 1
    assert fill.pick(view([10.0, 55.0, 100.0], idle=[35.0, 0.0, 0.0], **full)) == 0
    assert fill.pick(view([10.0, 91.0, 100.0], idle=[25.0, 0.0, 0.0], **full)) == 0, "nine tenths of it are won"
    assert fill.pick(view([10.0, 55.0, 100.0], idle=[59.0, 0.0, 0.0], warm=[0, 1, 0], **full)) == 1, "warm: in peace"
    assert fill.pick(view([10.0, 55.0], idle=[5.0, 50.0], free=[0.0, 0.0])) == 0, "somebody is ended: where it is clean"
