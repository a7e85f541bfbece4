"""GenTree: sums exact, no plan of a small tree faster, no flat algorithm faster, closed forms on one switch."""

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.cost.collectives import fabric_for, genmodel, merging
from fleetcast.cost.collectives.genmodel import Parameters
from fleetcast.cost.collectives.steps import load
from fleetcast.cost.collectives.topology import Branch, Topology, single, tree
from fleetcast.scenario.fleet.tree import Fleet, FleetGroup, resolve
from fleetcast.search.collectives import PEERS, brute, peer, plan
from fleetcast.search.collectives.fleets import joined
from fleetcast.search.collectives.gentree import time_of
from fleetcast.search.collectives.interpreter import execute

P = Parameters(alpha=15e-6, beta=8e-11, gamma=1.04e-11, delta=3.9e-11, epsilon=8e-12, threshold=9)
SHAPES = (
    [1.0] * 8, [1.0] * 12, [1.0] * 7, [[1.0] * 4] * 3, [[1.0] * 3, [1.0] * 4], [[1.0] * 2, [1.0] * 5, 1.0],
    [Branch((1.0,) * 3, 0.2, 1e-3), [1.0] * 3], [[1.0, 0.5], [1.0] * 3], [[1.0], [1.0] * 4],
)  # fmt: skip


def drawn(seed):
    rng = np.random.default_rng(seed)
    p = Parameters(
        alpha=10 ** rng.uniform(-6, -4), beta=8e-11, gamma=10 ** rng.uniform(-13, -10),
        delta=10 ** rng.uniform(-12, -10), epsilon=10 ** rng.uniform(-12, -10), threshold=float(rng.integers(2, 8)),
    )  # fmt: skip
    up, latency = float(rng.choice([0.25, 1.0, 4.0])), float(rng.choice([0.0, 1e-5, 1e-3]))
    return p, tree(list(SHAPES[seed % len(SHAPES)]), up=up, latency=latency), 10 ** rng.uniform(3, 9)


@pytest.mark.parametrize("seed", range(18))
def test_no_plan_of_a_small_tree_is_faster(seed):
    p, topology, size = drawn(seed)
    found = plan(topology, size, p)
    least, _, count = brute.best(topology, size, p)
    assert count >= 3 and found.time == pytest.approx(least, rel=1e-9)
    assert time_of(found) == pytest.approx(found.time, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_are_exact(shape):
    topology = tree(list(shape), up=2.0)
    data = np.random.default_rng(5).integers(-(2**62), 2**62, (topology.hosts, 1009))
    for size in (1e3, 1e9):
        for found in (plan(topology, size, P), *(peer(name, topology, size, P) for name in PEERS)):
            got = execute(found, data)
            assert np.array_equal(got, np.broadcast_to(data.sum(axis=0), data.shape))


def test_every_plan_of_a_small_tree_sums_exactly():
    topology = tree([[1.0] * 2, [1.0] * 3])
    data = np.random.default_rng(6).integers(-9, 9, (5, 64))
    from fleetcast.search.collectives.gentree import cells_of
    from fleetcast.search.collectives.interpreter import run

    blocks = list(brute.every(topology))
    assert len(blocks) > 30
    for block in blocks:
        assert np.array_equal(run(block.all_reduce(), data, cells_of(5)), np.broadcast_to(data.sum(axis=0), data.shape))


def test_an_interpreter_that_loses_a_step_is_found_out():
    found = plan(single(6), 1e6, P)
    data = np.arange(6 * 60).reshape(6, 60)
    from fleetcast.search.collectives.interpreter import run

    assert not np.array_equal(run(found.steps[1:], data, found.cells)[0], data.sum(axis=0))


@pytest.mark.parametrize("hosts", [2, 7, 8, 12, 24])
@pytest.mark.parametrize("size", [1e4, 1e8])
def test_one_switch_agrees_with_closed_forms(hosts, size):
    for name in PEERS:
        want = genmodel.time(name, hosts, size, P)
        assert peer(name, single(hosts), size, P).time == pytest.approx(want, rel=1e-6)
    stages = ["x".join(map(str, f)) for f in genmodel.factorisations(hosts)]
    best = min(genmodel.time(a, hosts, size, P) for a in (*stages, "ring", "rhd"))
    assert plan(single(hosts), size, P).time == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("shape", [[[1.0] * 24] * 4, [[1.0] * 8, [1.0] * 16, [1.0] * 5], [[[1.0] * 4] * 2] * 3])
@pytest.mark.parametrize("size", [1e4, 1e9])
def test_no_flat_algorithm_is_faster(shape, size):
    topology = tree(shape, up=4.0, latency=5e-6)
    found = plan(topology, size, P)
    assert found.time <= min(peer(name, topology, size, P).time for name in PEERS) * (1 + 1e-12)
    if size == 1e9:
        assert found.time < 0.9 * peer("cps", topology, size, P).time


def test_loads_of_a_step_are_counted_by_hand():
    topology = tree([[1.0] * 2, [1.0] * 2], up=0.5, latency=1e-6)
    members = merging.meet([merging.alone(host, 4) for host in range(4)])
    (step,), _ = merging.by_stages(members, (4,))
    asked = load(step, topology)
    assert asked.links[:4].tolist() == [3, 3, 3, 3]  # each sends three of its four cells
    assert asked.links[4:6].tolist() == [4, 4]  # two hosts send two of them each beyond the switch
    assert asked.width[4:6].tolist() == [5.0, 5.0]  # two hosts at twice the rate of the link, and one's own
    assert asked.moved.tolist() == [5, 5, 5, 5] and asked.wait == 2e-6


def test_incast_counts_only_where_links_have_it():
    clean = single(16)
    lossless = Topology(16, clean.parent, clean.slow, clean.latency, np.zeros(17))
    assert peer("cps", lossless, 1e9, P).time < peer("cps", clean, 1e9, P).time
    assert plan(lossless, 1e9, P).table()["stages"] == [{"where": 0, "how": "16", "groups": 1}]


def test_a_fleet_becomes_a_tree_with_its_rates():
    found = joined(resolve(Fleet(devices="16x h100-sxm", network="roce-400g")))
    t = found.topology
    assert t.hosts == 16 and t.nodes == 19
    # eight NICs of 50 GB/s beside one NVLink of 450 GB/s, each at the share its kind reaches
    share = fabric_for("h100-sxm", "nvlink", 450e9).affine["all_reduce"].efficiency
    assert t.slow[16] == pytest.approx((450e9 * share) / (8 * 50e9 * 0.8), rel=0.01)
    assert t.incast is not None and t.incast[:16].sum() == 0 and t.incast[16] == 1
    assert any("assumed" in note for note in found.notes)
    apart = Fleet(groups=(FleetGroup(devices="8x h100-sxm"), FleetGroup(devices="4x a100-80g-sxm")))
    assert joined(resolve(apart)).topology.hosts == 12


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: plan(single(4), 0.0, P), "bytes above 0"),
        (lambda: single(1), "at least 2 take part"),
        (lambda: tree([[1.0], "switch"]), "a number is a host"),
        (lambda: tree([[1.0], []]), "a number is a host"),
        (lambda: tree([1.0, 0.0]), "rates above 0"),
        (lambda: Topology(2, np.array([3, 2, -1]), np.ones(3), np.zeros(3)), "hosts first"),
        (lambda: brute.best(single(13), 1e6, P), "12 hosts"),
        (lambda: execute(plan(single(4), 1e6, P), np.ones((3, 4), dtype=np.int64)), "4 rows"),
        (lambda: joined(resolve(Fleet(devices="1x h100-sxm"))), "2 to 1,024"),
        (lambda: joined(resolve(Fleet(devices="8x h100-sxm")), "l40s"), "not a group"),
    ],
)
def test_what_cannot_be_is_refused(call, said):
    with pytest.raises(SpecError, match=said):
        call()
