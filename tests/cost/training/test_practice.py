"""What frameworks and pipelines do, and where each factor counts: kernels, ends of pipelines, rounds, bare PCIe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fleetcast.cost.collectives import collective_time, volume
from fleetcast.cost.training import system as systems
from fleetcast.cost.training.memory import memory, stage_params
from fleetcast.cost.training.network import Job, Network, of
from fleetcast.cost.training.plans import Plans, plans
from fleetcast.cost.training.schedule import in_flight, light_ends
from fleetcast.cost.training.step import parts, step
from fleetcast.cost.training.system import Practice, System, practice_of
from fleetcast.scenario.fleet.spec import Fleet
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.load import load_training
from fleetcast.scenario.workload import catalog
from fleetcast.sim.training.setting import setting
from fleetcast.sim.training.world import simulate

LLAMA: Network = of(catalog.model("llama-3.1-8b"))


def system_of(devices: str, practice: Practice | None = None) -> System:
    return systems.of(resolve(Fleet(devices=devices)).groups[0], practice=practice)


def longer(plan: Plans, job: Job, **factors: float) -> bool:
    """Whether factors twice as large make a step on H100s longer."""
    base = system_of("16x h100-sxm")
    more = replace(base, practice=replace(base.practice, **factors))
    return bool(step(LLAMA, job, plan, more)["total"][0] > step(LLAMA, job, plan, base)["total"][0])


@pytest.mark.parametrize(
    ("plan", "own"),
    [
        (plans(data=16, zero=3), "fused"), (plans(data=16, zero=2), "fused"), (plans(data=16, zero=1), "flash"),
        (plans(tensor=8, data=2, zero=3), "flash"), (plans(pipeline=2, data=8, zero=2), "flash"),
    ],
)  # fmt: skip
def test_attention_is_that_of_the_framework_that_shards_so(plan: Plans, own: str) -> None:
    job = Job(8192, 16)
    for name in ("fused", "flash", "narrow"):
        value = 2.0 * getattr(practice_of("h100-sxm", "hopper"), name)
        assert longer(plan, job, **{name: value}) == (name == own), name
    assert longer(plan, job, eager=5.0) == (own == "fused")


def test_products_of_8_bits_have_a_factor_that_others_do_not() -> None:
    plan = plans(data=16, zero=1)
    assert not longer(plan, Job(8192, 16, dtype="bf16"), eight=2.0)
    assert longer(plan, Job(8192, 16, dtype="fp8"), eight=2.0)


def test_pytorchs_own_kernels_move_more_of_a_gated_layer_than_fused_ones() -> None:
    job, system = Job(4096, 16), system_of("16x a100-80g-sxm", Practice())
    fused, bare = (parts(LLAMA, job, plans(data=16, zero=zero), system) for zero in (1, 3))
    assert 2.0 < bare.forward["eager"][0] / fused.forward["vector"][0] < 4.0
    gpt = of(catalog.model("megatron-1.7b"))
    fused, bare = (parts(gpt, job, plans(data=16, zero=zero), system) for zero in (1, 3))
    assert bare.forward["eager"][0] == fused.forward["vector"][0]


def test_stages_that_lack_a_layer_or_two_lack_them_at_their_ends() -> None:
    first, last = light_ends(70, np.array([12, 8, 7, 1]), 1)  # BLOOM; GLM-130B; ten each; one stage
    assert first.tolist() == last.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert [float(x) for x in light_ends(126, 16, 8)] == [1.0, 1.0]  # Llama 3
    assert [float(x) for x in light_ends(61, 16, 1)] == [0.0, 0.0]  # three places: a stage is short, who says which
    assert [float(x) for x in light_ends(11, 4, 1)] == [0.0, 1.0]
    assert [float(x) for x in light_ends(14, 2, 4)] == [0.0, 0.0]  # both stages lack one: none is fuller


def test_a_head_in_a_layers_place_costs_what_it_is_longer_than_a_layer() -> None:
    bloom = of(catalog.model("bloom-176b"))
    system, job = system_of("384x a100-80g-sxm", Practice(kernel=0.0, pace=0.0, gap=0.0)), Job(2048, 2048)
    plan = plans(tensor=4, pipeline=12, data=8, micro_batch=2, zero=1, sequence_parallel=1)
    table = parts(bloom, job, plan, system)
    layer = sum(float(c[0]) for p in (table.forward, table.backward) for c in p.values()) / 6
    found = step(bloom, job, plan, system)["head"][0]
    assert found == pytest.approx(float(table.micro[0]) * max(float(table.head[0]) - layer, 0.0))
    (first, last, second), _ = stage_params(bloom, plan)
    whole = sum(x.count * x.params for x in bloom.layers) / 70 / 4
    table_params = bloom.table_params / 4
    assert second[0] == pytest.approx(6 * whole, rel=1e-3)
    assert first[0] == pytest.approx(5 * whole + table_params, rel=1e-3)
    assert last[0] == pytest.approx(5 * whole + table_params, rel=1e-3)


def test_no_more_micro_batches_are_in_flight_than_there_are() -> None:
    assert in_flight(2, 16, 8, np.array([16, 32])).tolist() == [16.0, 16 + 15 / 8]
    assert in_flight(2, 16, 8, np.array([16, 32]), 1).tolist() == [16.0, 16 + 13 / 8]
    assert in_flight(1, 8, 1, 32, 1) == 7.0


def test_a_pipeline_in_pieces_adds_up_and_gathers_once_a_round() -> None:
    system, job = system_of("256x h100-sxm"), Job(4096, 256)
    plan = plans(tensor=4, pipeline=4, data=16, interleave=np.array([1, 2]), schedule=np.array([1, 2]), zero=2)
    table = parts(of(catalog.model("llama-2-70b")), job, plan, system)
    assert table.micro.tolist() == [16.0, 16.0]
    assert table.reduce[0] == pytest.approx(4 * table.reduce[1])
    held = memory(of(catalog.model("llama-2-70b")), job, plan, system)
    assert held["gradients"][0] == held["gradients"][1]
    whole = parts(of(catalog.model("llama-2-70b")), job, replace(plan, zero=np.full_like(plan.zero, 3)), system)
    assert whole.gather.tolist() == pytest.approx([32 * table.gather[0], 8 * table.gather[0]])


LLAMA_3 = {"tensor_parallel": 8, "pipeline_parallel": 16, "interleave": 8, "overlap": ["pipeline", "data"]}


@pytest.mark.parametrize(("devices", "sequence", "context"), [(8192, 8192, 1), (16384, 8192, 1), (16384, 131072, 16)])
def test_the_plans_that_trained_llama_3_fit_and_recompute_nothing(devices: int, sequence: int, context: int) -> None:
    found = simulate(setting(load_training({
        "fleet": {"devices": f"{devices}x h100-sxm"},
        "workload": {"kind": "training", "model": "llama-3.1-405b", "sequence": sequence,
                     "batch": 2**24 // sequence},
        "plan": LLAMA_3 | {"context_parallel": context},
    })))  # fmt: skip
    assert found.metrics["fits"]
    assert (found.plan["zero"], found.plan["recompute"]) == (2, "none")
    assert any("zero 2 (nothing is recomputed then)" in note for note in found.notes)
    told = {8192: 0.43, 16384: 0.41 if context == 1 else 0.38}[devices]
    assert found.metrics["mfu"] == pytest.approx(told, rel=0.12)


def test_bare_pcie_reaches_what_was_published_and_a_measured_link_what_was_measured() -> None:
    def reached(device: str, ranks: int) -> float:
        link = system_of(f"8x {device}").inner
        return 1e9 * float(volume("all_reduce", ranks)) / float(collective_time("all_reduce", 1e9, ranks, link))

    assert reached("h100-pcie", 8) == pytest.approx(28e9, rel=0.05)  # NVIDIA/nccl, issue 1639
    assert reached("h100-pcie", 4) == pytest.approx(35e9, rel=0.05)
    assert reached("l40s", 8) == pytest.approx(2e9, rel=0.1)  # the one server of serving's tables


def test_dualpipe_hides_messages_to_experts_beside_passes_of_the_other_direction() -> None:
    deepseek, system = of(catalog.model("deepseek-v3")), system_of("512x h100-sxm")
    plan = plans(pipeline=16, data=32, expert=32, zero=1, schedule=np.array([1, 4]))
    plain, dual = step(deepseek, Job(4096, 2048), plan, system)["expert_comm"]
    other = step(deepseek, Job(4096, 2048), plan, system)
    work = sum(float(other[n][1]) for n in ("gemm", "attention", "vector"))
    assert dual == pytest.approx(max(plain - work, 0.0) + 0.1256 * min(plain, work), rel=1e-9)
