"""Sizing agrees with trying every size; the heuristic is what it says; the clock trade is one."""

from dataclasses import replace
from typing import Any

import pytest

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.scenario.load import Scenario, load
from fleetcast.search.capacity import any_plan, devices_needed, max_rate, max_users
from fleetcast.search.frequency import KEEP_UP, sensitivity, trade
from fleetcast.search.heuristic import heuristic
from fleetcast.search.parallelism import search
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import simulate

BATCH = {"kind": "chunked", "chunk": 512, "max_batch": 64}


def scenario(devices: str = "4x l40s", model: str = "llama-3.1-8b", rate: float = 4.0, **parts: Any) -> Scenario:
    table: dict[str, Any] = {
        "fleet": {"devices": devices},
        "workload": {
            "model": model, "arrivals": {"kind": "poisson", "rate": rate, "requests": 150},
            "lengths": {"kind": "lognormal", "prompt": 800, "output": 100, "prompt_p90": 1800, "output_p90": 220},
        },
        "slo": {"ttft_p99": "1 s", "tpot_p99": "60 ms"}, "plan": {"batch": BATCH},
    }  # fmt: skip
    return load(table | parts)


def test_devices_needed_by_trying_every_size() -> None:
    (need,) = devices_needed(scenario(), ["l40s"], most=8)
    for n in range(1, 9):
        if search(setting(scenario(f"{n}x l40s"))).best is not None:
            break
    assert need.devices == n and need.outcome is not None and need.outcome.metrics["devices"] == n
    assert need.table()["plan"] == need.outcome.plan


def test_devices_needed_orders_kinds_by_cost_and_says_why_not() -> None:
    needs = devices_needed(scenario(), ["h100-sxm", "l40s", "l4"], most=4)
    costs = [n.outcome.metrics["cost"] for n in needs if n.outcome is not None]
    assert costs == sorted(costs)
    big = devices_needed(scenario(model="llama-3.1-405b"), ["l4"], most=2)[0]
    assert big.devices is None and "memory" in big.constraint
    slow = devices_needed(scenario(slo={"ttft_p99": "1 ms"}), ["l40s"], most=2)[0]
    assert slow.devices is None and slow.nearest is not None and not slow.nearest.slo["met"]
    fixed = {"replicas": 2, "tensor_parallel": 1, "pipeline_parallel": 1, "batch": BATCH}
    slow = devices_needed(scenario(slo={"ttft_p99": "1 ms"}, plan=fixed), ["l40s"], most=8)[0]
    assert slow.devices is None and slow.missed is not None and slow.missed["layout"] == "2x TP1"


def test_max_rate_brackets() -> None:
    here = scenario("2x l40s")
    load_ = max_rate(here, tolerance=0.05)
    assert load_.outcome is not None and load_.outcome.slo["met"]
    assert load_.missed is not None and load_.factor < load_.missed <= load_.factor * 1.05 * (1 + 1e-9)
    state = setting(here)
    assert load_.rate == pytest.approx(state.requests.rate * load_.factor)
    assert any_plan(replace(state, requests=state.requests.speed_up(load_.missed))) is None
    assert load_.table()["tried"][0][0] == 1.0


def test_max_rate_of_a_fixed_plan() -> None:
    plan = {"replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1, "batch": BATCH}
    one = max_rate(scenario("2x l40s", plan=plan), tolerance=0.05)
    two = max_rate(scenario("2x l40s", plan=plan | {"replicas": 2}), tolerance=0.05)
    assert 1.4 < two.rate / one.rate < 3.0
    assert one.outcome is not None and one.outcome.plan["replicas"] == 1


def test_no_rate_meets_an_impossible_limit() -> None:
    assert max_rate(scenario(slo={"ttft_p99": "1 ms"})).factor == 0.0


def test_sizing_needs_limits_and_a_clock() -> None:
    with pytest.raises(SpecError, match="slo"):
        devices_needed(scenario(slo={}), ["l40s"])
    with pytest.raises(SpecError, match="slo"):
        max_rate(scenario(slo={}))
    closed = {
        "model": "llama-3.1-8b", "arrivals": {"kind": "closed", "concurrency": 4, "requests": 20},
        "lengths": {"kind": "fixed", "prompt": 10, "output": 10},
    }  # fmt: skip
    with pytest.raises(SpecError, match=r"workload\.arrivals.*max_users"):
        max_rate(scenario(workload=closed))
    with pytest.raises(SpecError, match=r"workload\.arrivals.*max_rate"):
        max_users(scenario())
    with pytest.raises(SpecError, match="slo"):
        max_users(scenario(workload=closed, slo={}))


def loop(users: int, slo: dict[str, str], requests: int = 120) -> Scenario:
    closed = {
        "model": "llama-3.1-8b", "arrivals": {"kind": "closed", "concurrency": users, "requests": requests},
        "lengths": {"kind": "fixed", "prompt": 600, "output": 60},
    }  # fmt: skip
    plan = {"replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1, "batch": BATCH}
    return scenario("1x l40s", workload=closed, slo=slo, plan=plan)


@pytest.mark.parametrize("start", [1, 9, 100, 400])
def test_max_users_by_trying_every_number(start: int) -> None:
    slo = {"e2e_p99": "4 s"}
    state = setting(loop(start, slo))
    met = [any_plan(replace(state, requests=replace(state.requests, concurrency=n))) is not None for n in range(1, 121)]
    found = max_users(loop(start, slo), tolerance=0.0)
    assert 1 < found.users < 120 and met[found.users - 1]
    assert found.missed == found.users + 1 and not met[found.missed - 1]
    assert found.outcome is not None and found.outcome.slo["met"]
    assert all(met[users - 1] is said for users, said in found.tried)
    assert found.table()["users"] == found.users and "rate" not in found.table()


def test_max_users_ends_at_one_and_at_all_requests() -> None:
    none = max_users(loop(7, {"ttft_p99": "1 us"}))
    assert (none.users, none.missed, none.outcome) == (0, 1, None)
    every = max_users(loop(7, {"ttft_p99": "1 h"}))
    assert (every.users, every.missed) == (120, None) and every.outcome is not None


@pytest.mark.parametrize(
    ("devices", "model", "label"),
    [
        ("8x h100-sxm", "llama-3.1-70b", "1x TP8"), ("16x h100-sxm", "llama-3.1-70b", "2x TP8"),
        ("16x h100-sxm", "llama-3.1-405b", "1x TP8 PP2"), ("6x l40s", "llama-3.1-8b", "1x TP4"),
        ("8x l40s + 8x h100-sxm", "llama-3.1-8b", "1x TP8 on l40s + 1x TP8 on h100-sxm"),
    ],
)  # fmt: skip
def test_heuristic(devices: str, model: str, label: str) -> None:
    state = setting(scenario(devices, model))
    plan = heuristic(state)
    assert plan.label() == label
    assert simulate(state, plan).metrics["devices"] == plan.devices()


def test_heuristic_refuses_what_fits_nowhere() -> None:
    with pytest.raises(Infeasible):
        heuristic(setting(scenario("2x l4", "llama-3.1-70b")))


def test_the_clock_trade() -> None:
    found = sensitivity(setting(scenario("2x a100-80g-sxm")), clocks=(0.6, 0.8, 1.0))
    assert len(found) >= 3 and {t.label for t in found} == {"modelled"}
    for t in found:
        assert 0 <= t.saved < 1 and t.paid >= 1
        assert t.frugal.metrics["makespan"] <= KEEP_UP * t.fast.metrics["makespan"]
    assert any(t.frugal.plan.get("clock", 1.0) < 1 for t in found)


def test_the_clock_trade_by_trying_everything() -> None:
    state = setting(scenario("2x a100-80g-sxm"))
    found = trade(state, clocks=(0.7, 1.0))
    assert found is not None
    table = {"batch": BATCH, "clock": [0.7, 1.0]}
    every = search(setting(scenario("2x a100-80g-sxm", plan=table)), exhaustive=True, top=None).plans
    fast = min(every, key=lambda o: o.metrics["e2e"]["mean"])
    keeping = [o for o in every if o.metrics["makespan"] <= KEEP_UP * fast.metrics["makespan"]]
    assert found.fast.metrics == fast.metrics
    assert found.frugal.metrics["energy"] == min(o.metrics["energy"] for o in keeping)


def test_nothing_to_trade_where_nothing_meets() -> None:
    assert trade(setting(scenario(slo={"ttft_p99": "1 ms"}))) is None
