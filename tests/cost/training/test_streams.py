"""A model that streams through one device: bytes, seconds and the choice of what is swapped, against plain sums."""

from dataclasses import replace

import numpy as np
import pytest

from fleetcast.cost.training import network, streams, system
from fleetcast.cost.training.memory import layer_activations
from fleetcast.cost.training.plans import plans
from fleetcast.cost.training.step import step
from fleetcast.scenario.fleet.spec import Fleet
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.workload import catalog
from fleetcast.scenario.workload.training import Shape

GPT = network.of(Shape(layers=40, hidden=5120, heads=40, vocab=50257).model(1024))
MIXTRAL = network.of(catalog.model("mixtral-8x7b"))
LLAMA = network.of(catalog.model("llama-3.1-8b"))


def machine(**changes):
    base = system.of(resolve(Fleet(devices="1x rtx-4090")).groups[0])
    said = {"host_memory": 256e9, "host_bandwidth": 200e9, "ssd": 26e9, "ssd_write": 13.6e9} | changes
    return replace(base, **said)


def flow(net=GPT, batch=16, overlapped=True, **changes):
    job = network.Job(sequence=1024, batch=batch)
    return streams.stream(net, job, plans(micro_batch=batch), machine(**changes), overlapped=overlapped)


@pytest.mark.parametrize("net", [GPT, LLAMA, MIXTRAL], ids=["gpt", "llama", "mixtral"])
def test_pieces_are_all_that_a_layer_keeps_and_seconds_are_the_steps_own(net):
    s = flow(net)
    job, row = network.Job(sequence=1024, batch=16), plans(micro_batch=16)
    kept = sum(x.count / net.depth * float(layer_activations(net, x, job, row)[0][0]) for x in net.layers)
    assert s.kept + s.swappable == pytest.approx(kept, rel=1e-12)
    assert s.params * s.layers + s.table == net.params
    times = {name: float(column[0]) for name, column in step(net, job, row, s.system).items()}
    passes = sum(times[name] for name in ("gemm", "attention", "vector", "host"))
    assert s.layers * (s.forward + s.backward) == pytest.approx(passes, rel=1e-12)
    assert 0.0 <= float(s.again(0.0)) <= s.forward * (1 + 1e-12) and float(s.again(1.0)) == pytest.approx(
        0.0, abs=1e-12
    )


def test_what_is_computed_again_is_convex_in_what_is_swapped():
    share = np.linspace(0.0, 1.0, 201)
    slopes = np.diff(flow().again(share))
    assert (slopes <= 0).all() and (np.diff(slopes) >= -1e-12).all()


def test_the_bytes_of_each_resource_by_hand():
    s = flow(overlapped=True)
    found = streams.loads(s, 0.0)
    size = 2.0 * s.params
    assert found.forward["up"][0] == pytest.approx(size / s.system.host_link)
    assert found.forward["read"][0] == pytest.approx(size / 26e9)
    assert found.backward["read"][0] == pytest.approx((size + 12 * s.params) / 26e9)
    assert found.backward["write"][0] == pytest.approx(14 * s.params / 13.6e9)
    assert found.backward["host"][0] == pytest.approx(28 * s.params / 200e9)
    assert found.backward["down"][0] == pytest.approx(size / s.system.host_link)
    late = streams.loads(flow(overlapped=False), 0.0)
    every = GPT.params
    assert late.update[0] == pytest.approx(every * (12 / 26e9 + 28 / 200e9 + 14 / 13.6e9))
    assert late.backward["write"][0] == 0.0 and found.update[0] == 0.0


def test_an_iteration_is_never_shorter_than_any_resource_works():
    for batch, disks in ((4, 6.5e9), (16, 26e9), (32, 78e9)):
        s = flow(batch=batch, ssd=disks, ssd_write=disks / 2)
        for x in (0.0, 0.5, 1.0):
            found = streams.loads(s, x)
            for name in streams.RESOURCES:
                work = s.layers * (found.forward[name] + found.backward[name]) + found.outside[name]
                assert streams.time(s, x)[0] >= work[0]


@pytest.mark.parametrize("host", [60e9, 150e9, 768e9])
@pytest.mark.parametrize("disks", [3e9, 26e9, 78e9])
@pytest.mark.parametrize("room", [2e11, np.inf])
def test_the_best_share_is_no_worse_than_any_of_a_grid(host, disks, room):
    for batch in (4, 16, 32):
        s = flow(batch=batch, host_memory=host, ssd=disks, ssd_write=disks / 2, ssd_memory=room)
        share = streams.best(s)
        grid = np.linspace(0.0, 1.0, 801)
        held = np.array([streams.over(s, float(x)) <= 0 for x in grid])
        if not held.any():
            assert share == 0.0
            continue
        assert streams.over(s, share) <= 0
        assert streams.time(s, share)[0] <= streams.time(s, grid)[held].min() * (1 + 1e-12)


def test_faster_disks_never_slow_an_iteration_and_more_memory_never_hurts():
    took = [float(streams.time(s, streams.best(s))[0]) for s in (flow(ssd=d, ssd_write=d) for d in (3e9, 6e9, 5e10))]
    assert took == sorted(took, reverse=True)
    wide = [float(streams.time(s, streams.best(s))[0]) for s in (flow(host_memory=m) for m in (5e10, 2e11, 1e12))]
    assert wide == sorted(wide, reverse=True)


def test_bytes_lie_somewhere():
    s = flow(host_memory=60e9)
    held = streams.room(s, 1.0)
    moved = s.layers * (s.kept + s.swappable)
    free = 60e9 - streams.BUFFERS * s.params * 16
    assert held["host"] == pytest.approx(60e9)
    assert held["ssd"] == pytest.approx(14 * GPT.params + moved - free)
    terms = ("weights", "gradients", "activations", "buffers", "reserve")
    assert held["total"] == pytest.approx(sum(held[name] for name in terms))
    alone = streams.room(flow(ssd=0.0, host_memory=1e12), 0.0)
    assert alone["ssd"] == 0.0 and alone["host"] == pytest.approx(16 * GPT.params + s.layers * s.kept)


def test_a_share_that_spills_fits_the_hosts_memory_to_the_byte():
    for host in np.linspace(55e9, 200e9, 57):
        s = flow(batch=32, host_memory=float(host))
        for x in np.linspace(0.0, 1.0, 11):
            if float(streams.spill(s, x)) > 0:
                assert streams.room(s, float(x))["host"] == host
    short = streams.room(flow(host_memory=1e9), 1.0)
    assert short["host"] > 1e9 and short["ssd"] == pytest.approx(
        14 * GPT.params + 40 * (flow().kept + flow().swappable)
    )
