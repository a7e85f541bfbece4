"""No forecast is faster than the hardware: on every device of the catalogue, in every format, under any plan."""

from __future__ import annotations

import numpy as np
import pytest

from fleetcast.cost.training import system as systems
from fleetcast.cost.training.energy import flops
from fleetcast.cost.training.memory import memory
from fleetcast.cost.training.network import Job, of
from fleetcast.cost.training.plans import plans
from fleetcast.cost.training.step import TERMS, step
from fleetcast.scenario.fleet import catalog as devices
from fleetcast.scenario.fleet.spec import Fleet
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.training_plan import DTYPES
from fleetcast.scenario.workload import catalog
from fleetcast.scenario.workload.training import Shape
from tests.cost.training.test_columns import drawn

MODELS = ("gpt3-175b", "llama-2-7b", "mixtral-8x7b", "deepseek-v2-lite", "gemma-2-9b")


def names() -> list[str]:
    return [name for name in devices.devices() if set(devices.device(name).peak) & set(DTYPES)]


@pytest.mark.parametrize("device", names())
@pytest.mark.filterwarnings("error")
def test_no_plan_beats_the_peak_in_any_format(device: str) -> None:
    system = systems.of(resolve(Fleet(devices=f"64x {device}")).groups[0])
    rng = np.random.default_rng(len(device))
    for dtype in [name for name in DTYPES if name in system.chip.peak]:
        for name in MODELS:
            net = of(catalog.model(name))
            job = Job(int(rng.choice([512, 2048, 32768])), 96, dtype=dtype)
            table = drawn(net, 25, seed=len(device) + len(name))
            taken, held, work = step(net, job, table, system), memory(net, job, table, system), flops(net, job, table)
            for part in (*(taken[term] for term in TERMS), *held.values()):
                assert np.all(np.isfinite(part))
                assert np.all(part >= 0)
            peak = 64 * system.chip.peak[dtype] * taken["total"] / (job.batch * job.sequence)
            assert np.all(net.flops(job.sequence, causal=True) <= peak), (dtype, name)
            assert np.all(work["model"] + work["again"] <= peak), (dtype, name)


@pytest.mark.parametrize("seed", range(4))
def test_no_shape_beats_the_peak(seed: int) -> None:
    rng = np.random.default_rng(seed)
    system = systems.of(resolve(Fleet(devices=f"64x {rng.choice(['a100-80g-sxm', 'gaudi-3', 'mi300x'])}")).groups[0])
    for _ in range(10):
        heads = int(rng.choice([8, 16, 64]))
        shape = Shape(layers=int(rng.integers(4, 40)), hidden=heads * int(rng.choice([64, 128])), heads=heads,
                      vocab=int(rng.choice([1000, 500_000])), gated=bool(rng.integers(2)),
                      experts=int(rng.choice([0, 8])))  # fmt: skip
        for dtype in ("bf16", "fp32"):
            job = Job(int(rng.choice([128, 4096])), 96, dtype=dtype)
            net = of(shape.model(job.sequence))
            table = drawn(net, 40, seed=seed)
            taken, work = step(net, job, table, system), flops(net, job, table)
            assert np.all((work["model"] + work["again"]) * job.batch * job.sequence
                          <= 64 * system.chip.peak[dtype] * taken["total"])  # fmt: skip


def test_wider_formats_are_never_faster_or_smaller() -> None:
    system, net = systems.of(resolve(Fleet(devices="64x h100-sxm")).groups[0]), of(catalog.model("llama-2-7b"))
    table = drawn(net, 100, seed=1)
    half, whole = (step(net, Job(2048, 96, dtype=dtype), table, system) for dtype in ("bf16", "fp32"))
    for term in ("gemm", "attention", "vector", "head"):
        assert np.all(whole[term] > half[term]), term
    assert np.all(whole["total"] > half["total"])
    kept, wide = (memory(net, Job(2048, 96, dtype=dtype), table, system) for dtype in ("bf16", "fp32"))
    assert np.all(wide["activations"] >= 2.0 * kept["activations"] * (table.offload & 2 == 0))
    byte = step(net, Job(2048, 96, dtype="fp8"), table, system)
    assert np.allclose(byte["head"], half["head"])
    assert np.allclose(byte["attention"], half["attention"])
    many = plans(tensor=8, data=8, micro_batch=np.array([4, 8]))  # few rows are no faster in 8 bits
    byte, half = (step(net, Job(2048, 96, dtype=dtype), many, system) for dtype in ("fp8", "bf16"))
    assert np.all(byte["gemm"] < half["gemm"])
