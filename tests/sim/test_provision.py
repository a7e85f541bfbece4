"""What a plan takes of the fleet's budget: power by the stated rule, servers by hand, and a refusal that names both."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fleetcast
from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.cost.clocks import clock_curve
from fleetcast.cost.energy import Rates, limited_time, peak_draw
from fleetcast.scenario.load import load
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.provision import peak_of, servers_touched, taken
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import simulate

BATCH = {"kind": "chunked", "chunk": 2048, "max_batch": 64}


def scenario(plan: dict[str, Any] | None = None, rate: float = 6.0, prompt: int = 900, **fleet: Any) -> Any:
    layout = {"replicas": 4, "tensor_parallel": 4, "pipeline_parallel": 1, "batch": BATCH}
    return load({
        "fleet": {"devices": "16x a100-80g-sxm", "price": {"a100-80g-sxm": 2.0}} | fleet,
        "workload": {
            "model": "llama-3.1-8b", "arrivals": {"kind": "poisson", "rate": rate, "requests": 80},
            "lengths": {"kind": "fixed", "prompt": prompt, "output": 60},
        },
        "plan": layout | (plan or {}),
    })  # fmt: skip


def parts(table: Any) -> Any:
    state = setting(table)
    plan = complete(state, table.plan)
    return state, [(state.server(pool), pool) for pool in plan.pools]


def seen(server: Any) -> Any:
    return server.group, server.cost


@given(st.integers(1, 8), st.lists(st.tuples(st.integers(1, 10), st.integers(1, 12)), min_size=1, max_size=4))
def test_servers_touched_are_enough_and_not_many(node: int, sets: list[tuple[int, int]]) -> None:
    found = servers_touched(node, sets)
    devices = sum(width * count for width, count in sets)
    assert found * node >= devices
    alone = sum(count if width <= node else count * -(-width // node) for width, count in sets)
    assert found <= alone
    if all(node % width == 0 and (width & (width - 1)) == 0 for width, _ in sets) and node in (1, 2, 4, 8):
        assert found == -(-devices // node)


@pytest.mark.parametrize(
    ("sets", "servers"),
    [([(4, 3)], 2), ([(8, 2), (1, 1)], 3), ([(16, 1)], 2), ([(3, 3)], 2), ([(6, 2), (2, 2)], 2), ([(5, 2), (3, 3)], 3)],
)
def test_servers_by_hand(sets: list[tuple[int, int]], servers: int) -> None:
    assert servers_touched(8, sets) == servers


def test_power_of_a_plan_is_what_its_devices_and_servers_draw_at_most() -> None:
    state, pools = parts(scenario(host_power="1 kW"))
    found = taken(state.tree, pools)
    device = state.tree.groups[0].device
    assert found.power == 16 * device.power.max + 2 * 1000
    assert found.idle == 16 * device.power.idle + 2 * 1000
    assert found.price == 32.0
    _, pools = parts(scenario({"replicas": 1}, host_power="1 kW"))
    assert taken(state.tree, pools).power == 4 * device.power.max + 1000


def test_a_clock_and_a_power_limit_lower_what_must_be_there() -> None:
    state, pools = parts(scenario({"clock": 0.7}))
    device, server = state.tree.groups[0].device, pools[0][0]
    rates, limit = server.cost.work["rates"], device.power.max
    curve, _, _ = clock_curve(device)
    share = float(np.interp(0.7, curve.clock, curve.power))
    memory = min(limit - rates.busy, max(rates.weights, rates.cache) * device.bandwidth)
    assert peak_of(server.group, server.cost) == pytest.approx(
        max(rates.busy + memory, share * limit + (1 - share) * memory)
    )
    assert device.power.idle < peak_of(server.group, server.cost) < limit
    h100 = {"devices": "16x h100-sxm", "price": {}}
    peaks = [peak_of(*seen(parts(scenario({"clock": c}, **h100))[1][0][0])) for c in (0.3, 0.5, 0.8, 0.9, 1.0)]
    assert peaks == sorted(peaks) and len(set(peaks)) == 5 and peaks[-1] == 700.0
    _, capped = parts(scenario(power_limit="300 W"))
    assert peak_of(*seen(capped[0][0])) == 300.0


@given(
    st.floats(0.3, 1), st.floats(0.05, 0.6), st.floats(0, 1), st.floats(0, 3), st.floats(0.01, 1),
)  # fmt: skip
def test_no_work_draws_more_than_the_peak(share: float, busy: float, cold: float, hot: float, reading: float) -> None:
    rates = Rates(400.0, 400.0 * share, 400.0 * busy * share, 1.0, reading * 400.0 / 2e12, 1.0, 0.0)
    peak = peak_draw(rates, 2e12)
    assert rates.most - 1e-9 <= peak <= rates.limit + 1e-9
    # under a limit at the peak no work within the memory's roof takes longer
    joules = cold * reading * 400.0
    assert float(limited_time(1.0, hot * 400.0, joules, rates, max(peak, rates.busy + 1e-6))) <= 1.0 + 1e-5


@settings(max_examples=12)
@given(st.sampled_from([0.4, 0.6, 0.8, 1.0]), st.sampled_from([1.0, 20.0, 200.0]), st.sampled_from([30, 3000]))
def test_no_simulated_plan_draws_more_than_it_provisions(clock: float, rate: float, prompt: int) -> None:
    table = scenario({"clock": clock}, rate=rate, prompt=prompt)
    state, pools = parts(table)
    outcome = simulate(state, complete(state, table.plan))
    assert outcome.metrics["power"] <= taken(state.tree, pools).power * (1 + 1e-9)


def test_a_plan_above_the_budget_is_refused_and_says_by_how_much() -> None:
    need = 16 * 400 + 2 * 1000
    assert fleetcast.simulate(scenario(host_power="1 kW", budget=need)).metrics["devices"] == 16
    with pytest.raises(Infeasible, match=r"power of all servers needs 8.4 kW, have 8.3[79]\d* kW.*fleet.budget"):
        fleetcast.simulate(scenario(host_power="1 kW", budget=need - 10))
    assert fleetcast.simulate(scenario({"clock": 0.7}, host_power="1 kW", budget=need - 10)).metrics["devices"] == 16
    with pytest.raises(Infeasible, match=r"price of all devices needs 32.00 \$/h, have 31.00 \$/h"):
        fleetcast.simulate(scenario(spend="31 $/h"))
    assert fleetcast.simulate(scenario(spend="32 $/h")).metrics["devices"] == 16
    (remark,) = fleetcast.check(scenario(budget="3 kW", spend="50 $/h"))[:1]
    assert remark.level == "error" and "power of all servers" in remark.text


def test_under_a_power_policy_only_idle_power_must_fit() -> None:
    policy = {"power": "polca"}
    assert fleetcast.simulate(scenario(policy, budget="3 kW")).metrics["devices"] == 16
    with pytest.raises(Infeasible, match="idle power of all servers"):
        fleetcast.simulate(scenario(policy, budget="500 W"))


def test_an_open_plan_that_no_size_fits_is_remarked() -> None:
    open_ = {"replicas": [2, 4], "tensor_parallel": 4, "pipeline_parallel": 1}
    errors = [r for r in fleetcast.check(scenario(open_, budget="1 kW")) if r.level == "error"]
    assert len(errors) == 1 and "power of all servers, 3.2 kW of 1 kW" in errors[0].text and "budget" in errors[0].next
    assert not [r for r in fleetcast.check(scenario(open_, budget="4 kW")) if r.level == "error"]


@pytest.mark.parametrize(
    ("fleet", "message"),
    [
        ({"budget": "40 W"}, r"fleet\.budget: is below the idle power of one server with.*got .40 W.*from 80 W"),
        ({"budget": "600 W", "host_power": "1 kW"}, r"fleet\.budget: is below the idle.*1.08 kW"),
        ({"spend": "1 $/h"}, r"fleet\.spend: is below the price of every device.*2.00 \$/h.*a100"),
        ({"spend": "1 W"}, r"fleet\.spend"),
        ({"spend": "9 $/h", "devices": "2x jetson-agx-orin-64g", "price": {}}, r"fleet\.spend: needs prices.*jetson"),
    ],
)  # fmt: skip
def test_limits_that_allow_nothing(fleet: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        setting(scenario(**fleet))


def test_nothing_changes_without_a_budget() -> None:
    plain = fleetcast.simulate(scenario())
    wide = fleetcast.simulate(scenario(budget="1 MW", spend="1000 $/h"))
    assert plain.metrics == wide.metrics and plain.plan == wide.plan
    assert [n for n in wide.notes if n not in plain.notes and not n.startswith("budget")] == []
    assert list(itertools.chain(plain.intervals)) == list(itertools.chain(wide.intervals))
