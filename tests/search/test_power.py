"""How many servers fit under a breaker: the search against trying every length, and the question end to end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fleetcast
from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.policy import power
from fleetcast.scenario.load import dump, load
from fleetcast.search.power import GRID, Row, candidates, choose, hold, largest
from fleetcast.sim.power.row import Breaker
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting
from tests.sim.test_power_row import phases, traffic


@given(limit=st.integers(0, 30), low=st.integers(1, 10), start=st.integers(-3, 40), most=st.integers(10, 25))
def test_the_largest_that_holds_is_found_from_anywhere(limit: int, low: int, start: int, most: int) -> None:
    asked: list[int] = []

    def holds(n: int) -> bool:
        asked.append(n)
        return n <= limit

    found = largest(holds, low, most, start)
    assert found == max([n for n in range(low, most + 1) if n <= limit], default=low - 1)
    assert len(set(asked)) == len(asked)
    assert min(asked) >= low
    assert max(asked) <= most


def tiny(budget: float = 19e3) -> Row:
    return Row(phases(), Breaker(budget=budget), low=0.5, servers=4, most=10)


@pytest.mark.parametrize("policy", [power.Uncapped(), power.OneThreshold(), power.CapAll(), power.Polca()])
def test_the_row_held_is_that_of_trying_every_length(policy: Any) -> None:
    row, weeks = tiny(), traffic(10, 0.12, 1500.0)
    without = [n for n in range(1, 11) if row.run(policy, weeks, n).brakes == 0]
    found = hold(row, policy, weeks, row.free(weeks), start=6)
    assert without == list(range(1, found.servers + 1))
    assert found.peak == row.run(policy, weeks, found.servers).peak <= 1.0
    assert found.added == found.servers - 4
    if policy.kind == "uncapped":
        assert found.slow == {name: {"mean": 1.0, "p99": 1.0} for name in ("low", "high")}


def test_thresholds_chosen_are_the_best_of_the_grid() -> None:
    row, weeks = tiny(), [traffic(10, 0.12, 1500.0, seed) for seed in (0, 1)]
    free = row.free(weeks[0])
    policy, servers = choose(row, "polca", weeks, free)
    every = {}
    for one in candidates("polca"):
        held = [n for n in range(1, 11) if all(row.run(one, w, n).brakes == 0 for w in weeks)]
        every[tuple(vars(one).items())] = max(held, default=0)
    assert servers == max(every.values()) == every[tuple(vars(policy).items())]
    slow = row.slow(row.run(policy, weeks[0], servers, keep=True), free, weeks[0], servers)
    for one in candidates("polca"):
        if every[tuple(vars(one).items())] == servers:
            other = row.slow(row.run(one, weeks[0], servers, keep=True), free, weeks[0], servers)
            assert slow["high"]["p99"] <= other["high"]["p99"] + 1e-4


def test_the_grid_leaves_out_thresholds_out_of_order() -> None:
    assert all(p.lower < p.upper for p in candidates("polca"))
    assert len(candidates("uncapped")) == 1
    assert {p.threshold for p in candidates("cap_all", {"hysteresis": 0.05})} == set(GRID["cap_all"]["threshold"])


def scenario(*, fleet: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    plan = {"tensor_parallel": 4, "pipeline_parallel": 1, "power": "polca"} | more.pop("plan", {})
    workload = {"model": "llama-3.1-8b", "trace": "azure-conv-2023", "low_priority": 0.5, "speed_up": 0.4}
    workload |= more.pop("workload", {})
    devices = {"devices": "16x a100-80g-sxm", "budget": "9 kW", "host_power": "1 kW"} | (fleet or {})
    return {"fleet": devices, "workload": workload, "plan": plan}


def test_a_breaker_carries_more_servers_than_are_there() -> None:
    room = fleetcast.servers_under(scenario())
    assert (room.servers, room.devices, room.chosen) == (2, 8, False)
    assert [h.policy["kind"] for h in room.held] == ["uncapped", "polca"]
    null, polca = room.held
    assert 2 <= null.servers <= polca.servers
    assert room.peak < 1.0
    assert any("synthetic" in note for note in room.notes)
    again = fleetcast.servers_under(scenario())
    assert again.table() == room.table()


def test_a_breaker_too_small_for_the_row_says_how_many_fit() -> None:
    room = fleetcast.servers_under(scenario(fleet={"devices": "32x a100-80g-sxm", "budget": "8.5 kW"}))
    assert 1 <= room.held[0].servers < 4
    assert room.held[0].added < 0
    assert room.peak > 1.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fleet": {"budget": "3 kW"}}, r"fleet\.budget: is below the idle power of the servers.*3.28 kW"),
        ({"fleet": {"devices": "12x a100-80g-sxm"}}, r"fleet\.devices: leaves the last server part empty.*of 8"),
        ({"fleet": {"devices": "8x a100-80g-sxm + 8x h100-sxm"}}, "not one row of equal servers"),
        (
            {"fleet": {"failures": {"mtbf": "9 h", "repair": "1 h"}}},
            r"fleet\.failures: is not read here.*must hold when all servers run",
        ),
        ({"plan": {"tensor_parallel": 16}}, r"plan\.tensor_parallel: leaves replicas that do not fill a server"),
        ({"plan": {"replicas": 3}}, r"plan\.replicas: does not fill the row.*4 on 2 servers"),
        ({"plan": {"clock": 0.8}}, r"plan\.clock: stands beside a power policy"),
        ({"plan": {"power": {"kind": "polca", "lower": 0.9, "upper": 0.8}}}, r"plan\.power: lower threshold 0.9"),
        ({"plan": {"power": "polka"}}, r"plan\.power\.kind: is unknown.*polca"),
        ({"plan": {"power": []}}, r"plan\.power: is an empty list"),
        ({"workload": {"requests": 300}}, r"workload\.trace: is too short"),
        ({"workload": {"speed_up": 1000.0}}, "workload: is more than the servers hold in their busiest hour"),
        ({"workload": {"low_priority": 1.5}}, r"workload\.low_priority"),
    ],
)  # fmt: skip
def test_questions_that_make_no_sense_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises((SpecError, Infeasible), match=said):
        fleetcast.servers_under(scenario(**change))


def test_a_budget_is_asked_for_and_so_are_servers() -> None:
    table = scenario()
    del table["fleet"]["budget"]
    with pytest.raises(SpecError, match=r"fleet\.budget: is missing.*200 kW"):
        fleetcast.servers_under(table)
    with pytest.raises(SpecError, match=r"fleet: .*devices"):
        fleetcast.servers_under(table | {"fleet": {"budget": "9 kW"}})


def test_a_plan_keeps_its_power_policy_through_files_and_completion() -> None:
    found = load(scenario(plan={"power": ["one_threshold", {"kind": "polca", "lower": 0.7}], "replicas": 4}))
    assert load(dump(found)).plan == found.plan
    state = setting(found)
    assert complete(state, found.plan).power == found.plan.power
    assert fleetcast.simulate(found).metrics["requests"] == len(state.requests)


def test_phases_come_out_of_the_serving_world() -> None:
    from fleetcast.sim.power.forecast import forecast
    from fleetcast.sim.serving.world import simulate

    state = setting(load(scenario(plan={"replicas": 1})))
    plan = complete(state, state.scenario.plan)
    found = forecast(state, plan.pools[0], host=1000.0)
    assert (found.host, found.idle) == (500.0, 4 * 80.0)
    assert (np.diff(found.step_time[1:]) >= -1e-9).all()
    assert (found.prompt_power <= 4 * 400.0 + 1e-6).all()
    assert (np.diff(found.clocks.prompt_rate) > 0).all()
    assert found.clocks.step_rate[0] > found.clocks.prompt_rate[0]  # steps are bound by memory
    # one request alone in the serving world takes what its phases say
    from dataclasses import replace

    one = replace(state, requests=state.requests.slice(40, 41))
    took = simulate(one, plan).metrics["e2e"]["mean"]
    said = found.prompt_time[40] + (found.tokens[40] - 1) * found.step_time[1]
    assert said == pytest.approx(took, rel=0.03)
