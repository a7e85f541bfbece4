"""Power limits and clocks in the world: never more than allowed, never faster for less, never free."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import Infeasible
from fleetcast.scenario.load import load
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import simulate


@pytest.mark.parametrize("device", ["h100-sxm", "a100-80g-sxm", "mi300x"])
@pytest.mark.parametrize("model", ["llama-3.1-8b", "mixtral-8x7b"])
@pytest.mark.parametrize("users", [1, 48])
def test_a_power_limit_is_never_exceeded_and_never_speeds_anything_up(device: str, model: str, users: int) -> None:
    before: dict[str, Any] | None = None
    for share in (1.0, 0.9, 0.75, 0.6, 0.45, 0.3):
        table = {
            "fleet": {"devices": f"2x {device}"},
            "workload": {
                "model": model, "lengths": {"kind": "fixed", "prompt": 700, "output": 60},
                "arrivals": {"kind": "closed", "concurrency": users, "requests": 3 * users},
            },
            "plan": {"replicas": 1, "tensor_parallel": 2, "pipeline_parallel": 1},
        }  # fmt: skip
        top = setting(load(table)).tree.groups[0].device.power
        watts = top.max * share
        table["fleet"] |= {"power_limit": watts} if share < 1 else {}
        state = setting(load(table))
        found = simulate(state, complete(state, state.scenario.plan)).metrics
        assert 2 * top.idle <= found["power"] <= 2 * watts * (1 + 1e-9)
        if before is not None:
            assert found["makespan"] >= before["makespan"]
            if users == 1:  # many users' requests may meet in other batches, so that one of them waits less
                assert all(found[name]["mean"] >= before[name]["mean"] for name in ("ttft", "tpot", "e2e"))
        before = found


@given(st.floats(0.3, 1.0), st.floats(0.3, 1.0), st.sampled_from([1.0, 0.7, 0.4]))
@settings(max_examples=25, deadline=None)
def test_a_lower_limit_lengthens_every_table(one: float, other: float, clock: float) -> None:
    found = []
    for share in sorted((one, other)):
        table = {
            "fleet": {"devices": "2x h200-sxm", "power_limit": 700.0 * share},
            "workload": {
                "model": "mixtral-8x7b", "lengths": {"kind": "fixed", "prompt": 10, "output": 10},
                "arrivals": {"kind": "uniform", "rate": 1, "requests": 2},
            },
            "plan": {"replicas": 1, "tensor_parallel": 2, "pipeline_parallel": 1, "clock": clock},
        }  # fmt: skip
        state = setting(load(table))
        found.append(state.server(complete(state, state.scenario.plan).pools[0]).cost)
    low, high = found
    for name, times in low.tables.items():
        assert (times >= high.tables[name] * (1 - 1e-9)).all(), name
    for name in ("pre_base", "pre_pair", "pre_context"):
        assert low.scalars[name] >= high.scalars[name] * (1 - 1e-9)


def test_a_limit_below_the_busy_floor_of_the_lowest_clock_is_refused_with_both_numbers() -> None:
    table = {
        "fleet": {"devices": "1x m2-ultra", "power_limit": "20 W"},
        "workload": {"model": "llama-3.2-1b", "trace": "azure-code-2023", "requests": 5},
        "plan": {"replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1},
    }
    state = setting(load(table))
    message = "power of m2-ultra with its clock at 30% of the top needs 29.4 W, have 20 W. Raise fleet.power_limit"
    with pytest.raises(Infeasible, match=message):
        complete(state, state.scenario.plan)


def test_clocks_below_the_measured_ones_differ_and_say_so() -> None:
    found = []
    for clock in (0.61, 0.3):
        table = {
            "fleet": {"devices": "1x h100-sxm"},
            "workload": {"model": "llama-3.1-8b", "trace": "azure-code-2023", "requests": 50},
            "plan": {"replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1, "clock": clock},
        }
        state = setting(load(table))
        found.append(simulate(state, complete(state, state.scenario.plan)))
    assert found[1].metrics["ttft"]["mean"] > found[0].metrics["ttft"]["mean"]
    assert any("continued below 61% with the voltage held" in note for note in found[1].notes)
    assert not any("continued" in note for note in found[0].notes)
