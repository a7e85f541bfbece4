"""Prefill and decode on pools of their own: laws, one request by hand, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.policy import route
from fleetcast.scenario.load import load
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import _run_kernel, simulate
from tests.sim.worlds import policies, step_cost, world

PREFILL = {"role": "prefill", "replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1}
DECODE = PREFILL | {"role": "decode"}


def table(*pools: dict[str, Any], requests: int = 1, **plan: Any) -> dict[str, Any]:
    return {
        "fleet": {"devices": "4x h100-sxm"},
        "workload": {
            "model": "llama-3.1-8b", "arrivals": {"kind": "uniform", "rate": "0.1 /s", "requests": requests},
            "lengths": {"kind": "fixed", "prompt": 2000, "output": 50},
        },
        "plan": {"pools": [{"engine": "ideal"} | p for p in pools]} | plan,
    }  # fmt: skip


def outcome(content: dict[str, Any]) -> Any:
    state = setting(load(content))
    return simulate(state, complete(state, state.scenario.plan))


def test_one_replica_that_does_both_is_the_plain_world() -> None:
    place = world(3, 200, 20.0, policies()["chunked"], cost=step_cost(capacity=700))
    plain = _run_kernel(place, place.servers, route.LeastLoaded(), record=False, by_step=False)
    split = _run_kernel(place, place.servers, route.SplitPhases(), record=False, by_step=False)
    for a, b in zip(plain[:3], split[:3], strict=True):
        np.testing.assert_array_equal(a, b)


def test_free_transfers_leave_the_first_token_and_the_tokens_where_they_were() -> None:
    place = world(3, 60, 0.2, policies()["chunked"], cost=step_cost(), roles=("prefill", "decode"))
    free = place.tree.link_between(None, None)
    free.bandwidth, free.latency = 1e30, 0.0
    plain = world(3, 60, 0.2, policies()["chunked"], cost=step_cost())
    apart = _run_kernel(place, place.servers, route.SplitPhases(), record=False, by_step=False)
    alone = _run_kernel(plain, plain.servers, route.LeastLoaded(), record=False, by_step=False)
    # without a queue a request meets nobody, so that the phases take what they take together
    quiet = np.diff(alone.arrival, append=np.inf) > alone.finish - alone.arrival
    quiet &= np.concatenate([[True], alone.arrival[1:] > np.maximum.accumulate(alone.finish)[:-1]])
    assert quiet.sum() > 10
    np.testing.assert_allclose(apart.first[quiet], alone.first[quiet], rtol=1e-9)
    np.testing.assert_allclose(apart.finish[quiet], alone.finish[quiet], rtol=1e-9)


@pytest.mark.parametrize("layerwise", [True, False])
def test_the_cache_takes_its_bytes_over_the_link(layerwise: bool) -> None:
    plan = table(PREFILL, DECODE, route={"kind": "split_phases", "layerwise": layerwise})
    state = setting(load(plan))
    model, link = state.model, state.tree.link_between(state.tree.groups[0], state.tree.groups[0])
    whole = 2000 * model.kv_bytes_per_token(2.0) / link.bandwidth
    together = outcome(table({k: v for k, v in PREFILL.items() if k != "role"}))
    apart = outcome(plan)
    added = apart.metrics["e2e"]["mean"] - together.metrics["e2e"]["mean"]
    assert apart.metrics["ttft"] == together.metrics["ttft"]
    # the prompt takes longer than its cache: of layers that leave as they are ready only the last is waited for
    expected = (whole / model.layers if layerwise else whole) + link.latency
    assert added == pytest.approx(expected, rel=1e-6)


def test_requests_tokens_and_energy_are_conserved() -> None:
    found = outcome(table(PREFILL, DECODE, DECODE, requests=40))
    assert found.metrics["output_tokens"] == 2000
    assert [r["requests"] for r in found.resources] == [40, 0, 0]
    served = found.requests
    assert (served.began == 0).all() and set(served.resource) <= {1, 2}
    idle = sum(3 * [setting(load(table(PREFILL, DECODE))).tree.groups[0].device.power.idle])
    assert found.metrics["energy"] >= idle * found.metrics["makespan"]


def test_answers_of_one_token_never_move() -> None:
    content = table(PREFILL, DECODE)
    content["workload"]["lengths"]["output"] = 1
    assert (outcome(content).requests.resource == 0).all()


def test_decode_replicas_help_out_beyond_the_spill() -> None:
    content = table(PREFILL, DECODE, requests=60)
    content["workload"]["arrivals"]["rate"] = "200 /s"
    alone = outcome(content)
    content["plan"]["route"] = {"kind": "split_phases", "spill": 4000}
    helped = outcome(content)
    assert set(alone.requests.began) == {0}
    assert set(helped.requests.began) == {0, 1}
    assert helped.metrics["ttft"]["p99"] < alone.metrics["ttft"]["p99"]


@pytest.mark.parametrize(
    ("pools", "plan", "path"),
    [
        ((PREFILL,), {}, "plan.pools"),
        ((DECODE,), {}, "plan.pools"),
        ((PREFILL, DECODE | {"replicas": 0}), {}, "plan.pools[1].replicas"),
        ((PREFILL, DECODE), {"route": {"kind": "split_phases", "layerwise": 3}}, "plan.route.layerwise"),
        ((PREFILL, DECODE), {"route": "least_loaded"}, "plan.route.kind"),
        ((PREFILL, DECODE | {"model": "llama-3.2-1b"}), {}, "plan.pools.model"),
        ((PREFILL, DECODE | {"kv_dtype": "fp8"}), {}, "plan.pools.kv_dtype"),
        ((PREFILL, DECODE), {"phases": "split"}, "plan.phases"),
        ((PREFILL | {"role": "drafts"}, DECODE), {}, "plan.pools[0].role"),
        ((PREFILL, DECODE), {"route": {"kind": "split_phases", "spill": -1}}, "plan.route.spill"),
        ((PREFILL | {"role": "all"},), {"route": "split_phases"}, "plan.route.kind"),
        ((PREFILL | {"role": "all"}, DECODE | {"role": "all"}), {"route": "split_phases"}, "plan.route.kind"),
        ((PREFILL, DECODE), {"route": ["split_phases", {"kind": "split_phases", "spill": 100}]}, "plan.route"),
    ],
)
def test_nonsense_is_refused(pools: Any, plan: dict[str, Any], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        outcome(table(*pools, **plan))
    assert caught.value.path == path
    assert caught.value.limit or caught.value.hint


def test_a_search_for_phases_is_no_plan_to_simulate() -> None:
    content = table(PREFILL)
    content["plan"] = {"phases": ["together", "split"]}
    with pytest.raises(SpecError, match=r"plan\.phases"):
        outcome(content)
    content["plan"] = {"phases": "apart"}
    with pytest.raises(SpecError, match="unknown"):
        load(content)
