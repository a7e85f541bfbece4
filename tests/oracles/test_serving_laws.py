"""Laws the serving world must keep, and closed forms it must reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fleetcast.policy import batch, route
from fleetcast.scenario.load import load
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import _run_kernel, simulate
from tests.sim.worlds import World, step_cost, world


def queue(count: int, load_: float, draw: np.random.Generator, spread: bool) -> tuple[float, float, float]:
    """Returns (mean wait simulated, mean wait by Pollaczek-Khinchine, standard error) of a single-server queue.

    One request at a time, one token out, no window and no host: service is the prefill's time.
    """
    cost = step_cost(host_step=0.0, host_seq=0.0, host_token=0.0, eager=0.0, capacity=10**6)
    prompt = draw.integers(1, 1000, count) if spread else np.full(count, 500)
    place = world(0, count, 1.0, batch.PrefillFirst(max_batch=1, max_tokens=10**6), cost=cost)
    tokens = cost.tables["dense"] + cost.tables["experts"]
    pairs = prompt * (prompt + 1) / 2
    service = tokens[prompt] + cost.tables["head"][1] + 1e-5 + 1e-9 * pairs + 1e-8 * prompt
    rate = load_ / service.mean()
    arrival = np.cumsum(draw.exponential(1 / rate, count))
    place = World(type(place.requests)(arrival, prompt, np.ones(count, dtype=np.int64)), place.servers)
    _, first, *_ = _run_kernel(place, place.servers, route.RoundRobin(), record=False, by_step=False)
    wait = first - arrival - service
    expected = rate * (service**2).mean() / (2 * (1 - load_))
    blocks = wait[: count // 50 * 50].reshape(50, -1).mean(axis=1)
    return float(wait.mean()), float(expected), float(blocks.std() / np.sqrt(50))


@pytest.mark.parametrize("spread", [False, True], ids=["M/D/1", "M/G/1"])
@pytest.mark.parametrize("load_", [0.3, 0.7])
def test_a_single_server_queue_waits_as_pollaczek_and_khinchine_say(load_: float, spread: bool) -> None:
    simulated, expected, error = queue(100_000, load_, np.random.default_rng(5), spread)
    assert abs(simulated - expected) < 4 * error + 0.01 * expected


def base(**changes: Any) -> dict[str, Any]:
    table: dict[str, Any] = {
        "fleet": {"devices": "8x h100-sxm"},
        "workload": {"model": "llama-3.1-70b", "trace": "azure-conv-2023", "requests": 400},
        "slo": {"ttft_p99": "2 s"},
        "plan": {"replicas": 2, "tensor_parallel": 4, "pipeline_parallel": 1},
    }
    for path, value in changes.items():
        part, _, key = path.partition("__")
        table[part] = table.get(part, {}) | {key: value}
    return table


def outcome(table: dict[str, Any], **options: Any) -> Any:
    scenario = load(table)
    state = setting(scenario)
    return simulate(state, complete(state, scenario.plan), **options)


def test_requests_and_tokens_are_conserved_and_times_are_in_order() -> None:
    found = outcome(base())
    served = found.requests
    assert len(served.arrival) == 400 == found.metrics["requests"]
    assert found.metrics["output_tokens"] == served.output.sum()
    assert (served.ttft > 0).all()
    assert (served.e2e >= served.ttft).all()
    assert sum(r["requests"] for r in found.resources) == 400


def test_time_terms_add_up_to_the_busy_time() -> None:
    for plan in ({"tensor_parallel": 4}, {"tensor_parallel": 2, "pipeline_parallel": 2}):
        table = base()
        table["plan"] |= plan
        found = outcome(table)
        span = found.metrics["makespan"]
        assert sum(found.breakdown["time"].values()) == pytest.approx(2 * span, rel=1e-6)


def test_energy_is_at_least_idle_and_at_most_the_limit() -> None:
    found = outcome(base())
    span, devices = found.metrics["makespan"], 8
    assert found.breakdown["energy"]["idle"] == pytest.approx(
        found.metrics["energy"] - sum(v for k, v in found.breakdown["energy"].items() if k != "idle")
    )
    from fleetcast.scenario.fleet.catalog import device

    power = device("h100-sxm").power
    assert power.idle * span * devices < found.metrics["energy"] <= power.max * span * devices


def test_tpot_mean_is_defined_by_sums_and_percentiles_need_two_tokens() -> None:
    found = outcome(base())
    s, m = found.requests, found.metrics["tpot"]
    assert m["mean"] == pytest.approx((s.e2e.sum() - s.ttft.sum()) / s.output.sum())
    many = s.output >= 2
    each = (s.e2e - s.ttft)[many] / (s.output[many] - 1)
    assert m["mean_per_request"] == pytest.approx(each.mean())
    assert m["p99"] == pytest.approx(np.percentile(each, 99))


def test_seeds_reproduce_bytes() -> None:
    table = base(workload__arrivals={"kind": "poisson", "rate": "4 /s"}, plan__route={"kind": "random"})
    first, again = (outcome(table | {"seed": 3}, record=True) for _ in range(2))
    other = outcome(table | {"seed": 4}, record=True)
    assert first.record.digest() == again.record.digest() != other.record.digest()
    assert first.metrics == again.metrics


@pytest.mark.parametrize("model", ["llama-3.1-8b", "gpt-oss-120b"])
def test_more_bandwidth_or_more_arithmetic_is_never_slower(model: str) -> None:
    import msgspec

    from fleetcast.cost.engine import engine
    from fleetcast.cost.step import step_cost as cost_of
    from fleetcast.scenario.fleet.tree import Fleet, resolve
    from fleetcast.scenario.workload.catalog import model as model_of
    from fleetcast.scenario.workload.models import Layout
    from fleetcast.scenario.workload.precision import as_engine

    group = resolve(Fleet(devices="8x h100-sxm")).groups[0]
    architecture = model_of(model)
    served = as_engine("auto", architecture.precision)

    def tables(device: Any) -> Any:
        from dataclasses import replace

        changed = replace(group, device=device)
        return cost_of(architecture, Layout(tensor_parallel=2), served, "bf16", changed, engine("vllm-1"), 64, 10_000)

    before = tables(group.device)
    peaks = {k: 1.5 * v for k, v in group.device.peak.items()}
    for change in ({"bandwidth": 1.5 * group.device.bandwidth}, {"peak": peaks}):
        after = tables(msgspec.structs.replace(group.device, **change))
        for name in ("dense", "experts", "head", "floor", "base", "slope"):
            assert (after.tables[name] <= before.tables[name] * (1 + 1e-12)).all(), name


def test_step_by_step_equals_event_to_event_on_the_real_costs() -> None:
    for plan in ({}, {"pipeline_parallel": 2, "replicas": 1}, {"batch": {"kind": "orca"}}):
        table = base()
        table["plan"] |= plan
        fast, slow = outcome(table), outcome(table, by_step=True)
        np.testing.assert_allclose(fast.requests.e2e, slow.requests.e2e, rtol=1e-9)
        assert fast.provenance["iterations"] == slow.provenance["iterations"]
