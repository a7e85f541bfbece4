"""Memory of a training step against formulas that others published, and against counts by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fleetcast.cost.training import system as systems
from fleetcast.cost.training.memory import RESERVE, TERMS, expert_copies, fits, layer_activations, memory, stage_params
from fleetcast.cost.training.network import Job, Network, of
from fleetcast.cost.training.plans import plans
from fleetcast.cost.training.system import System
from fleetcast.scenario.fleet.spec import Fleet
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.workload import catalog
from fleetcast.scenario.workload.training import Shape


def a100(count: int = 64) -> System:
    return systems.of(resolve(Fleet(devices=f"{count}x a100-80g-sxm")).groups[0])


def gpt(name: str) -> Network:
    return of(catalog.model(name))


@pytest.mark.parametrize("t", [1, 2, 8])
@pytest.mark.parametrize("name", ["megatron-22b", "gpt3-175b", "megatron-1t"])
def test_activations_are_korthikantis_formulas(name: str, t: int) -> None:
    net, job = gpt(name), Job(2048, 4)
    layer, sbh = net.layers[0], 2048 * 4 * net.hidden
    ash = 5 * layer.heads * 2048 / net.hidden
    for recompute, split, expected in (
        ("none", 0, sbh * (10 + 24 / t + ash / t)), ("none", 1, sbh / t * (34 + ash)),
        ("selective", 0, sbh * (10 + 24 / t)), ("selective", 1, sbh / t * 34),
        ("full", 0, 2 * sbh), ("full", 1, 2 * sbh / t),
    ):  # fmt: skip
        plan = plans(tensor=t, micro_batch=4, recompute=recompute, sequence_parallel=split, fused=0)
        assert layer_activations(net, layer, job, plan)[0][0] == pytest.approx(expected, rel=1e-12)


def test_context_parallelism_divides_activations_and_nothing_else() -> None:
    net, job, system = gpt("megatron-1.7b"), Job(4096, 64), a100()
    one = memory(net, job, plans(data=8, micro_batch=2), system)
    two = memory(net, job, plans(data=8, micro_batch=2, context=2), system)
    assert two["activations"] == pytest.approx(one["activations"] / 2)
    assert two["weights"] == pytest.approx(one["weights"])
    assert two["optimizer"] == pytest.approx(one["optimizer"])


def test_zero_shares_out_optimizer_then_gradients_then_weights() -> None:
    net, job, system = gpt("megatron-1.7b"), Job(2048, 64), a100()
    held = memory(net, job, plans(data=16, zero=np.arange(4)), system)
    size = float(net.params)
    assert held["optimizer"] == pytest.approx([12 * size, *[12 * size / 16] * 3])
    assert held["gradients"] == pytest.approx([4 * size, 4 * size, size / 4, size / 4])
    assert held["weights"] == pytest.approx([2 * size, 2 * size, 2 * size, size / 8])


def test_experts_are_divided_by_those_who_share_them_and_their_states_by_their_copies() -> None:
    shape = Shape(layers=2, hidden=8, heads=2, ffn=16, vocab=32, gated=True, experts=4, top_k=2, tied=False)
    net = of(shape.model(8))
    # By hand: attention 4 x 8 x 8, two norms of 8, router 4 x 8; an expert 3 x 8 x 16 = 384, four of them, two layers.
    assert net.layers[0].expert_params == 4 * 384
    assert net.params == 2 * (256 + 16 + 32 + 1536) + 2 * 32 * 8 + 8
    plan = plans(tensor=2, data=4, expert=2, expert_tensor=1)
    (first, *_), experts = stage_params(net, plan)
    assert experts[0] == 2 * 1536 / 2  # two of four experts, whole
    assert first[0] == 2 * (256 / 2 + 16 + 32) + 2 * 32 * 8 / 2 + 8
    assert expert_copies(plan)[0] == 4  # 8 ranks of the stage over 2 that differ
    held = memory(net, Job(8, 4), replace(plan, zero=np.array([1], dtype=np.int32)), a100())
    assert held["weights"][0] == 2 * (first[0] + experts[0])
    assert held["optimizer"][0] == pytest.approx(12 * (first[0] / 4 + experts[0] / 4))
    shared = stage_params(net, plans(tensor=2, data=4, expert=4, expert_tensor=2))[1]
    assert shared[0] == 2 * 1536 / 8  # one of four experts, half its width


def test_a_pipelines_first_stage_holds_as_many_micro_batches_as_there_are_stages() -> None:
    net, job, system = gpt("gpt3-175b"), Job(2048, 64), a100()
    held = memory(net, job, plans(tensor=8, pipeline=8, fused=0, sequence_parallel=1, recompute="selective"), system)
    assert held["activations"][0] == pytest.approx(34 * 2048 * net.hidden / 8 * 96)
    turns = plans(tensor=8, pipeline=8, interleave=3, schedule="interleaved", fused=0, sequence_parallel=1,
                  recompute="selective")  # fmt: skip
    more = memory(net, job, turns, system)
    assert more["activations"] / held["activations"] == pytest.approx(1 + 7 / 24)
    all_at_once = memory(net, job, plans(tensor=8, pipeline=8, schedule="gpipe", fused=0, sequence_parallel=1,
                                         recompute="selective"), system)  # fmt: skip
    assert all_at_once["activations"] / held["activations"] == pytest.approx(64 / 8)


def test_what_is_off_loaded_lies_in_the_host_and_nothing_is_lost() -> None:
    net, job, system = gpt("megatron-7.5b"), Job(2048, 64), a100()
    for words in (("optimizer",), ("activations",), ("weights", "optimizer"), ("weights", "activations", "optimizer")):
        here = memory(net, job, plans(data=8), system)
        off = memory(net, job, plans(data=8, offload=words), system)
        states = off["total"] - off["buffers"] + off["host"] + off["ssd"]
        assert states == pytest.approx(here["total"] - here["buffers"])
        assert off["total"][0] < here["total"][0]
    small = replace(system, host_memory=10e9, ssd=3e9)
    off = memory(net, job, plans(data=8, offload=("optimizer",)), small)
    assert off["host"][0] == 10e9
    assert off["ssd"][0] > 0


def test_a_pass_of_few_tokens_peaks_at_its_end_with_new_gradients_of_the_table() -> None:
    net = of(Shape(layers=3, hidden=384, heads=8, vocab=16384).model(128))
    job, table = Job(128, 8, dtype="fp32", element=4.0), 4.0 * 16384 * 384
    few, many = (memory(net, job, plans(micro_batch=n), a100(1)) for n in (1, 8))
    assert few["activations"] + few["buffers"] == pytest.approx(3 * table)
    assert many["buffers"][0] > 128 * 8 * 16384 * 12  # logits three times


def test_terms_add_up_and_what_is_too_large_is_refused() -> None:
    net, job, system = gpt("gpt3-175b"), Job(2048, 64), a100()
    table = plans(tensor=np.array([8, 8]), pipeline=np.array([8, 1]), sequence_parallel=1, recompute="selective")
    held = memory(net, job, table, system)
    assert sum(held[name] for name in TERMS) == pytest.approx(held["total"], rel=1e-12)
    assert held["reserve"][0] == RESERVE
    assert fits(net, job, table, system).tolist() == [True, False]
