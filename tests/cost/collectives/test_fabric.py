"""Collectives: volumes, measured curves, scaling, and two levels of links."""

import numpy as np
import pytest

from fleetcast.cost.collectives import (
    OPERATIONS,
    Affine,
    Fabric,
    collective_time,
    fabric_for,
    nested_time,
    volume,
)
from fleetcast.scenario.fleet.catalog import device, devices, link, links

SIZES = np.geomspace(64, 4e9, 200)


def simple(bandwidth=1e11, latency=0.0, **more):
    rows = {op: Affine(launch=5e-6, hop=1e-6, efficiency=0.5) for op in OPERATIONS}
    return Fabric("test", bandwidth, latency, rows, **more)


def test_volumes_are_those_of_ring_algorithms():
    assert volume("all_reduce", 4) == 1.5
    assert volume("all_gather", 4) == volume("reduce_scatter", 4) == volume("all_to_all", 4) == 0.75
    assert volume("send", 2) == 1.0


def test_unmeasured_links_are_latency_and_volume():
    got = collective_time("all_reduce", [0.0, 1e9], 4, simple())
    assert got.tolist() == pytest.approx([0.0, 5e-6 + 3 * 1e-6 + 1.5e9 / 5e10])


# Thakur, Rabenseifner, Gropp 2005, sections 3 and 4; small messages, then large ones: rounds, share of the buffer.
FORMS = [
    ("direct", "all_reduce", 8, (1, 7.0), (2, 1.75)),
    ("direct", "all_gather", 8, (1, 0.875), (1, 0.875)),
    ("direct", "all_to_all", 3, (1, 2 / 3), (1, 2 / 3)),
    ("tree", "all_reduce", 8, (3, 3.0), (6, 1.75)),
    ("tree", "all_reduce", 5, (3, 3.0), (6, 1.6)),
    ("tree", "reduce_scatter", 8, (3, 0.875), (3, 0.875)),
    ("tree", "all_to_all", 8, (3, 1.5), (7, 0.875)),
    ("torus", "all_reduce", 8, (8, 1.75), (8, 1.75)),  # 2 x 4: one and three steps, there and back
    ("torus", "all_gather", 16, (6, 0.9375), (6, 0.9375)),
    ("torus", "all_gather", 2, (1, 0.5), (1, 0.5)),
    ("tree", "send", 2, (1, 1.0), (1, 1.0)),
]


@pytest.mark.parametrize(("rounds", "operation", "ranks", "small", "large"), FORMS)
def test_assumed_fabrics_count_rounds_and_bytes_of_textbook_algorithms(rounds, operation, ranks, small, large):
    fabric = simple(latency=2e-6, rounds=rounds)
    got = collective_time(operation, [0.0, 64.0, 1e9], ranks, fabric)
    want = [n * 2e-6 + share * size / 5e10 for size, (n, share) in ((64.0, small), (1e9, large))]
    assert got.tolist() == pytest.approx([0.0, *(5e-6 + t for t in want)])


def test_a_mesh_gives_a_pair_one_link_and_all_ranks_all_of_them():
    fabric = simple(rounds="direct", peers=7)
    assert collective_time("send", 1e9, 2, fabric) == pytest.approx(5e-6 + 1e9 / (5e10 / 7))
    pair, all_ranks = (collective_time("all_gather", 1e9, n, fabric) for n in (2, 8))
    assert pair == pytest.approx(5e-6 + 0.5e9 / (5e10 / 7))
    assert all_ranks == pytest.approx(5e-6 + 0.875e9 / 5e10)


@pytest.mark.parametrize("name", ["mi300x", "gaudi-3"])
def test_latency_of_fully_connected_devices_does_not_grow_with_ranks(name):
    found = link(device(name).link)
    fabric = fabric_for(name, found.kind, found.bandwidth, found.latency, found.peers)
    two, eight = (float(collective_time("all_reduce", 1024, n, fabric)) for n in (2, 8))
    assert fabric.kind_of == "assumed" and eight == pytest.approx(two, rel=0.01)
    # nor does it where it was measured, up to a tenth per doubling of the ranks
    nvlink = link("nvlink-4")
    measured = fabric_for("h100-sxm", nvlink.kind, nvlink.bandwidth)
    two, eight = (float(collective_time("all_reduce", 1024, n, measured)) for n in (2, 8))
    assert 1.0 <= eight / two < 1.25


# Measured: aiconfigurator comm tables of L40S and B60 over PCIe 4 x16 (Apache-2.0), us.
PAIRS = [("l40s", 2, 2**26, 3359.0), ("l40s", 8, 2**26, 55412.0), ("b60", 2, 2**26, 3545.0)]


@pytest.mark.parametrize(("name", "ranks", "size", "us"), PAIRS)
def test_pairs_over_pcie_reach_more_than_eight_ranks_that_share_bridges(name, ranks, size, us):
    kind = fabric_for("nobody", "pcie", 31.5e9)
    assert kind.kind_of == "link kind"
    assert collective_time("all_reduce", size, ranks, kind) * 1e6 == pytest.approx(us, rel=0.2)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_rank_needs_nobody(operation):
    assert collective_time(operation, SIZES, 1, simple()).tolist() == [0.0] * SIZES.size


# Measured: aiconfigurator comm tables (Apache-2.0), elements x 2 bytes: vLLM's custom all-reduce in a CUDA graph up
# to its size limit, NCCL 2.27 above; us.
MEASURED = [
    ("h100-sxm", "all_reduce", 2, 16384, 4.5),
    ("h100-sxm", "all_reduce", 8, 65536, 6.4),
    ("h100-sxm", "all_reduce", 8, 4194304, 30.8),
    ("h100-sxm", "all_reduce", 8, 536870912, 2111.4),
    ("h100-sxm", "all_gather", 4, 33554432, 108.9),
    ("a100-80g-sxm", "all_reduce", 4, 1048576, 18.3),
]


@pytest.mark.parametrize(("name", "operation", "ranks", "size", "us"), MEASURED)
def test_measured_curves(name, operation, ranks, size, us):
    found = link(device(name).link)
    fabric = fabric_for(name, found.kind, found.bandwidth, found.latency)
    assert fabric.kind_of == "measured"
    assert collective_time(operation, size, ranks, fabric) * 1e6 == pytest.approx(us, rel=0.1)


@pytest.mark.parametrize("name", sorted(devices()))
def test_every_device_can_join_and_larger_is_never_faster(name):
    found = link(device(name).link)
    fabric = fabric_for(name, found.kind, found.bandwidth, found.latency, found.peers)
    for operation in OPERATIONS:
        for ranks in (2, 3, 8, 72):
            times = collective_time(operation, SIZES, ranks, fabric)
            assert np.all(np.isfinite(times)) and np.all(times > 0)
            assert np.all(np.diff(times) >= -1e-12)


def test_a_faster_link_is_never_slower():
    for name, kind in (("h100-sxm", "nvlink"), ("l40s", "pcie"), ("mine", "ethernet")):
        for operation in OPERATIONS:
            for ranks in (2, 8):
                slow = collective_time(operation, SIZES, ranks, fabric_for(name, kind, 1e11))
                fast = collective_time(operation, SIZES, ranks, fabric_for(name, kind, 2e11))
                assert np.all(fast <= slow * (1 + 1e-12))


def test_curves_are_used_only_on_the_link_they_were_taken_on():
    assert not fabric_for("h100-sxm", "pcie", 6e10).curves
    assert fabric_for("h100-sxm", "nvlink", 4.5e11).curves


def test_beyond_the_last_knot_time_grows_with_size():
    fabric = fabric_for("h100-sxm", "nvlink", 4.5e11)
    one, two = collective_time("all_reduce", [4e9, 8e9], 8, fabric)
    assert two / one == pytest.approx(2.0, rel=0.01)


def test_every_catalogue_link_has_coefficients():
    for found in links().values():
        fabric = fabric_for("unknown", found.kind, found.bandwidth, found.latency)
        assert set(fabric.affine) == set(OPERATIONS)
        assert fabric.source


def test_two_levels():
    inner, outer = simple(1e12), simple(1e10, 5e-6)
    size = 1e9
    assert nested_time("all_reduce", size, 8, 8, inner, outer) == collective_time("all_reduce", size, 8, inner)
    assert nested_time("send", size, 16, 8, inner, outer) == collective_time("send", size, 2, outer)
    got = nested_time("all_reduce", size, 16, 8, inner, outer)
    expected = (
        collective_time("reduce_scatter", size, 8, inner)
        + collective_time("all_reduce", size / 8, 2, outer)
        + collective_time("all_gather", size, 8, inner)
    )
    assert got == pytest.approx(float(expected))
    apart = nested_time("all_reduce", size, 4, 1, inner, outer)
    assert apart == collective_time("all_reduce", size, 4, outer)
    gather = nested_time("all_gather", size, 16, 8, inner, outer)
    assert collective_time("all_gather", size, 8, inner) < gather < got
    both = nested_time("all_to_all", size, 16, 8, inner, outer)
    assert both == pytest.approx(float(collective_time("all_to_all", size, 2, outer)))
