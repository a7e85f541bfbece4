"""An iteration of training as an Outcome: sums, closed forms, what is filled in and what is refused."""

import math

import numpy as np
import pytest

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.cost.training.energy import WAITING
from fleetcast.cost.training.memory import TERMS as MEMORY
from fleetcast.cost.training.step import TERMS
from fleetcast.scenario.load import load
from fleetcast.scenario.training_plan import TrainingPlan
from fleetcast.sim.training.completing import columns, complete, decided
from fleetcast.sim.training.setting import setting
from fleetcast.sim.training.world import simulate

GPT = {"layers": 24, "hidden": 2048, "heads": 16, "vocab": 51200}


def state(plan=None, **changes):
    """A small GPT on 32 devices."""
    workload = {"kind": "training", "model": GPT, "sequence": 2048, "batch": 64} | changes.pop("workload", {})
    fleet = {"devices": "32x a100-80g-sxm"} | changes.pop("fleet", {})
    return setting(load({"fleet": fleet, "workload": workload, "plan": plan or {}} | changes))


def test_terms_sum_to_the_iteration_and_bytes_to_the_memory():
    outcome = simulate(state({"tensor_parallel": 4, "pipeline_parallel": 2, "micro_batch": 2}))
    metrics = outcome.metrics
    assert set(metrics["breakdown"]) == set(TERMS)
    assert sum(metrics["breakdown"].values()) == pytest.approx(metrics["iteration_time"], rel=1e-12)
    assert sum(outcome.breakdown["memory"].values()) == pytest.approx(metrics["memory"], rel=1e-12)
    assert set(outcome.breakdown["memory"]) <= set(MEMORY)
    assert sum(outcome.breakdown["energy"].values()) == pytest.approx(metrics["energy"], rel=1e-12)
    assert set(WAITING) < set(TERMS)


def test_mfu_is_narayanans_flop_count_over_the_peak():
    metrics = simulate(state({"tensor_parallel": 2})).metrics
    b, s, layers, h, v = 64, 2048, GPT["layers"], GPT["hidden"], GPT["vocab"]
    flops = 72 * b * s * layers * h**2 * (1 + s / (6 * h) + v / (12 * layers * h))  # SC 2021, without recompute
    assert metrics["flops"] == pytest.approx(flops, rel=1e-9)
    peak = 312e12 * 32
    assert metrics["mfu"] == pytest.approx(flops / peak / metrics["iteration_time"], rel=1e-9)
    assert metrics["hfu"] == metrics["mfu"]
    full = simulate(state({"tensor_parallel": 2, "recompute": "full"})).metrics
    layers_again = (flops - 6 * b * s * h * v) / 3
    assert full["hfu"] / full["mfu"] == pytest.approx(1 + layers_again / flops, rel=1e-9)
    assert full["iteration_time"] > metrics["iteration_time"] and full["memory"] < metrics["memory"]


def test_selective_recompute_is_work_only_where_attention_keeps_scores():
    kept = simulate(state({"recompute": "selective", "fused_attention": False})).metrics
    fused = simulate(state({"recompute": "selective", "fused_attention": True})).metrics
    assert kept["hfu"] > kept["mfu"] and fused["hfu"] == fused["mfu"]


def test_money_energy_and_carbon_follow_the_time():
    outcome = simulate(
        state({"tensor_parallel": 2}, fleet={"price": {"a100-80g-sxm": "2 $/h"}, "grid": 400.0, "pue": 1.5})
    )
    m = outcome.metrics
    assert m["cost"] == pytest.approx(2.0 * 32 * m["iteration_time"] / 3600)
    assert m["carbon"] == pytest.approx(m["energy"] / 3.6e6 * 400)
    plain = simulate(state({"tensor_parallel": 2})).metrics
    assert m["energy"] == pytest.approx(1.5 * plain["energy"])
    idle, most = 80.0 * 32, 400.0 * 32
    assert idle < plain["power"] <= most


def test_the_whole_job_is_its_iterations():
    m = simulate(state({"tensor_parallel": 2}, workload={"tokens": 10**9})).metrics
    count = math.ceil(1e9 / (64 * 2048))
    assert m["job"]["iterations"] == count
    assert m["job"]["time"] == pytest.approx(count * m["iteration_time"])
    assert m["job"]["cost"] == pytest.approx(count * m["cost"])
    assert "job" not in simulate(state({"tensor_parallel": 2})).metrics


def test_intervals_hold_the_value_and_follow_the_spread():
    outcome = simulate(state({"tensor_parallel": 2}))
    spread = state().system.practice.spread
    low, high = outcome.intervals["iteration_time"]
    value = outcome.metrics["iteration_time"]
    assert low < value < high and math.log(high / value) == pytest.approx(1.2815515655 * spread, rel=1e-6)
    assert math.log(value / low) == pytest.approx(math.log(high / value))
    wide = outcome.intervals["energy"]
    assert wide[1] / outcome.metrics["energy"] > high / value, "the power model adds its own"


def test_a_plan_that_does_not_fit_says_which_term_and_by_how_much():
    outcome = simulate(state({}, workload={"model": "gpt3-175b"}, fleet={"devices": "64x a100-80g-sxm"}))
    over = outcome.provenance["over"]
    assert outcome.metrics["fits"] is False and outcome.slo["met"] is False
    assert over["need"] == outcome.metrics["memory"] > over["have"] == 81920 * 2**20
    assert over["term"] == max(outcome.breakdown["memory"], key=outcome.breakdown["memory"].get)


def test_attention_is_fused_where_published_runs_of_its_kind_fused_it():
    gpt, a100 = {"model": "megatron-7.5b"}, {"devices": "32x a100-80g-sxm"}
    full = TrainingPlan(tensor_parallel=4, pipeline_parallel=2, recompute="full")
    for workload, fleet, plan, fused in (
        (gpt, a100, TrainingPlan(), False), (gpt, a100, TrainingPlan(zero=3), True), (gpt, a100, full, False),
        (gpt, {"devices": "32x h100-sxm"}, TrainingPlan(), True), ({"model": "llama-2-7b"}, a100, TrainingPlan(), True),
    ):  # fmt: skip
        assert complete(state(workload=workload, fleet=fleet), plan).plan.fused_attention is fused
    as_in_2021 = complete(state(workload=gpt, fleet=a100), full).plan
    assert as_in_2021.sequence_parallel is False and as_in_2021.overlap == ()
    later = complete(state(workload=gpt, fleet=a100), TrainingPlan(tensor_parallel=4, recompute="selective")).plan
    assert later.sequence_parallel is True and later.overlap == ("data",)


def test_what_is_left_out_is_filled_in_and_noted():
    made = complete(state(), TrainingPlan())
    plan = made.plan
    assert (plan.tensor_parallel, plan.pipeline_parallel, plan.data_parallel, plan.micro_batch) == (1, 1, 32, 1)
    assert plan.schedule == "1f1b" and plan.zero == 1 and plan.dtype == "bf16"
    assert plan.sequence_parallel is False and plan.tensor_messages == "all_reduce"
    assert plan.recompute == "none" and "recompute none (the least that fits)" in made.notes[0]
    split = complete(state(), TrainingPlan(tensor_parallel=4, pipeline_parallel=2, interleave=3)).plan
    assert split.data_parallel == 4 and split.schedule == "interleaved"
    assert split.sequence_parallel is True and split.tensor_messages == "scatter_gather"
    assert complete(state(), split) == type(made)(split, ())


def test_recompute_is_the_least_that_fits():
    roomy = state({"micro_batch": 2}, workload={"sequence": 2048})
    tight = state({"micro_batch": 2}, workload={"sequence": 65536, "batch": 64, "model": GPT})
    least = complete(roomy, roomy.scenario.plan).plan.recompute
    more = complete(tight, tight.scenario.plan).plan.recompute
    assert (least, more) == ("none", "full")
    for each in ("none", "selective"):
        assert not simulate(tight, TrainingPlan(micro_batch=2, recompute=each)).metrics["fits"]


def test_the_devices_decide_the_number_format():
    old = state(fleet={"devices": "32x v100-sxm2-32g"})
    assert complete(old, TrainingPlan()).plan.dtype == "fp16"
    assert simulate(old).metrics["iteration_time"] > simulate(state()).metrics["iteration_time"]
    with pytest.raises(Unsupported, match=r"plan.dtype = 'fp8': a100-80g-sxm.*Write one of bf16, fp16, fp32"):
        simulate(state({"dtype": "fp8"}))


def test_plans_become_columns_and_come_back():
    given = [
        complete(state(), TrainingPlan(tensor_parallel=t, pipeline_parallel=p, overlap=("pipeline", "data"))).plan
        for t, p in ((1, 1), (4, 2), (2, 4))
    ]
    rows = columns(*given)
    assert [decided(rows, i, "bf16") for i in range(3)] == given
    assert np.array_equal(rows.devices, [32, 32, 32])


REFUSED = {
    "heads": ({"tensor_parallel": 32}, {}, "plan.tensor_parallel", r"16 attention heads.*1, 2, 4, 8, 16"),
    "layers": ({"pipeline_parallel": 32}, {}, "plan.pipeline_parallel", "at most 24"),
    "fleet": ({"tensor_parallel": 2, "data_parallel": 8}, {}, "plan.data_parallel", "the fleet has 32.*= 16"),
    "copies": ({"tensor_parallel": 4, "pipeline_parallel": 6}, {}, "plan", "24 devices.*fleet's 32"),
    "batch": ({}, {"batch": 65}, "workload.batch", "multiple of 32, such as 64"),
    "micro-batch": ({"tensor_parallel": 2, "micro_batch": 3}, {}, "plan.micro_batch", "4 sequences of a copy.*1, 2, 4"),
    "context": ({"context_parallel": 32, "tensor_parallel": 1}, {"sequence": 2080}, "plan.context_parallel", "2,080"),
    "experts": ({"expert_parallel": 2}, {}, "plan.expert_parallel", "the model has none"),
    "pieces": ({"pipeline_parallel": 4, "interleave": 4}, {}, "plan.interleave", "24 over 4 stages.*1, 2, 3, 6"),
    "one stage": ({"interleave": 2}, {}, "plan.interleave", "there is one stage"),
    "rounds": ({"pipeline_parallel": 4, "interleave": 2, "micro_batch": 4}, {}, "plan.interleave", "multiples of 4"),
    "schedule": ({"pipeline_parallel": 4, "schedule": "interleaved"}, {}, "plan.schedule", "interleave from 2"),
    "whole": ({"pipeline_parallel": 4, "interleave": 2, "schedule": "1f1b"}, {}, "plan.schedule", "interleaved"),
    "dualpipe": ({"pipeline_parallel": 16, "schedule": "dualpipe"}, {"batch": 32}, "plan.schedule", "an even number"),
    "lists": ({"tensor_parallel": [1, 2]}, {}, "plan.tensor_parallel", "fleetcast plan"),
    "sets": ({"offload": [["optimizer"], ["weights"]]}, {}, "plan.offload", "fleetcast plan"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_divide_is_refused_by_name(name):
    plan, workload, path, said = REFUSED[name]
    with pytest.raises(SpecError, match=said) as caught:
        simulate(state(plan, workload=workload))
    assert caught.value.path == path and caught.value.value is not None
    assert caught.value.limit and caught.value.hint


def test_grouped_keys_may_be_copied_but_not_cut_unevenly():
    shape = GPT | {"kv_heads": 2, "gated": True}
    simulate(state({"tensor_parallel": 8}, workload={"model": shape}))
    with pytest.raises(SpecError, match="3 key and value heads"):
        simulate(
            state(
                {"tensor_parallel": 2}, workload={"model": GPT | {"heads": 12, "kv_heads": 3, "head_dim": 128}},
            )
        )  # fmt: skip


def test_uneven_stages_are_noted():
    outcome = simulate(state({"pipeline_parallel": 16, "tensor_parallel": 2}))
    assert any("24 layers over 16 stages: the fullest stage has 2" in note for note in outcome.notes)


def test_groups_of_one_kind_are_taken_together_on_their_slowest_link():
    fleet = {
        "devices": "", "network": "ethernet-25g",
        "groups": [{"name": "a", "devices": "16x a100-80g-sxm"}, {"name": "b", "devices": "16x a100-80g-sxm"}],
    }  # fmt: skip
    two = state(fleet=fleet)
    assert two.group.count == 32 and two.group.network.id == "ethernet-25g" and two.group.node == 8
    assert any("2 groups are taken as one of 32" in note for note in simulate(two).notes)
    assert simulate(two).metrics["iteration_time"] > simulate(state()).metrics["iteration_time"]


def test_groups_of_several_kinds_are_taken_together_as_the_slowest_with_the_least_memory():
    both = state(fleet={"devices": "16x a100-80g-sxm + 16x h100-sxm"})
    assert both.group.device.id == "a100-80g-sxm" and both.group.count == 32
    assert both.system.memory == min(group.device.memory for group in both.tree.groups)
    with pytest.raises(Unsupported, match="no format in common"):
        state(fleet={"devices": "8x v100-32g-sxm + 8x tpu-v6e"})


def test_only_decoders_are_trained():
    with pytest.raises(Unsupported, match="has an encoder"):
        state(workload={"model": "t5-11b"})


def test_what_is_offloaded_must_fit_the_host():
    plan = {"offload": ["optimizer"], "zero": 0}
    work = {"model": "megatron-7.5b"}
    roomy = simulate(state(plan, workload=work, fleet={"host_memory": "512 GB"}))
    tight = simulate(state(plan, workload=work, fleet={"host_memory": "16 GB"}))
    assert roomy.metrics["host_memory"] == tight.metrics["host_memory"] > 16e9
    assert roomy.metrics["fits"] and not tight.metrics["fits"]
    assert tight.provenance["over"]["constraint"] == "host memory per device"
    assert tight.provenance["over"]["have"] == 16e9


def test_a_slower_network_changes_messages_alone():
    fast = simulate(state({"tensor_parallel": 2})).metrics["breakdown"]
    slow = simulate(state({"tensor_parallel": 2}, fleet={"links": {"inter": "25 Gb/s"}})).metrics["breakdown"]
    same = ("gemm", "attention", "vector", "recompute", "tensor_comm", "optimizer")
    assert all(fast[name] == slow[name] for name in same)
    assert slow["data_comm"] > 4 * fast["data_comm"]


def test_links_that_nobody_measured_widen_the_interval_and_are_named():
    def width(devices, **plan):
        found = simulate(state(plan, fleet={"devices": devices}))
        low, high = found.intervals["iteration_time"]
        return high / low, any("within a node are a guess" in note for note in found.notes)

    measured, told = width("32x a100-80g-sxm", tensor_parallel=8)
    assert not told
    guessed, said = width("32x a100-80g-pcie", tensor_parallel=8)
    assert said
    assert guessed > 3 * measured
    (alone, told), (same, _) = width("1x a100-80g-pcie"), width("1x a100-80g-sxm")
    assert alone == pytest.approx(same)
    assert not told
