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


def simple(bandwidth=1e11, latency=0.0):
    rows = {op: Affine(launch=5e-6, hop=1e-6, efficiency=0.5) for op in OPERATIONS}
    return Fabric("test", bandwidth, latency, rows)


def test_volumes_are_those_of_ring_algorithms():
    assert volume("all_reduce", 4) == 1.5
    assert volume("all_gather", 4) == volume("reduce_scatter", 4) == volume("all_to_all", 4) == 0.75
    assert volume("send", 2) == 1.0


def test_unmeasured_links_are_latency_and_volume():
    got = collective_time("all_reduce", [0.0, 1e9], 4, simple(latency=2e-6))
    assert got.tolist() == pytest.approx([0.0, 5e-6 + 3 * 3e-6 + 1.5e9 / 5e10])


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
    fabric = fabric_for(name, found.kind, found.bandwidth, found.latency)
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
