"""Plans made complete: defaults from the engine, choices checked, contradictions refused."""

from __future__ import annotations

from typing import Any

import pytest

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.scenario.load import load
from fleetcast.scenario.outcome import Outcome
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import simulate


def state_of(model: str = "llama-3.1-8b", fleet: str = "2x h100-sxm", **plan: Any) -> Any:
    table = {
        "fleet": {"devices": fleet},
        "workload": {"model": model, "trace": "azure-code-2023", "requests": 60},
        "plan": {"replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1} | plan,
    }
    return setting(load(table))


def done(**changes: Any) -> Any:
    state = state_of(**changes)
    return complete(state, state.scenario.plan)


def test_what_is_open_comes_from_the_engine_and_a_complete_plan_stays_as_it_is() -> None:
    plan = done(engine="vllm-1")
    pool = plan.pools[0]
    assert (pool.dtype, pool.kv_dtype, pool.batch["kind"]) == ("bf16", "bf16", "chunked")
    state = state_of()
    assert complete(state, plan) == plan


def test_weights_quantised_alone_are_multiplied_in_16_bits() -> None:
    state = state_of(dtype="fp8")
    alone = state_of(dtype="fp8", activation_dtype="bf16")
    servers = [s.server(complete(s, s.scenario.plan).pools[0]) for s in (state, alone)]
    assert [s.precision.activations for s in servers] == ["fp8", "bf16"]
    assert servers[0].cost.work["peak"] == pytest.approx(2 * servers[1].cost.work["peak"], rel=0.01)
    times = [simulate(s, complete(s, s.scenario.plan)).metrics["ttft"]["mean"] for s in (state, alone)]
    assert times[0] != times[1]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"dtype": "bf16", "activation_dtype": "fp8"}, SpecError, "plan.activation_dtype"),
        ({"replicas": 3}, Infeasible, "devices of group"),
        ({"tensor_parallel": [1, 2]}, SpecError, "list of values to search"),
        ({"model": "llama-3.1-70b"}, Infeasible, "memory for weights"),
        ({"model": "whisper-large-v3"}, SpecError, "encoder-decoder"),
        ({"expert_parallel": 2}, Infeasible, "expert parallelism"),
        ({"batch": {"kind": "chunked", "chunk": 8}}, SpecError, "below max_batch"),
        ({"route": {"kind": "prefix_hash"}}, SpecError, "session"),
        ({"clock": 0.1}, SpecError, "0.3 to 1"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_what_cannot_be_is_refused_with_its_place(changes: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        done(**changes)


def test_an_open_choice_without_default_is_named() -> None:
    state = setting(
        load({"fleet": {"devices": "2x h100"}, "workload": {"model": "llama-3.1-8b", "trace": "azure-code-2023"}})
    )
    with pytest.raises(SpecError, match=r"plan\.replicas"):
        complete(state, state.scenario.plan)


def test_a_lower_clock_or_a_power_limit_is_slower_and_saves_energy() -> None:
    found = {}
    for name, fleet, plan in (("full", {}, {}), ("clock", {}, {"clock": 0.6}), ("limit", {"power_limit": "400 W"}, {})):
        table = {
            "fleet": {"devices": "2x h100-sxm"} | fleet,
            "workload": {"model": "llama-3.1-8b", "trace": "azure-code-2023", "requests": 200},
            "plan": {"replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1} | plan,
        }
        state = setting(load(table))
        found[name] = simulate(state, complete(state, state.scenario.plan))
    for slower in ("clock", "limit"):
        assert found[slower].metrics["ttft"]["mean"] > found["full"].metrics["ttft"]["mean"]
        assert found[slower].metrics["energy"] < found["full"].metrics["energy"]
        assert any("clock of h100-sxm" in note for note in found[slower].notes)


def test_attention_data_parallelism_of_a_dense_model_is_remarked_on() -> None:
    said = []
    for model in ("llama-3.1-8b", "mixtral-8x7b"):
        state = state_of(model, attention_dp=2, expert_parallel=1)
        outcome = simulate(state, complete(state, state.scenario.plan))
        said.append(any("attention data parallelism of a dense model" in note for note in outcome.notes))
    assert said == [True, False]


def test_requests_beyond_the_context_are_told() -> None:
    table = {
        "fleet": {"devices": "8x h100-sxm"},
        "workload": {
            "model": "llama-2-7b", "arrivals": {"kind": "uniform", "rate": 1, "requests": 3},
            "lengths": {"kind": "fixed", "prompt": 5000, "output": 10},
        },
        "plan": {"replicas": 1, "tensor_parallel": 8, "pipeline_parallel": 1},
    }  # fmt: skip
    state = setting(load(table))
    notes = simulate(state, complete(state, state.scenario.plan)).notes
    assert any(note.startswith("3 of 3 requests are longer than the context of llama-2-7b, 4,096") for note in notes)


def closed_loop(arrivals: dict[str, Any] | None = None, lengths: dict[str, Any] | None = None) -> Outcome:
    table = {
        "fleet": {"devices": "1x h100-sxm"},
        "workload": {
            "model": "llama-3.1-8b",
            "arrivals": {"kind": "closed", "concurrency": 8, "requests": 64} | (arrivals or {}),
            "lengths": {"kind": "fixed", "prompt": 1000, "output": 100} | (lengths or {}),
        },
        "plan": {"replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1, "engine": "vllm-1"},
    }  # fmt: skip
    state = setting(load(table))
    return simulate(state, complete(state, state.scenario.plan))


@pytest.mark.parametrize("arrivals", [{}, {"ramp": "2 s"}, {"think": "100 ms"}])
def test_a_closed_loop_never_exceeds_its_concurrency(arrivals: dict[str, Any]) -> None:
    served = closed_loop(arrivals).requests
    assert served is not None
    events = sorted([(t, 1) for t in served.arrival] + [(t, -1) for t in served.arrival + served.e2e])
    running = most = 0
    for _, change in events:
        running += change
        most = max(most, running)
    assert most <= 8


def test_users_of_a_closed_loop_start_at_once_or_over_the_ramp() -> None:
    at_once, ramped = closed_loop().requests, closed_loop({"ramp": "2 s"}).requests
    assert at_once is not None and ramped is not None
    assert (at_once.arrival[:8] == 0).all()
    assert ramped.arrival[7] == pytest.approx(2 * 7 / 8)


def test_users_think_before_they_send_again() -> None:
    plain, slow = closed_loop(), closed_loop({"think": "1 s"})
    # seven pauses per user, exponential with mean 1 s: the run is longer by about their sum
    assert slow.metrics["makespan"] - plain.metrics["makespan"] > 3.0
    assert slow.metrics["ttft"]["mean"] < plain.metrics["ttft"]["mean"]


def test_equal_requests_march_in_step_and_the_default_spread_breaks_it() -> None:
    default, equal = closed_loop(), closed_loop(lengths={"spread": 0})
    assert equal.metrics["ttft"]["p50"] > 1.3 * default.metrics["ttft"]["p50"]
    assert default.metrics["output_tokens"] == equal.metrics["output_tokens"] == 6400
    assert any("spread" in note for note in default.notes)
    assert not any("spread" in note for note in equal.notes)


def test_narrower_weights_and_caches_say_what_they_cost_in_quality() -> None:
    said = {}
    for name, plan in (("plain", {}), ("fp8", {"dtype": "fp8", "kv_dtype": "fp8"}), ("int4", {"dtype": "int4"})):
        state = state_of(**plan)
        notes = simulate(state, complete(state, state.scenario.plan)).notes
        said[name] = [note for note in notes if "quality lost" in note]
    assert said["plain"] == []
    assert len(said["fp8"]) == 2 and "effectively none" in said["fp8"][0] and "unknown" in said["fp8"][1]
    assert "int8" in said["int4"][0]


@pytest.mark.parametrize(
    ("dtype", "kv", "head"), [("fp32", "fp32", "fp32"), ("bf16", "bf16", "bf16"), ("int8", "bf16", "int8")]
)
def test_our_own_engine_caches_what_is_not_quantised_and_quantises_the_head(dtype, kv, head):
    table = {
        "fleet": {"devices": "1x epyc-9654"},
        "workload": {
            "model": "llama-3.2-1b", "arrivals": {"kind": "closed", "concurrency": 1, "requests": 1},
            "lengths": {"kind": "fixed", "prompt": 8, "output": 2},
        },
        "plan": {
            "replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1, "engine": "fleetcast", "dtype": dtype,
        },
    }  # fmt: skip
    state = setting(load(table))
    server = state.servers(complete(state, state.scenario.plan))[0]
    assert (server.kv_dtype, server.precision.stored("head")) == (kv, head)
    other = setting(load(table | {"plan": table["plan"] | {"engine": "vllm-1"}}))
    theirs = other.servers(complete(other, other.scenario.plan))[0]
    assert theirs.precision.stored("head") == ("bf16" if dtype == "int8" else dtype)
