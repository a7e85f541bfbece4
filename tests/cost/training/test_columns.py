"""The columns' result is that of one plan with plain numbers, for plans drawn at random from the whole space."""

from __future__ import annotations

import numpy as np
import pytest

from fleetcast.cost.training import system as systems
from fleetcast.cost.training.memory import memory
from fleetcast.cost.training.network import Job, Network, of
from fleetcast.cost.training.plans import SCHEDULES, Plans, plans
from fleetcast.cost.training.step import TERMS, step
from fleetcast.cost.training.system import Practice, System
from fleetcast.scenario.fleet.spec import Fleet
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.workload import catalog
from tests.cost.training.plain import Plan, room, seconds

PRACTICE = Practice(
    gemm=1.1, attention=1.2, fused=1.3, narrow=1.4, vector=0.9, eager=1.9, tensor=1.5, pipeline=0.8, data=1.6,
    optimizer=0.7, head=1.05, gap=3e-6, kernel=2e-5, pace=3e-5, iteration=4e-3, slow=0.01, slower=0.2,
)  # fmt: skip


def system_of(devices: str) -> System:
    return systems.of(resolve(Fleet(devices=devices)).groups[0], practice=PRACTICE)


def drawn(net: Network, count: int, seed: int) -> Plans:
    """Plans of 64 devices, drawn from every choice there is."""
    rng = np.random.default_rng(seed)
    tensor = rng.choice([1, 2, 4, 8], count)
    pipeline = rng.choice([1, 2, 4], count)
    context = np.where(tensor * pipeline <= 16, rng.choice([1, 2, 4], count), 1)
    data = 64 // (tensor * pipeline * context)
    columns = {
        "schedule": rng.integers(0, len(SCHEDULES), count), "recompute": rng.integers(0, 3, count),
        "sequence_parallel": rng.integers(0, 2, count), "zero": rng.integers(0, 4, count),
        "tensor_messages": rng.integers(0, 2, count), "overlap": rng.integers(0, 32, count),
        "offload": np.where(rng.random(count) < 0.5, rng.integers(0, 8, count), 0),
        "fused": rng.integers(0, 2, count), "micro_batch": rng.choice([1, 2, 3], count),
    }  # fmt: skip
    interleave = np.where((columns["schedule"] == 2) & (pipeline > 1), rng.choice([1, 2, 4], count), 1)
    expert = np.where(data >= 4, 4, 1) if net.experts else np.ones(count, dtype=int)
    shared = np.where(rng.integers(0, 2, count) == 1, 1, tensor) if net.experts else tensor
    return plans(
        tensor=tensor, pipeline=pipeline, data=data, context=context, interleave=interleave, expert=expert,
        expert_tensor=shared, **columns,
    )  # fmt: skip


@pytest.mark.parametrize("model", ["megatron-1.7b", "llama-2-7b", "mixtral-8x7b", "deepseek-v2-lite", "gemma-2-9b"])
@pytest.mark.parametrize("devices", ["64x a100-80g-sxm", "64x h100-sxm", "64x v100-sxm2-32g", "64x gaudi-3"])
def test_columns_equal_one_plan_with_plain_numbers(model: str, devices: str) -> None:
    net, system = of(catalog.model(model)), system_of(devices)
    dtype = {"64x v100-sxm2-32g": "fp16", "64x gaudi-3": "fp32", "64x h100-sxm": "fp8"}.get(devices, "bf16")
    job = Job(2048, 96, dtype=dtype)
    table = drawn(net, 120, seed=len(model) + len(devices))
    taken, held = step(net, job, table, system), memory(net, job, table, system)
    for i in range(len(table)):
        plan = Plan(table, i)
        expected = seconds(net, job, plan, system)
        for name in TERMS:
            assert taken[name][i] == pytest.approx(expected[name], rel=1e-9, abs=1e-15), (name, vars(plan))
        assert taken["total"][i] == pytest.approx(expected["total"], rel=1e-9)
        assert held["total"][i] == pytest.approx(room(net, job, plan, system)[0], rel=1e-9), vars(plan)
        assert held["host"][i] == pytest.approx(room(net, job, plan, system)[1], rel=1e-9), vars(plan)


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    net, system, job = of(catalog.model("llama-2-7b")), system_of("64x a100-80g-sxm"), Job(2048, 96)
    table = drawn(net, 200, seed=7)
    together = step(net, job, table, system)["total"]
    alone = [step(net, job, table.take([i]), system)["total"][0] for i in range(0, 200, 9)]
    assert together[::9] == pytest.approx(alone, rel=1e-12)


def test_terms_add_up() -> None:
    net, system, job = of(catalog.model("mixtral-8x7b")), system_of("64x h100-sxm"), Job(2048, 96)
    table = drawn(net, 300, seed=3)
    taken = step(net, job, table, system)
    assert set(taken) == {*TERMS, "total"}
    assert sum(taken[name] for name in TERMS) == pytest.approx(taken["total"], rel=1e-12)
    assert all(np.all(taken[name] >= 0) for name in TERMS)
