"""A router's load from the scenario to the outcome: nothing changes without one, notes, choices, refusals, search."""

import numpy as np
import pytest

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.scenario.load import load
from fleetcast.search.parallelism import search
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import simulate
from fleetcast.view.exports import export

TRAFFIC = {
    "arrivals": {"kind": "closed", "concurrency": 64, "requests": 200},
    "lengths": {"kind": "fixed", "prompt": 256, "output": 32},
}
PLAN = {"replicas": 1, "tensor_parallel": 4, "pipeline_parallel": 1, "expert_parallel": 4}


def state_of(workload=None, model="mixtral-8x7b", devices="4x h100-sxm", folder=None, **plan):
    table = {
        "fleet": {"devices": devices}, "workload": {"model": model, **TRAFFIC, **(workload or {})}, "plan": PLAN | plan,
        "objective": {"maximize": "throughput"},
    }  # fmt: skip
    if folder is None:
        return setting(load(table))
    from fleetcast.base.spec import dump_toml

    (folder / "s.toml").write_text(dump_toml(table))
    return setting(load(folder / "s.toml"))


def tables_of(state):
    return state.server(complete(state, state.scenario.plan).pools[0]).cost


def test_without_a_load_nothing_differs_and_contiguous_is_the_default():
    plain, said = tables_of(state_of()), tables_of(state_of(expert_placement="contiguous"))
    assert all(np.array_equal(plain.tables[k], said.tables[k]) for k in plain.tables)
    assert not [n for n in plain.notes if "expert load" in n]


def test_a_load_changes_the_experts_alone_and_is_told_in_the_notes():
    plain, skewed = tables_of(state_of()), tables_of(state_of({"expert_load": {"zipf": 0.8}}))
    changed = {k for k in plain.tables if not np.array_equal(plain.tables[k], skewed.tables[k])}
    assert changed == {"experts"}
    assert np.all(np.diff(skewed.tables["experts"]) >= -1e-12)
    (note,) = [n for n in skewed.notes if "expert load" in n]
    assert "Zipf exponent 0.8" in note and "busiest of 4 ranks" in note
    state = state_of({"expert_load": {"zipf": 0.8}})
    outcome = simulate(state, complete(state, state.scenario.plan))
    assert note in outcome.notes


def test_loads_and_placements_of_one_setting_do_not_share_tables():
    state = state_of({"expert_load": {"zipf": 1.0}}, expert_placement=["contiguous", "balanced"])
    pool = complete(state, load_plan("contiguous")).pools[0]
    other = complete(state, load_plan("balanced")).pools[0]
    a, b = (state.server(p).cost.tables["experts"] for p in (pool, other))
    assert b[1024] < a[1024]
    state.expert_load = None
    state._servers.clear()
    assert not np.array_equal(state.server(pool).cost.tables["experts"], a)


def load_plan(placement):
    return load({"fleet": {"devices": "4x h100-sxm"}, "workload": {"model": "mixtral-8x7b", **TRAFFIC},
                 "plan": PLAN | {"expert_placement": placement}}).plan  # fmt: skip


def test_a_file_of_counts_is_read_beside_the_scenario(tmp_path):
    rows = [f"{layer},{e},{100 + 10 * ((e + layer) % 8)}" for layer in range(32) for e in range(8)]
    (tmp_path / "loads.csv").write_text("\n".join(["layer,expert,load", *rows]))
    state = state_of({"expert_load": "loads.csv"}, folder=tmp_path)
    assert state.expert_load.chosen.shape == (32, 8)
    (note,) = [n for n in tables_of(state).notes if "expert load" in n]
    assert "measured, loads.csv" in note


@pytest.mark.parametrize(
    ("workload", "plan", "path"),
    [
        ({"expert_load": {"zipf": 3.5}}, {}, r"workload\.expert_load\.zipf"),
        ({"expert_load": {"zipf": -0.1}}, {}, r"workload\.expert_load\.zipf"),
        ({"expert_load": {"zip": 1.0}}, {}, r"workload\.expert_load\.zip"),
        ({"expert_load": "absent.csv"}, {}, r"absent\.csv"),
        ({"model": "llama-3.1-8b", "expert_load": {"zipf": 1.0}}, {"expert_parallel": 1}, r"workload\.expert_load"),
        ({}, {"expert_placement": "balanced"}, r"plan\.expert_placement"),
        ({}, {"expert_placement": ["contiguous", "balanced"]}, r"plan\.expert_placement"),
        ({"expert_load": {"zipf": 1.0}}, {"expert_placement": "sorted"}, r"plan\.expert_placement"),
    ],
)
def test_nonsense_is_named(workload, plan, path):
    with pytest.raises(SpecError, match=path) as caught:
        state_of(workload, **plan)
    assert caught.value.limit or caught.value.hint


def test_one_rank_has_nothing_to_balance():
    state = state_of({"expert_load": {"zipf": 1.0}}, expert_parallel=1, expert_placement="balanced")
    with pytest.raises(Infeasible, match="expert-parallel ranks"):
        complete(state, state.scenario.plan)


def test_a_search_over_placements_prefers_the_balanced_one():
    table = {
        "fleet": {"devices": "4x h100-sxm"},
        "workload": {"model": "mixtral-8x7b", "expert_load": {"zipf": 1.2}, **TRAFFIC},
        "objective": {"maximize": "throughput"},
        "plan": PLAN | {
            "expert_parallel": [1, 4], "expert_placement": ["contiguous", "balanced"],
            "batch": {"kind": "chunked", "chunk": 1024, "max_batch": 64},
        },
    }  # fmt: skip
    found = search(setting(load(table)), exhaustive=True, top=None)
    rate = {(o.plan["expert_parallel"], o.plan["expert_placement"]): o.metrics["throughput"] for o in found.plans}
    assert rate.keys() == {(1, "contiguous"), (4, "contiguous"), (4, "balanced")}
    assert rate[4, "balanced"] > rate[4, "contiguous"]


def test_the_load_balancer_is_switched_on_in_commands():
    for placement, there in (("balanced", True), ("contiguous", False)):
        state = state_of({"expert_load": {"zipf": 1.0}}, expert_placement=placement)
        plan = complete(state, state.scenario.plan)
        for target in ("vllm", "sglang"):
            assert ("--enable-eplb" in export(state, plan, target).text) is there


def test_the_load_is_the_workloads_models_alone_and_survives_a_file():
    state = state_of({"expert_load": {"zipf": 1.0}}, devices="4x h200-sxm", dtype="fp8", model="mixtral-8x7b")
    table = state.scenario.table()
    assert load(table).workload.expert_load == state.scenario.workload.expert_load
    table["plan"]["model"] = "qwen3-30b-a3b"
    other = setting(load(table))
    found = other.server(complete(other, other.scenario.plan).pools[0]).cost
    assert any("not used for qwen3-30b-a3b" in note for note in found.notes)
    assert not any("busiest of" in note for note in found.notes)
