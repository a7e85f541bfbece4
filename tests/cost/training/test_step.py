"""Laws that the time of a step obeys, whatever the constants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fleetcast.cost.training import system as systems
from fleetcast.cost.training.network import Job, Network, of
from fleetcast.cost.training.plans import plans
from fleetcast.cost.training.schedule import bubble, idle_weights, in_flight, last_in_flight
from fleetcast.cost.training.step import step
from fleetcast.cost.training.system import Practice, System, practice_of
from fleetcast.scenario.fleet.spec import Fleet
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.workload import catalog

WORK = ("gemm", "attention", "vector", "head", "recompute")
CLEAN = Practice(kernel=0.0, pace=0.0, gap=0.0, iteration=0.0, slow=0.0)


def system_of(devices: str, practice: Practice | None = CLEAN) -> System:
    return systems.of(resolve(Fleet(devices=devices)).groups[0], practice=practice)


def net(name: str = "megatron-7.5b") -> Network:
    return of(catalog.model(name))


def test_twice_the_copies_halve_the_work() -> None:
    system, job = system_of("64x a100-80g-sxm"), Job(2048, 512)
    taken = step(net(), job, plans(tensor=4, data=np.array([8, 16]), micro_batch=4), system)
    for name in WORK:
        assert taken[name][0] == pytest.approx(2 * taken[name][1])


def test_twice_the_batch_is_twice_the_work_and_one_update() -> None:
    system = system_of("64x a100-80g-sxm")
    plan = plans(tensor=4, data=16, micro_batch=4)
    one, two = (step(net(), Job(2048, batch), plan, system) for batch in (256, 512))
    for name in WORK:
        assert two[name] == pytest.approx(2 * one[name])
    assert two["optimizer"] == one["optimizer"]
    assert two["data_comm"] == one["data_comm"]


def test_full_recompute_costs_one_more_forward_pass() -> None:
    system, job = system_of("8x a100-80g-sxm"), Job(2048, 64)
    found = step(net(), job, plans(tensor=8, recompute=np.arange(3), micro_batch=4, fused=0), system)
    layers = sum(found[name][0] for name in ("gemm", "attention", "vector", "tensor_comm"))
    assert found["recompute"][0] == 0.0
    assert 0.25 * layers < found["recompute"][2] < 0.5 * layers
    assert 0 < found["recompute"][1] < found["attention"][0] / 2


def test_bubble_is_narayanans_share() -> None:
    system, job = system_of("64x a100-80g-sxm"), Job(2048, 64)
    found = step(net("gpt3-175b"), job, plans(tensor=8, pipeline=8, interleave=np.array([1, 2, 3]),
                                              schedule=np.array([1, 2, 2])), system)  # fmt: skip
    layers = sum(found[n] for n in ("gemm", "attention", "vector", "tensor_comm", "pipeline_comm"))
    share = found["bubble"] / layers
    assert share[:1] == pytest.approx(7 / 64, rel=1e-9)
    assert share[1] == pytest.approx(7 / 64 / 2, rel=0.02)
    assert share[2] == pytest.approx(7 / 64 / 3, rel=0.03)


def test_schedules_idle_as_their_papers_say() -> None:
    f, b, w = 1.0, 2.0, 1.0
    idle = bubble(np.arange(5), 8, np.array([1, 1, 4, 1, 1]), f, b, w)
    assert idle.tolist() == [21.0, 21.0, 5.25, 7.0, 6.0]
    assert bubble(np.arange(5), 1, 1, f, b, w).tolist() == [0.0] * 5
    assert in_flight(np.arange(5), 8, np.array([1, 1, 4, 1, 1]), 32).tolist() == [32.0, 8.0, 9.75, 8.0, 9.0]
    assert last_in_flight(np.arange(5), 8, np.array([1, 1, 4, 1, 1]), 32).tolist() == [32.0, 1.0, 6.25, 8.0, 9.0]
    assert in_flight(1, 8, 1, 3) == 3
    rounds, _, saved = idle_weights(3, 4, 1)
    assert (rounds, saved) == (3.0, 6.0)


def test_overlap_never_makes_a_step_longer() -> None:
    system, job = system_of("256x a100-80g-sxm", None), Job(2048, 256)
    for sharded in (0, 1, 3):
        plain, hidden = (
            step(net("megatron-39.1b"), job, plans(tensor=8, pipeline=2, data=16, zero=sharded, overlap=o,
                                                   sequence_parallel=1), system)["total"][0]
            for o in ((), ("tensor", "pipeline", "data", "input", "optimizer"))
        )  # fmt: skip
        assert hidden < plain


def test_messages_cost_more_between_nodes_than_within_one() -> None:
    job = Job(2048, 64)
    near = step(net(), job, plans(tensor=8), system_of("8x a100-80g-sxm"))["tensor_comm"][0]
    far = step(net(), job, plans(tensor=16), system_of("16x a100-80g-sxm"))["tensor_comm"][0]
    assert far > 1.5 * near


def test_stragglers_wait_for_the_slowest_machine() -> None:
    practice = Practice(slow=0.005, slower=0.1)
    assert practice.slowest(1) == pytest.approx(0.0005)
    assert practice.slowest(384) == pytest.approx(0.1 * (1 - 0.995**384))
    assert practice.slowest(100_000) == pytest.approx(0.1)


def test_off_loading_costs_the_link_what_computation_does_not_hide() -> None:
    system, job = system_of("8x a100-80g-sxm"), Job(2048, 8)
    slow = replace(system, host_link=1e9)
    plan = plans(data=8, offload=("weights", "optimizer"))
    fast_off, slow_off = (step(net(), job, plan, s)["offload"][0] for s in (system, slow))
    assert slow_off > fast_off > 0
    assert step(net(), job, plans(data=8), slow)["offload"][0] == 0.0


DEVICES = "a100-80g-sxm h100-sxm h200-sxm b200-sxm v100-sxm2-32g mi300x mi250x gaudi-3 l40s"


@pytest.mark.parametrize("device", DEVICES.split())
def test_every_accelerator_gets_a_sane_forecast(device: str) -> None:
    system = system_of(f"32x {device}", None)
    dtype = "bf16" if "bf16" in system.chip.peak else "fp16"
    job = Job(2048, 512, dtype=dtype)
    taken = step(net("megatron-1.7b"), job, plans(data=32, micro_batch=4, zero=1, overlap=("data",)), system)
    peak = system.chip.peak[dtype]
    share = net("megatron-1.7b").flops(2048) * 512 * 2048 / (32 * peak * taken["total"][0])
    assert 0.08 < share < 0.7


def test_devices_nobody_measured_get_the_wider_interval() -> None:
    assert practice_of("mi300x", "cdna3").spread > practice_of("h100-sxm", "hopper").spread
    assert "H100" in practice_of("h200-sxm", "hopper").source
