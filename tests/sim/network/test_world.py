"""Flows over shared links: closed forms, tiny exact cases, fairness, conservation, and collectives."""

from fractions import Fraction

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.cost.collectives.genmodel import Parameters
from fleetcast.cost.collectives.topology import single, tree
from fleetcast.search.collectives import PEERS, peer, plan
from fleetcast.sim.network.flows import max_min
from fleetcast.sim.network.world import Group, all_reduce, groups_of, simulate


def rates(ways, capacity):
    flow = np.repeat(np.arange(len(ways)), [len(way) for way in ways])
    link = np.array([x for way in ways for x in way], dtype=np.int64)
    return max_min(flow, link, len(ways), np.array(capacity, dtype=float))


def exact(ways, capacity):
    """Progressive filling in fractions, one flow at a time."""
    left, open_, rate = [Fraction(c) for c in capacity], set(range(len(ways))), [Fraction(0)] * len(ways)
    while open_:
        rise = min(left[x] / n for x in range(len(left)) if (n := sum(x in ways[f] for f in open_)))
        for f in open_:
            rate[f] += rise
            for x in ways[f]:
                left[x] -= rise
        open_ = {f for f in open_ if all(left[x] > 0 for x in ways[f])}
    return rate


def test_a_parking_lot():
    # one flow over both links, one over each: the classical case
    assert rates([[0, 1], [0], [1]], [1.0, 2.0]).tolist() == pytest.approx([0.5, 0.5, 1.5])


@pytest.mark.parametrize("seed", range(30))
def test_rates_equal_exact_filling(seed):
    rng = np.random.default_rng(seed)
    links = int(rng.integers(1, 6))
    count = int(rng.integers(1, 8))
    ways = [sorted(rng.choice(links, rng.integers(1, links + 1), replace=False).tolist()) for _ in range(count)]
    capacity = rng.integers(1, 9, links).tolist()
    assert rates(ways, capacity).tolist() == pytest.approx([float(x) for x in exact(ways, capacity)])


@pytest.mark.parametrize("seed", range(10))
def test_no_flow_can_have_more_and_no_link_too_much(seed):
    rng = np.random.default_rng(100 + seed)
    ways = [rng.choice(12, rng.integers(1, 5), replace=False).tolist() for _ in range(40)]
    capacity = rng.uniform(1, 10, 12)
    found = rates(ways, capacity)
    used = np.zeros(12)
    for way, rate in zip(ways, found, strict=True):
        used[way] += rate
    assert np.all(used <= capacity * (1 + 1e-9))
    for way, rate in zip(ways, found, strict=True):
        full = [x for x in way if used[x] >= capacity[x] * (1 - 1e-9)]
        # on one of its full links nobody has more
        assert any(rate >= max(r for w, r in zip(ways, found, strict=True) if x in w) * (1 - 1e-9) for x in full)


def group(ways, sizes, **more):
    flow = np.repeat(np.arange(len(ways)), [len(way) for way in ways])
    return Group(np.array(sizes, dtype=float), flow, np.array([x for w in ways for x in w], dtype=np.int64), **more)


def test_flows_speed_up_when_others_end():
    # 10 B/s shared by flows of 10 and 30 B: both at 5 until 2 s, the longer at 10 until 4 s
    found = simulate([group([[0], [0]], [10, 30])], np.array([10.0]))
    assert found.time == pytest.approx(4.0) and found.events >= 3


def test_a_later_group_takes_its_share_from_its_start_on():
    groups = [group([[0]], [30.0]), group([[0]], [10.0], wait=1.0), group([[0]], [5.0], after=(1,), wait=0.5)]
    found = simulate(groups, np.array([10.0]))
    # alone until 1 s (10 B), both at 5 until 3 s (10 B each), alone until 3.5 s (5 B), both until 4.5 s
    assert found.start.tolist() == pytest.approx([0.0, 1.0, 3.5])
    assert found.done.tolist() == pytest.approx([4.5, 3.0, 4.5])


@pytest.mark.parametrize("seed", range(10))
def test_bytes_are_conserved(seed):
    rng = np.random.default_rng(seed)
    ways = [rng.choice(6, rng.integers(1, 4), replace=False).tolist() for _ in range(20)]
    sizes = rng.uniform(1, 100, 20)
    want = np.zeros(6)
    for way, size in zip(ways, sizes, strict=True):
        want[way] += size
    groups = [group(ways[:9], sizes[:9]), group(ways[9:], sizes[9:], wait=3.0)]
    found = simulate(groups, rng.uniform(1, 10, 6))
    assert found.carried == pytest.approx(want)


@pytest.mark.parametrize(
    "topology",
    [single(8), single(12), tree([[1.0] * 4] * 3, up=2.0, latency=1e-6), tree([[1.0] * 3, [1.0] * 5], up=0.5)],
)
def test_collectives_take_what_closed_forms_say(topology):
    p = Parameters(alpha=15e-6, beta=8e-11, gamma=1e-11, delta=4e-11)
    for found in (plan(topology, 1e8, p), *(peer(name, topology, 1e8, p) for name in PEERS)):
        run = all_reduce(found.block, topology, 1e8 / found.cells, p)
        assert run.time == pytest.approx(found.time, rel=1e-9)


def test_two_collectives_on_one_switch_share_its_links():
    p = Parameters(alpha=0.0, beta=1e-10)
    found = peer("cps", single(6), 1e8, p)
    groups = groups_of(found.block, single(6), 1e8 / found.cells, p)
    twice = groups + [Group(g.size, g.flow, g.link, tuple(len(groups) + j for j in g.after), g.wait) for g in groups]
    run = simulate(twice, np.full(14, 1 / p.beta))
    assert run.time == pytest.approx(2 * found.time)


def test_a_flow_without_bytes_or_links_takes_no_time():
    assert simulate([group([[0]], [0.0])], np.array([1.0])).time == 0.0
    assert simulate([], np.array([1.0])).time == 0.0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: simulate([group([[0]], [1.0])], np.array([0.0])), "above 0"),
        (lambda: simulate([group([[0]], [-1.0])], np.array([1.0])), "at least 0"),
        (lambda: simulate([group([[0]], [1.0], after=(0,))], np.array([1.0])), "no earlier group"),
    ],
)
def test_what_cannot_be_is_refused(call, said):
    with pytest.raises(SpecError, match=said):
        call()
