"""Replicas that fail: compiled = reference, nothing is lost, and where none fails nothing changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fleetcast.policy import route
from fleetcast.scenario.fleet.failures import Downtime, Outages
from fleetcast.scenario.load import load
from fleetcast.sim.serving import failing, reference
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import Setting, setting
from fleetcast.sim.serving.world import _run_kernel, simulate
from tests.sim.test_kernel import SHAPES, build
from tests.sim.worlds import World, policies

OPEN = [name for name, shape in SHAPES.items() if "users" not in shape and "roles" not in shape and "split" not in name]


def downs(place: World, seed: int, mtbf: float, repair: float) -> list[Downtime]:
    """Outages of a process for every replica, short enough to meet many in a small world."""
    found = Outages("g", 1, len(place.servers), mtbf, repair, None, True)
    return [Downtime(found, (i,), seed) for i in range(len(place.servers))]


def listed(count: int, outages: dict[int, list[tuple[float, float]]]) -> list[Downtime]:
    found = Outages("g", 1, count, 0.0, 0.0, {k: tuple(v) for k, v in outages.items()}, True)
    return [Downtime(found, (i,), 0) for i in range(count)]


def fast(place: World, policy: Any, out: Sequence[Downtime | None], by_step: bool = False) -> Any:
    return _run_kernel(place, place.servers, policy, record=True, by_step=by_step, downs=out)


def slow(place: World, policy: Any, out: Sequence[Downtime | None]) -> Any:
    return reference.run(place, place.servers, policy, record=True, by_step=True, downs=out)


def alike(a: Any, b: Any) -> None:
    np.testing.assert_array_equal(a.where, b.where)
    np.testing.assert_array_equal(a.began, b.began)
    for x, y in zip(a[:3], b[:3], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9)
    np.testing.assert_array_equal(a.lost.tries, b.lost.tries)
    np.testing.assert_array_equal(a.lost.firsts, b.lost.firsts)
    np.testing.assert_allclose(a.lost.tokens, b.lost.tokens, rtol=1e-12)
    for x, y in zip(a.reports, b.reports, strict=True):
        for name in ("iterations", "completed", "preemptions"):
            assert x[name] == y[name], name
        assert x["busy"] == pytest.approx(y["busy"], rel=1e-9)


ROUTES = (route.LeastLoaded(), route.RoundRobin(), route.Random(), route.PrefixHash())
CASES = [
    (shape, kind, ROUTES[(i + j) % len(ROUTES)])
    for i, shape in enumerate(OPEN) for j, kind in enumerate(policies())
    if "windows" not in shape or kind == "chunked"
]  # fmt: skip


@pytest.mark.parametrize(("shape", "kind", "policy"), CASES)
def test_the_loop_equals_the_reference_world(shape: str, kind: str, policy: Any) -> None:
    place = build(shape, kind, count=100)
    place.servers = (place.servers * 2)[:3]
    quick = fast(place, policy, downs(place, 1, 6.0, 1.0))
    alike(quick, slow(place, policy, downs(place, 1, 6.0, 1.0)))
    alike(quick, fast(place, policy, downs(place, 1, 6.0, 1.0), by_step=True))
    assert quick.lost.tries.sum() > 0


@pytest.mark.parametrize("shape", ["heavy", "windows", "both", "shortest", "lagging", "drafts tight"])
def test_every_request_finishes_once_and_late_tokens_stand(shape: str) -> None:
    place = build(shape, "chunked")
    plain, done = fast(place, route.LeastLoaded(), []), fast(place, route.LeastLoaded(), downs(place, 3, 5.0, 1.0))
    count = len(place.requests)
    assert sum(r["completed"] for r in done.reports) == sum(r["completed"] for r in plain.reports) == count
    assert (done.first > done.arrival).all() and (done.finish >= done.first).all()
    assert done.finish.max() > plain.finish.max() and done.lost.tries.sum() > 0
    # tokens made: those of every request, and those that were lost
    assert (done.lost.tokens >= done.lost.firsts).all() and done.lost.tokens.sum() > 0


@pytest.mark.parametrize("shape", ["heavy", "replicas", "lagging"])
@pytest.mark.parametrize("policy", [route.LeastLoaded(), route.RoundRobin(), route.Random()])
def test_no_failures_are_exactly_the_plain_result(shape: str, policy: Any) -> None:
    place = build(shape, "chunked")
    plain = fast(place, policy, [])
    for out in (listed(len(place.servers), {0: [(1e6, 2e6)]}), [None] * (len(place.servers) - 1) + listed(1, {})):
        done = fast(place, policy, out)
        for a, b in zip(plain[:5], done[:5], strict=True):
            np.testing.assert_array_equal(a, b)
        assert [r["busy"] for r in plain.reports] == [r["busy"] for r in done.reports]


def test_what_is_lost_waits_until_a_replica_is_back_and_is_computed_again() -> None:
    place = build("light", "chunked", count=1)
    r = place.requests
    start, alone = float(r.arrival[0]), fast(place, route.LeastLoaded(), [])
    took = alone.finish[0] - start
    middle = start + (alone.first[0] - start + took) / 2  # after its first token
    done = fast(place, route.LeastLoaded(), listed(1, {0: [(middle, middle + 100.0)]}))
    assert done.first[0] == alone.first[0]
    assert done.finish[0] == pytest.approx(middle + 100.0 + took, rel=1e-12)
    assert done.lost.tries.tolist() == [1] and done.lost.firsts.tolist() == [1]
    before = start + (alone.first[0] - start) * 0.999  # and before it: the first token comes later, too
    done = fast(place, route.LeastLoaded(), listed(1, {0: [(before, before + 100.0)]}))
    assert done.first[0] == pytest.approx(before + 100.0 + alone.first[0] - start, rel=1e-12)
    assert done.lost.firsts.tolist() == [1]  # the iteration under way counts as done, and its token as made
    # nobody is up when it comes
    done = fast(place, route.LeastLoaded(), listed(1, {0: [(0.0, start + 5.0)]}))
    assert done.finish[0] == pytest.approx(start + 5.0 + took, rel=1e-12) and not done.lost.tries.any()


def test_a_request_moves_to_a_replica_that_is_up() -> None:
    place = build("light", "chunked", count=1)
    place.servers = place.servers * 2
    start = float(place.requests.arrival[0])
    alone = fast(place, route.LeastLoaded(), [])
    middle = (alone.first[0] + alone.finish[0]) / 2
    done = fast(place, route.LeastLoaded(), listed(2, {0: [(middle, middle + 1000.0)]}))
    assert done.where.tolist() == [1] and done.began.tolist() == [0]
    assert done.finish[0] == pytest.approx(middle + alone.finish[0] - start, rel=1e-12)


def test_sticky_sessions_of_other_replicas_stay() -> None:
    view = route.View(load=[0] * 4, weight=[1.0] * 4)
    rest = route.View(load=[0] * 3, weight=[1.0] * 3, number=(0, 2, 3))
    stream = np.random.default_rng(0)
    for session in range(200):
        asked = route.Arrival(0, 0.0, 1, session)
        before = route.PrefixHash().choose(asked, view, stream)
        after = rest.number[route.PrefixHash().choose(asked, rest, stream)]
        assert before == after or before == 1


def test_two_outages_that_touch_are_two_failures_in_both_worlds() -> None:
    place = build("replicas", "chunked", count=60)
    out = {0: [(0.2, 0.5), (0.5, 0.9)], 1: [(0.5, 0.7)], 2: [(0.1, 0.5)]}
    ours = fast(place, route.LeastLoaded(), listed(3, out))
    assert ours.lost.tries.sum() > 0, "nothing was lost, so nothing is compared"
    alike(ours, slow(place, route.LeastLoaded(), listed(3, out)))


def test_a_request_that_can_never_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from fleetcast.base.errors import SpecError

    monkeypatch.setattr(failing, "MOST", 20)
    place = build("light", "chunked", count=1)
    with pytest.raises(SpecError, match="again for ever"):
        fast(place, route.LeastLoaded(), downs(place, 0, 1e-3, 1e-4))


# Whole scenarios ------------------------------------------------------------------------------------------------


def scenario(failures: dict[str, Any] | None = None, **more: Any) -> Setting:
    table: dict[str, Any] = {
        "seed": more.pop("seed", 0),
        "fleet": {"groups": [{"name": "g", "devices": "8x h100-sxm", **more.pop("group", {})}]},
        "workload": {
            "model": "llama-3.1-8b",
            "arrivals": {"kind": "poisson", "rate": more.pop("rate", 4.0), "requests": more.pop("requests", 2000)},
            "lengths": {"kind": "fixed", "prompt": 200, "output": 40},
        },
        "plan": {"replicas": 4, "tensor_parallel": 2, "pipeline_parallel": 1} | more,
    }  # fmt: skip
    if failures:
        table["fleet"]["groups"][0]["failures"] = failures
    return setting(load(table))


def outcome(state: Setting) -> Any:
    return simulate(state, complete(state, state.scenario.plan))


@pytest.mark.parametrize(("per", "replicas"), [("node", 4), ("device", 4), ("device", 1)])
def test_availability_is_that_of_a_renewal_process(per: str, replicas: int) -> None:
    mtbf, repair = 200.0, 20.0
    state = scenario({"mtbf": mtbf, "repair": repair, "per": per}, rate=0.02, requests=2000, replicas=replicas)
    metrics = outcome(state).metrics
    units = 1 if per == "node" else 2  # a replica of two devices; all replicas stand on one node
    expected = (mtbf / (mtbf + repair)) ** units
    # by the central limit theorem for renewal processes with fixed repairs: sd of one unit's down share over time T
    spread = repair * mtbf / (mtbf + repair) ** 1.5 / metrics["makespan"] ** 0.5
    independent = 1 if per == "node" else replicas
    assert abs(metrics["availability"] - expected) < 4 * spread * (units / independent) ** 0.5
    cycles = metrics["makespan"] / (mtbf + repair)
    assert metrics["failures"] == pytest.approx(replicas * units * cycles, rel=0.1)


def test_failures_are_those_of_the_seed_and_the_node_whatever_the_plan() -> None:
    found = [outcome(scenario({"mtbf": "2 min", "repair": "5 s"}, replicas=n, tensor_parallel=t)) for n, t in
             ((1, 1), (4, 2), (1, 8))]  # fmt: skip
    span = min(o.metrics["makespan"] for o in found)
    state = scenario({"mtbf": "2 min", "repair": "5 s"})
    node = Downtime(state.tree.groups[0].outages, (0,), 0).within(0.0, span)
    for o, n in zip(found, (1, 4, 1), strict=True):
        assert o.metrics["failures"] >= n * (len(node) - 1) > 0
    other = Downtime(state.tree.groups[0].outages, (0,), 1).within(0.0, span)
    assert other != node


def test_a_scenario_whose_outages_come_later_has_the_plain_outcome(tmp_path: Any) -> None:
    (tmp_path / "out.csv").write_text("node,start_h,end_h\n0,500,501\n")
    plain, done = outcome(scenario()), outcome(scenario({"outages": str(tmp_path / "out.csv")}))
    assert {k: done.metrics[k] for k in plain.metrics} == dict(plain.metrics)
    assert done.metrics["availability"] == 1.0 and done.metrics["failures"] == done.metrics["restarts"] == 0


def test_money_and_idle_power_follow_what_is_there(tmp_path: Any) -> None:
    (tmp_path / "out.csv").write_text("device,start_s,end_s\n0,10,60\n1,20,90\n")
    (tmp_path / "price.csv").write_text("time_s,price\n0,3.6\n30,7.2\n50,1.8\n100,3.6\n")
    group = {"price": str(tmp_path / "price.csv")}
    out = {"outages": str(tmp_path / "out.csv"), "per": "device"}
    reserved = outcome(scenario(out, group=group, rate=20.0))
    spot = outcome(scenario(out | {"billed": False}, group=group, rate=20.0))
    assert reserved.metrics["makespan"] == spot.metrics["makespan"] and 90 < spot.metrics["makespan"] < 150
    arrival = float(reserved.requests.arrival[0])
    end = arrival + reserved.metrics["makespan"]
    paid = 1e-3 * (30 - arrival) + 2e-3 * 20 + 0.5e-3 * 50 + 1e-3 * (end - 100)  # $ of one device, by hand
    assert reserved.metrics["cost"] == pytest.approx(8 * paid, rel=1e-12)
    spared = 2 * (1e-3 * 20 + 2e-3 * 20 + 0.5e-3 * 40)  # the replica of two devices is away from 10 s to 90 s
    assert spot.metrics["cost"] == pytest.approx(8 * paid - spared, rel=1e-12)
    idle = reserved.breakdown["energy"]["idle"] - spot.breakdown["energy"]["idle"]
    assert idle == pytest.approx(2 * 80 * 115.0, rel=1e-9)
    assert spot.metrics["availability"] == pytest.approx(1 - 80 / 4 / spot.metrics["makespan"], rel=1e-12)
    assert spot.breakdown["time"]["down"] == pytest.approx(80, rel=1e-12)


def test_constant_prices_cost_what_they_did() -> None:
    plain = outcome(scenario())
    metrics, cost = plain.metrics, 0.0
    for _ in range(4):
        cost += 2.95 * 2 * metrics["makespan"] / 3600.0
    assert metrics["cost"] == cost
    spot = outcome(scenario(group={"price": "spot"}))
    assert spot.metrics["cost"] == pytest.approx(metrics["cost"] * 1.25 / 2.95, rel=1e-12)
    assert any("price of g: 1.25 $/h, Nebius" in note for note in spot.notes)


def test_replicas_are_placed_on_nodes() -> None:
    def server(tp: int, pp: int = 1, count: int = 16) -> Any:
        group = SimpleNamespace(name="g", count=count, node=8)
        layout = SimpleNamespace(tensor_parallel=tp, attention_dp=1, pipeline_parallel=pp)
        return SimpleNamespace(group=group, layout=layout, drafters=None)

    assert failing.placed([server(4)] * 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
    assert failing.placed([server(3)] * 4) == [[0, 1, 2], [3, 4, 5], [8, 9, 10], [11, 12, 13]]
    assert failing.placed([server(2), server(8, 1), server(6)])[1:] == [list(range(8, 16)), list(range(2, 8))]
    assert failing.placed([server(8, 2)]) == [list(range(16))]
    assert failing.placed([server(1, count=24), server(16, count=24)])[1] == list(range(8, 24))


def test_work_done_in_vain_is_counted() -> None:
    plain = outcome(scenario(rate=20.0))
    failed = outcome(scenario({"mtbf": "1 min", "repair": "1 s"}, rate=20.0))
    assert failed.metrics["restarts"] >= failed.metrics["restarted"] > 0
    busy = [sum(v for k, v in o.breakdown["time"].items() if k not in ("idle", "down")) for o in (plain, failed)]
    assert busy[0] > 0 and failed.breakdown["energy"]["compute"] > plain.breakdown["energy"]["compute"]
    assert any("started again" in note for note in failed.notes)
    assert any(note.startswith("failures of g: each node fails 1 min after") for note in failed.notes), failed.notes


def test_parts_of_a_trace_meet_the_same_failures() -> None:
    state = scenario({"mtbf": "1 min", "repair": "5 s"}, rate=20.0)
    plan = complete(state, state.scenario.plan)
    whole, part = simulate(state, plan), simulate(replace(state, requests=state.requests.slice(0, 500)), plan)
    horizon = float(state.requests.arrival[500])
    first, again = (o.requests.arrival[:500] + o.requests.ttft[:500] for o in (whole, part))
    early = again < horizon - 1.0
    assert early.sum() > 300
    np.testing.assert_array_equal(first[early], again[early])
