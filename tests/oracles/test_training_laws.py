"""Laws that any forecast of training obeys: more of a resource never harms, more work never takes less time.

Plans are drawn at random over models, devices and formats; a pair differs in one thing.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from fleetcast.cost.roofline import Chip
from fleetcast.cost.training import system as systems
from fleetcast.cost.training.memory import memory
from fleetcast.cost.training.network import Job, Network, of
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.step import step
from fleetcast.cost.training.system import System
from fleetcast.scenario.fleet.spec import Fleet
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.workload import catalog
from tests.cost.training.test_columns import drawn

CASES = [
    (model, device) for model in ("llama-2-7b", "gpt3-175b", "mixtral-8x7b", "deepseek-v2-lite")
    for device in ("a100-80g-sxm", "h100-sxm", "mi300x", "l40s", "b200-sxm")
]  # fmt: skip
SLACK = 1.0 + 1e-9


def case(model: str, device: str) -> tuple[Network, Job, Plans, System]:
    system = systems.of(resolve(Fleet(devices=f"64x {device}")).groups[0])
    net = of(catalog.model(model))
    return net, Job(2048, 192), drawn(net, 150, seed=len(model) * len(device)), system


def total(net: Network, job: Job, table: Plans, system: System) -> np.ndarray:
    return step(net, job, table, system)["total"]


def held(net: Network, job: Job, table: Plans, system: System) -> np.ndarray:
    found = memory(net, job, table, system)
    return found["total"] + found["host"] + found["ssd"]


def filling(table: Plans) -> Plans:
    """Gradients of weights fill bubbles in zero-bubble and DualPipe: by less where a host's link paces the passes."""
    return replace(table, offload=np.where(table.schedule >= 3, 0, table.offload))


@pytest.mark.parametrize(("model", "device"), CASES)
def test_faster_links_never_make_a_step_longer(model: str, device: str) -> None:
    net, job, table, system = case(model, device)
    before = total(net, job, table, system)
    for wider in (
        replace(system, inner=replace(system.inner, bandwidth=2 * system.inner.bandwidth)),
        replace(system, outer=replace(system.outer, bandwidth=2 * system.outer.bandwidth)),
        replace(system, host_link=2 * system.host_link), replace(system, host_bandwidth=2 * system.host_bandwidth),
    ):  # fmt: skip
        assert np.all(total(net, job, table, wider) <= before * SLACK)


@pytest.mark.parametrize(("model", "device"), CASES)
def test_more_recompute_never_takes_more_memory_or_less_time(model: str, device: str) -> None:
    net, job, table, system = case(model, device)
    table = replace(table, offload=table.offload & ~2)  # activations that are computed again need not travel
    none, some, full = (replace(table, recompute=np.full_like(table.recompute, kind)) for kind in range(3))
    for less, more in ((none, some), (some, full)):
        assert np.all(total(net, job, more, system) >= total(net, job, less, system) / SLACK)
        assert np.all(held(net, job, more, system) <= held(net, job, less, system) * SLACK)


@pytest.mark.parametrize(("model", "device"), CASES)
def test_more_sharding_never_takes_more_memory(model: str, device: str) -> None:
    net, job, table, system = case(model, device)
    rows = [held(net, job, replace(table, zero=np.full_like(table.zero, zero)), system) for zero in range(4)]
    for less, more in pairwise(rows[:3]):
        assert np.all(more <= less * SLACK)


@pytest.mark.parametrize(("model", "device"), CASES)
def test_twice_the_batch_never_takes_less_time_nor_more_than_twice(model: str, device: str) -> None:
    net, job, table, system = case(model, device)
    table = replace(table, micro_batch=np.ones_like(table.micro_batch))
    one, two = (total(net, replace(job, batch=batch), table, system) for batch in (192, 384))
    assert np.all(two >= one)
    assert np.all(two <= 2.0 * one * SLACK)


@pytest.mark.parametrize(("model", "device"), CASES)
def test_longer_sequences_never_take_less_time_or_memory(model: str, device: str) -> None:
    net, job, table, system = case(model, device)
    table = filling(table)
    long = replace(job, sequence=4096)
    assert np.all(total(net, long, table, system) >= total(net, job, table, system))
    assert np.all(held(net, long, table, system) >= held(net, job, table, system))


@pytest.mark.parametrize(("model", "device"), CASES)
def test_faster_devices_never_make_a_step_longer(model: str, device: str) -> None:
    net, job, table, system = case(model, device)
    table = filling(table)
    old = system.chip
    peak = {name: 2.0 * rate for name, rate in old.peak.items()}
    for chip in (
        Chip(old.id, old.architecture, old.bandwidth, old.units, peak),
        Chip(old.id, old.architecture, 2.0 * old.bandwidth, old.units, old.peak),
    ):
        # What hides is subtracted before the factors of practice are applied: a ring's factor may exceed attention's.
        assert np.all(total(net, job, table, replace(system, chip=chip)) <= total(net, job, table, system) * 1.001)


@pytest.mark.parametrize(("model", "device"), CASES)
def test_more_copies_on_more_devices_save_compute(model: str, device: str) -> None:
    net, job, table, system = case(model, device)
    table = replace(table, micro_batch=np.ones_like(table.micro_batch), zero=np.minimum(table.zero, 1),
                    offload=np.zeros_like(table.offload))  # fmt: skip
    wide = replace(table, data=2 * table.data)
    one, two = (step(net, job, rows, system) for rows in (table, wide))
    for name in ("gemm", "attention", "vector", "head", "recompute", "tensor_comm"):
        assert np.all(two[name] <= one[name] * SLACK), name
    assert np.all(held(net, job, wide, system) <= held(net, job, table, system) * SLACK)
    # Fixed work and messages alone may make a larger fleet slower.
    fixed = ("data_comm", "weight_gather", "optimizer", "bubble", "straggler", "expert_comm", "pipeline_comm", "host")
    rest = sum(two[name] - one[name] for name in fixed)
    assert np.all(two["total"] <= one["total"] * SLACK + np.maximum(rest, 0.0))
