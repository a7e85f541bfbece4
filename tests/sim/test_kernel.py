"""The compiled loop: equal to one iteration at a time, and to the plain reference world that asks the policies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.cost.drafted import with_drafts
from fleetcast.policy import batch, evict, memory, route, speculate
from fleetcast.policy.order import requests as order
from fleetcast.scenario.drafts import Drafting
from fleetcast.scenario.workload.requests import requests
from fleetcast.sim.serving import reference, stepwise
from fleetcast.sim.serving.drafting import Speculation, process_of
from fleetcast.sim.serving.lanes import Request
from fleetcast.sim.serving.prefixes import Caching, Tier
from fleetcast.sim.serving.world import _run_kernel
from tests.sim.worlds import World, policies, step_cost, world

SHAPES: dict[str, dict[str, Any]] = {
    "light": {"rate": 3.0},
    "heavy": {"rate": 60.0, "cost": {"capacity": 700}},
    "windows": {
        "rate": 20.0,
        "cost": {"window": 300, "window_share": 0.5, "full_share": 0.5, "capacity": 900},
    },
    "only windows": {
        "rate": 9.0,
        "cost": {"window": 64, "window_share": 1.0, "full_share": 0.0, "capacity": 900},
    },
    "swap": {"rate": 60.0, "cost": {"capacity": 500}, "eviction": memory.Swap()},
    "swap in a pipeline": {
        "rate": 60.0,
        "cost": {"ranks": 2, "stages": 2, "stage_share": 0.5, "capacity": 150},
        "eviction": memory.Swap(),
    },
    "shortest": {"rate": 60.0, "cost": {"capacity": 700}, "ranking": order.ShortestPrompt()},
    "pipeline": {"rate": 30.0, "cost": {"stages": 4, "stage_share": 0.25, "capacity": 400}},
    "attention-DP": {"rate": 30.0, "cost": {"ranks": 3, "experts": 2e-3, "capacity": 400}},
    "both": {
        "rate": 30.0,
        "cost": {"ranks": 2, "stages": 2, "stage_share": 0.5, "experts": 1e-3, "capacity": 400},
    },
    "overlap": {"rate": 10.0, "cost": {"overlap": True, "host_step": 0.0125, "capacity": 700}},
    "nano-batches": {"rate": 40.0, "cost": {"cut": 24, "capacity": 700}},
    "nano-batches in a pipeline": {"rate": 40.0, "cost": {"cut": 9, "stages": 2, "stage_share": 0.5, "capacity": 400}},
    "roof": {"rate": 10.0, "cost": {"floor": 5e-4, "capacity": 2000}},
    "watermark": {"rate": 40.0, "cost": {"watermark": 50, "capacity": 600}},
    "replicas": {"rate": 90.0, "cost": {"capacity": 500}, "replicas": 3},
    "lagging": {"rate": 10.0, "cost": {"overlap": True, "lag": True, "capacity": 700}},
    "closed lagging": {"rate": 1.0, "cost": {"lag": True, "capacity": 700, "api": 0.004, "ranks": 2}, "users": 20},
    "split": {"rate": 20.0, "cost": {"capacity": 900}, "roles": ("prefill", "decode", "decode")},
    "split lagging": {"rate": 20.0, "cost": {"lag": True, "capacity": 900}, "roles": ("prefill", "decode", "all")},
    "split tight": {"rate": 60.0, "cost": {"capacity": 300}, "roles": ("prefill", "prefill", "decode"), "spill": 2000},
    "split closed": {
        "rate": 1.0,
        "cost": {"capacity": 700},
        "users": 20,
        "roles": ("prefill", "decode"),
        "layerwise": False,
    },
    "split swapping": {
        "rate": 60.0,
        "cost": {"capacity": 300},
        "roles": ("prefill", "decode"),
        "eviction": memory.Swap(),
    },
    "split ranks": {"rate": 60.0, "cost": {"ranks": 2, "capacity": 300}, "roles": ("prefill", "decode", "decode")},
    "closed": {"rate": 1.0, "cost": {"capacity": 700}, "users": 20, "replicas": 2},
    "drafts": {"rate": 20.0, "cost": {"capacity": 2000}, "drafts": 4},
    "drafts tight": {"rate": 60.0, "cost": {"capacity": 500}, "drafts": 3},
    "drafts swapping": {"rate": 60.0, "cost": {"capacity": 500}, "drafts": 3, "eviction": memory.Swap()},
    "drafts, windows": {
        "rate": 20.0, "drafts": 4,
        "cost": {"window": 300, "window_share": 0.5, "full_share": 0.5, "capacity": 900},
    },
    "drafts, only windows": {
        "rate": 9.0, "drafts": 2, "cost": {"window": 64, "window_share": 1.0, "full_share": 0.0, "capacity": 900},
    },
    "drafts over ranks": {"rate": 30.0, "cost": {"ranks": 3, "experts": 2e-3, "capacity": 400}, "drafts": 4},
    "drafts overlapped": {
        "rate": 10.0, "cost": {"overlap": True, "lag": True, "host_step": 0.0125, "capacity": 900}, "drafts": 2,
    },
    "drafts closed": {"rate": 1.0, "cost": {"capacity": 700}, "users": 20, "replicas": 2, "drafts": 4},
    "drafts, split": {"rate": 20.0, "cost": {"capacity": 900}, "roles": ("prefill", "decode", "decode"), "drafts": 4},
    "drafts adaptive": {"rate": 20.0, "cost": {"capacity": 700}, "drafts": speculate.Minions(start=1)},
    "prefixes": {"rate": 30.0, "cost": {"capacity": 6000}, "caching": Caching(evict.Lru(), ())},
    "prefixes tight": {"rate": 30.0, "cost": {"capacity": 500}, "caching": Caching(evict.Lru(), ())},
    "prefixes by use": {"rate": 20.0, "cost": {"capacity": 700}, "caching": Caching(evict.Lfu(), ())},
    "prefixes known ahead": {"rate": 20.0, "cost": {"capacity": 700}, "caching": Caching(evict.Belady(), ())},
    "prefixes in tiers": {
        "rate": 20.0, "cost": {"capacity": 500},
        "caching": Caching(evict.Lru(), (Tier(300, 1e-4), Tier(800, 1e-3))),
    },
    "prefixes on disk": {
        "rate": 20.0, "cost": {"capacity": 500}, "caching": Caching(evict.Fifo(), (Tier(0, 1e-4), Tier(800, 1e-3))),
    },
    "prefixes of ranks": {
        "rate": 40.0, "cost": {"ranks": 2, "stages": 2, "stage_share": 0.5, "capacity": 200},
        "caching": Caching(evict.Lru(), (Tier(100, 1e-4),)),
    },
    "prefixes lagging": {
        "rate": 20.0, "cost": {"overlap": True, "lag": True, "host_step": 0.0125, "capacity": 700},
        "caching": Caching(evict.Lru(), ()), "replicas": 2,
    },
    "prefixes closed": {
        "rate": 1.0, "cost": {"capacity": 700}, "users": 20, "replicas": 2, "caching": Caching(evict.Lru(), ()),
    },
    "prefixes, split": {
        "rate": 20.0, "cost": {"capacity": 900}, "roles": ("prefill", "decode", "all"),
        "caching": Caching(evict.Lru(), ()),
    },
    "prefixes of drafts": {
        "rate": 20.0, "cost": {"capacity": 700}, "drafts": 3, "caching": Caching(evict.Lru(), (Tier(300, 1e-4),)),
    },
    "prefixes, windows": {
        "rate": 20.0, "cost": {"window": 300, "window_share": 0.5, "full_share": 0.5, "capacity": 900},
        "caching": Caching(evict.Lru(), ()),
    },
    "prefixes, shortest": {
        "rate": 30.0, "cost": {"capacity": 500}, "ranking": order.ShortestPrompt(), "caching": Caching(evict.Lru(), ()),
    },
}  # fmt: skip


def routing(place: World) -> Any:
    """The route that goes with a world's roles."""
    split = any(s.pool.role != "all" for s in place.servers)
    return route.SplitPhases(spill=place.spill, layerwise=place.layerwise) if split else route.LeastLoaded()


def run(place: World, policy: Any = None, *, by_step: bool) -> Any:
    return _run_kernel(place, place.servers, policy or routing(place), record=True, by_step=by_step)


def drafted(cost: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The cost of checking drafts and the options that name who drafts, where a shape has drafts."""
    policy = options.pop("drafts", None)
    if policy is None:
        return cost, options
    policy = speculate.Fixed(length=policy) if isinstance(policy, int) else policy
    process = process_of(policy, 0.7, Drafting())
    drafter = step_cost()
    return with_drafts(cost, process, drafter), options | {"speculation": Speculation(policy, Drafting(), process, 7)}


def build(shape: str, kind: str, seed: int = 0, count: int = 160) -> World:
    options = dict(SHAPES[shape])
    cost = step_cost(**options.pop("cost", {}))
    cost, options = drafted(cost, options)
    spill, layerwise = options.pop("spill", 0.0), options.pop("layerwise", True)
    found = world(seed, count, options.pop("rate"), policies()[kind], cost=cost, **options)
    found.spill, found.layerwise = spill, layerwise
    return found


@pytest.mark.parametrize("kind", list(policies()))
@pytest.mark.parametrize("shape", list(SHAPES))
def test_event_to_event_equals_one_iteration_at_a_time(shape: str, kind: str) -> None:
    fast, slow = (run(build(shape, kind), by_step=s) for s in (False, True))
    for a, b in zip(fast[:3], slow[:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    np.testing.assert_array_equal(fast[3], slow[3])
    for a, b in zip(fast.reports, slow.reports, strict=True):
        for name in (
            "iterations",
            "completed",
            "preemptions",
            "peak_running",
            "limited",
            "truncated",
        ):
            assert a[name] == b[name], name
        np.testing.assert_allclose(a["hist"], b["hist"], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(a["sums"], b["sums"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", list(policies()))
@pytest.mark.parametrize("shape", list(SHAPES))
def test_the_loop_equals_the_reference_world(shape: str, kind: str) -> None:
    place = build(shape, kind)
    fast = run(place, by_step=False)
    slow = reference.run(place, place.servers, routing(place), record=True, by_step=True)
    np.testing.assert_array_equal(fast[3], slow[3])
    for a, b in zip(fast[:3], slow[:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    for a, b in zip(fast.reports, slow.reports, strict=True):
        for name in ("iterations", "completed", "preemptions"):
            assert a[name] == b[name], name
        assert a["busy"] == pytest.approx(b["busy"], rel=1e-9)


@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("shape", ["windows", "only windows", "drafts, windows"])
def test_a_request_evicted_and_back_turns_its_window_once(shape: str, seed: int) -> None:
    place = build(shape, "prefill_first", seed, count=80)
    fast = run(place, by_step=False)
    slow = reference.run(place, place.servers, routing(place), record=True, by_step=True)
    assert sum(r["preemptions"] for r in fast.reports) > 0
    np.testing.assert_allclose(fast[2], slow[2], rtol=1e-9)


def test_a_request_that_waited_for_a_place_says_that_the_batch_was_limited() -> None:
    found = requests([0.0, 0.05], [50, 50], [40, 40])
    place = world(0, 2, 1.0, batch.Chunked(chunk=256, max_batch=1), cost=step_cost())
    place.requests = found
    assert run(place, by_step=False).reports[0]["limited"], (
        "nobody looked while it waited: the segment ended in a finish"
    )
    place = world(0, 2, 1.0, batch.Chunked(chunk=256, max_batch=2), cost=step_cost())
    place.requests = found
    assert not run(place, by_step=False).reports[0]["limited"]


def test_pipeline_lanes_of_a_rank_swap_over_one_host_link_and_ranks_over_their_own() -> None:
    place = build("swap in a pipeline", "chunked")
    replica = stepwise.Replica(place.servers[0])
    for i, lane in enumerate(replica.lanes):
        lane.running, lane.decodes = [Request(i, 0.0, 50, 9, emitted=1)], True
    quiet = replica._duration()
    for lane, seconds in zip(replica.lanes, (0.1, 0.2, 0.3, 0.05), strict=True):
        lane.extra = seconds  # lane 0 of ranks 0 and 1, then lane 1 of ranks 0 and 1
    assert replica._duration() - quiet == pytest.approx(0.1 + 0.3)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 60),
    rate=st.floats(0.5, 200.0),
    shape=st.sampled_from(list(SHAPES)),
    kind=st.sampled_from(list(policies())),
    capacity=st.integers(120, 1500),
    block=st.sampled_from([1, 16, 32]),
)
def test_random_worlds_agree(
    seed: int, count: int, rate: float, shape: str, kind: str, capacity: int, block: int
) -> None:
    options = dict(SHAPES[shape]) | {"rate": rate}
    options["cost"] = dict(options.get("cost", {})) | {
        "capacity": capacity * 16 // block,
        "block": block,
    }
    cost = step_cost(**options.pop("cost"))
    cost, options = drafted(cost, options)
    spill, layerwise = options.pop("spill", 0.0), options.pop("layerwise", True)
    place = world(seed, count, options.pop("rate"), policies()[kind], cost=cost, **options)
    place.spill, place.layerwise = spill, layerwise
    fast = run(place, by_step=False)
    slow = reference.run(place, place.servers, routing(place), record=True, by_step=True)
    for a, b in zip(fast[:3], slow[:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    assert [r["iterations"] for r in fast.reports] == [r["iterations"] for r in slow.reports]


@pytest.mark.parametrize("shape", ["heavy", "pipeline", "windows"])
def test_recording_changes_nothing_and_the_log_covers_the_busy_time(shape: str) -> None:
    place = build(shape, "chunked")
    with_log = run(place, by_step=False)
    without = _run_kernel(place, place.servers, routing(place), record=False, by_step=False)
    np.testing.assert_array_equal(with_log[2], without[2])
    for report in with_log.reports:
        assert sum(row[1] for row in report["log"]) == pytest.approx(report["busy"])
        ends = [row[0] + row[1] for row in report["log"]]
        assert all(b >= a - 1e-9 for a, b in zip(ends, [r[0] for r in report["log"]][1:], strict=False))


@pytest.mark.parametrize("kind", ["chunked", "prefill_first"])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_the_cache_never_overflows(shape: str, kind: str) -> None:
    place = build(shape, kind)
    lanes = place.servers[0].cost.scalars
    for report in run(place, by_step=True).reports:
        most = lanes["capacity"] * lanes["stages"] * lanes["ranks"]
        assert all(0 <= row[5] <= most for row in report["log"])
        assert max(row[5] for row in report["log"]) > 0
