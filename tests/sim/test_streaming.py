"""Streaming through one device, as events and as an Outcome: the closed form's oracle, refusals, the search."""

from dataclasses import replace

import pytest

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.cost.training import streams
from fleetcast.scenario.load import load
from fleetcast.search.training.planner import search
from fleetcast.sim.training.completing import columns, complete
from fleetcast.sim.training.setting import setting
from fleetcast.sim.training.streaming import run
from fleetcast.sim.training.world import simulate
from fleetcast.view import verbs

GPT = {"layers": 40, "hidden": 5120, "heads": 40, "vocab": 50257}
FLEET = {
    "devices": "1x rtx-4090", "host_memory": "256 GB", "host_bandwidth": "200 GB/s", "ssd": "26 GB/s",
    "ssd_write": "13.6 GB/s", "ssd_memory": "15 TB",
}  # fmt: skip


def state(plan=None, fleet=None, **work):
    workload = {"kind": "training", "model": GPT, "sequence": 1024, "batch": 16} | work
    said = {key: value for key, value in (FLEET | (fleet or {})).items() if value is not None}
    return setting(load({"fleet": said, "workload": workload, "plan": plan or {}}))


def flow(overlapped=True, fleet=None, **work):
    found = state({"swap": 0.5}, fleet, **work)
    plan = complete(found, found.scenario.plan).plan
    return streams.stream(found.network, found.job(), columns(plan), found.system, overlapped=overlapped)


@pytest.mark.parametrize("overlapped", [True, False])
@pytest.mark.parametrize("batch", [4, 32])
@pytest.mark.parametrize("disks", ["3 GB/s", "80 GB/s"])
def test_the_slowest_resource_is_what_events_take_on_long_models(overlapped, batch, disks):
    s = flow(overlapped, {"ssd": disks, "ssd_write": disks, "host_memory": "180 GB"}, batch=batch)
    for swap in (0.0, 0.4, 1.0):
        made, spills = run(s, swap), float(streams.spill(s, swap)) > 0  # states are read early beside such writing
        assert float(streams.time(s, swap)[0]) == pytest.approx(made.time, rel=0.06 if spills else 0.02)
        found = streams.loads(s, swap)
        for name in streams.RESOURCES:
            work = s.layers * (found.forward[name] + found.backward[name]) + found.outside[name]
            assert made.busy[name] == pytest.approx(float(work[0]), rel=1e-9)
            assert made.time >= made.busy[name] * (1 - 1e-12)
        assert made.passes <= made.time


def test_one_layer_runs_one_task_after_another():
    s = replace(flow(), layers=1)
    found = streams.loads(s, 1.0)
    ahead, outside = ({n: float(v[0]) for n, v in part.items()} for part in (found.forward, found.outside))
    first = ahead["read"] + ahead["up"] + ahead["device"]
    assert run(s, 1.0).time > first + outside["device"] + float(found.backward["device"][0])


def test_terms_and_bytes_of_an_iteration_sum():
    outcome = simulate(state({"swap": "auto"}, batch=32))
    metrics = outcome.metrics
    assert sum(metrics["breakdown"].values()) == pytest.approx(metrics["iteration_time"], rel=1e-12)
    assert sum(outcome.breakdown["memory"].values()) == pytest.approx(metrics["memory"], rel=1e-12)
    assert metrics["fits"] and metrics["host_memory"] <= 256e9 and metrics["ssd_memory"] <= 15e12
    assert 0.0 < outcome.plan["swap"] < 1.0
    assert metrics["mfu"] <= metrics["hfu"] < 1.0
    every = simulate(state({"swap": 0.0}, batch=32))
    assert every.breakdown["energy"]["compute"] > outcome.breakdown["energy"]["compute"]  # more is computed again
    assert every.metrics["hfu"] > metrics["hfu"] and every.metrics["iteration_time"] > metrics["iteration_time"]
    late = simulate(state({"swap": 0.0, "overlap": ["data"]}, batch=32))
    assert late.metrics["iteration_time"] > every.metrics["iteration_time"]


@pytest.mark.parametrize(
    ("fleet", "said"),
    [
        ({"host_memory": "20 GB", "ssd": None, "ssd_write": None, "ssd_memory": None}, "host memory per device"),
        ({"ssd_memory": "50 GB"}, "disk space per device"),
        ({}, "memory of a device"),
    ],
)
def test_what_is_too_small_is_named(fleet, said):
    found = state({"swap": 0.0}, fleet, batch=512 if "device" in said and "per" not in said else 16)
    short = simulate(found).provenance["over"]
    assert short["constraint"] == said and short["need"] > short["have"]


def test_a_search_streams_where_nothing_else_is_asked_and_ranks_by_time():
    ranking = search(state({}))
    times = [o.metrics["iteration_time"] for o in ranking.plans]
    assert times == sorted(times)
    assert any("swap" in o.plan and o.plan["swap"] is not None for o in ranking.plans)
    only = search(state({"swap": "auto"}))
    assert all(o.plan["swap"] is not None for o in only.plans) and len(only.plans) == 2
    assert only.plans[0].plan["overlap"] == ["data", "optimizer"]
    none = search(state({"swap": "auto"}, {"ssd_memory": "50 GB"}))
    assert none.best is None and none.misses[0].provenance["over"]["constraint"] == "disk space per device"
    plain = search(state({}, {"ssd": None, "ssd_write": None, "ssd_memory": None}))
    assert all(o.plan.get("swap") is None for o in plain.plans)


@pytest.mark.parametrize(
    ("plan", "fleet", "field"),
    [
        ({"swap": 1.5}, {}, "plan.swap"), ({"swap": "most"}, {}, "plan.swap"),
        ({"swap": 0.5}, {"devices": "2x rtx-4090"}, "plan.swap"),
        ({"swap": 0.5, "micro_batch": 1}, {}, "plan.micro_batch"),
        ({"swap": 0.5, "recompute": "none"}, {}, "plan.recompute"),
        ({"swap": 0.5, "offload": ["weights"]}, {}, "plan.offload"),
        ({}, {"ssd_write": "1 B/s"}, "fleet.ssd_write"), ({}, {"ssd_memory": "1 B"}, "fleet.ssd_memory"),
        ({}, {"ssd": None}, "fleet.ssd_write"), ({}, {"host_bandwidth": "1 B/s"}, "fleet.host_bandwidth"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(plan, fleet, field):
    with pytest.raises(SpecError) as error:
        simulate(state(plan, fleet))
    assert error.value.path == field and error.value.limit is not None


@pytest.mark.parametrize("target", ["deepspeed", "megatron"])
def test_no_trainer_is_told_to_stream(target):
    with pytest.raises(Unsupported, match="swaps no share"):
        verbs.export("single-gpu", target)


def test_nothing_changes_where_nothing_streams():
    plain = simulate(state({"offload": ["optimizer"], "micro_batch": 1, "recompute": "full"}))
    again = simulate(state({"offload": ["optimizer"], "micro_batch": 1, "recompute": "full"}, {"ssd_memory": None}))
    assert plain.metrics["iteration_time"] == again.metrics["iteration_time"]
    assert "swapped" not in str(plain.plan)
