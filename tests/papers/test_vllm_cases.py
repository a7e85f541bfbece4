"""The 20 measured vLLM 0.6 servers: what forecasts of them must hold, on the packaged cases."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import accuracy_serving
from benchmarks.fit import engine_vllm0 as fitting
from fleetcast.cost.engine import engine
from fleetcast.scenario.load import load
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import simulate

TTFT, TPOT = 0, 1


@pytest.fixture(scope="module")
def rows():
    return fitting.measured()


def planned(model: str, tp: int, engine_name: str = "vllm-0.6", **plan):
    scenario = load(
        {
            "fleet": {"devices": f"{tp}x h100-sxm"},
            "workload": {
                "kind": "serving", "model": model, "arrivals": {"kind": "poisson", "rate": "1 /s", "requests": 20},
                "lengths": {"kind": "fixed", "prompt": 200, "output": 20},
            },
            "plan": {
                "engine": engine_name, "tensor_parallel": tp, "pipeline_parallel": 1, "replicas": 1, **plan,
            },
        }
    )  # fmt: skip
    state = setting(scenario)
    return state, complete(state, scenario.plan)


def test_all_cases_are_there(rows):
    assert len(rows) == 20
    assert {m.family for m in rows} == set(fitting.FAMILIES)
    assert {m.case.tp for m in rows} == {2, 4, 8}


def test_forecasts_on_the_defaults_hold_the_bars():
    off = np.abs(accuracy_serving.fitted())
    assert off[:, TPOT].mean() <= 0.02
    assert off[:, TPOT].max() <= 0.08
    assert off[:, TTFT].mean() <= 0.12
    assert off[:, TTFT].max() <= 0.30


def test_a_family_left_out_holds_the_bars_and_beats_the_nulls(rows):
    ours, roofline, constant = (
        np.abs(fitting.left_out(rows, train)).mean(axis=0)
        for train in (fitting.train_host, fitting.train_roofline, fitting.train_constant)
    )
    assert ours[TPOT] <= 0.03
    assert ours[TTFT] <= 0.15
    assert np.all(ours < roofline)
    assert np.all(ours < constant)


def test_the_profile_carries_what_the_fit_finds(rows):
    carried, found = fitting.in_file(), fitting.fit(rows)
    assert len(found) <= 6
    assert carried == pytest.approx(found, rel=0.05)
    for name, value in carried.items():
        low, _, high = fitting.RANGES[name]
        assert 1.01 * low < value < 0.99 * high, f"{name} lies at the end of its physical range"


def test_the_fit_simulates_what_users_do(rows):
    host = fitting.in_file()
    for m in (rows[0], rows[2], rows[-1]):
        assert fitting.with_host(m, host) == pytest.approx(accuracy_serving.forecast(m), rel=1e-9)


def test_every_constant_has_its_own_effect(rows):
    m, host = rows[0], fitting.in_file()
    base = fitting.with_host(m, host)
    for name in host:
        more = fitting.with_host(m, host | {name: 3.0 * host[name]})
        assert more[TTFT] > base[TTFT]
        if name != "api":
            assert more[TPOT] > base[TPOT]
        else:
            assert more[TPOT] == base[TPOT]


def test_long_contexts_are_chunked_by_default_and_short_ones_not():
    def batch(model: str, tp: int, **plan):
        return planned(model, tp, **plan)[1].pools[0].batch

    assert batch("llama-3.1-70b", 8) == {"kind": "chunked", "chunk": 512, "max_batch": 256}
    # Two devices hold the weights and less than 32K tokens of cache: the context is cut, prompts stay whole.
    assert batch("llama-3.1-70b", 2)["kind"] == "prefill_first"
    assert batch("llama-2-7b", 1)["kind"] == "prefill_first"
    assert batch("llama-3.1-70b", 8, batch={"kind": "static"})["kind"] == "static"
    assert batch("llama-3.1-70b", 8, batch={"max_batch": 64})["kind"] == "prefill_first"


def test_two_devices_reduce_with_nccl_as_the_measured_servers_did():
    assert engine("vllm-0.6").nccl_ranks == (2,)

    def seconds(name: str, tp: int) -> float:
        state, plan = planned("llama-3.1-8b", tp, name)
        cost = state.server(plan.pools[0]).cost
        return float(cost.parts["dense_communication"][1])

    assert seconds("vllm-0.6", 2) > 1.3 * seconds("vllm-1", 2)
    assert seconds("vllm-0.6", 4) == seconds("vllm-1", 4)


def test_tpot_grows_with_sequences_by_the_host_cost():
    state, plan = planned("llama-3.1-70b", 8)
    server = state.server(plan.pools[0])
    assert server.cost.scalars["host_seq"] == engine("vllm-0.6").host_on("h100-sxm").seq
    assert simulate(state, plan).metrics["tpot"]["mean"] > server.cost.scalars["host_step"]
