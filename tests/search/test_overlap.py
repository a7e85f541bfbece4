"""The search over nano-batches: equal to brute force where that is possible, and used by the planner."""

import gzip
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleetcast.base.errors import Infeasible, SpecError, Unsupported
from fleetcast.cost.overlap.nano import Nano, layers_time, nano_of, table_of
from fleetcast.cost.overlap.operators import COMPUTE, MEMORY, NETWORK, Batch, Operator, layer_operators
from fleetcast.cost.overlap.schedule import Interference, Schedule, ScheduleError, chain, gain_spread, run
from fleetcast.cost.step import GRID, WHOLE
from fleetcast.scenario.load import load
from fleetcast.scenario.plan import replace as with_choice
from fleetcast.search.overlap import (
    MEMORY_SHARES,
    NETWORK_SHARES,
    SKEWS,
    SPLITS,
    best_schedule,
    steady_batch,
    timeline,
    tune,
    whole_time,
)
from fleetcast.search.parallelism import search
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import Setting, setting
from fleetcast.sim.serving.world import simulate
from fleetcast.view.exports import services
from fleetcast.view.outputs import write_outcome
from tests.cost.overlap.ranks import rank

SHARES = (0.1, 0.4)
FULL = Batch(2048.0, 1024.0, 1024 * 768.0, 2.0, 1024 * 256.0, 1024.0)


def op(stream: int, time: float, stage: int) -> Operator:
    demand = [0.1, 0.1, 0.1]
    demand[stream] = 0.9
    return Operator("abc"[stream] + str(stage), stream, time, (demand[0], demand[1], demand[2]), stage)


def brute_force(start: Schedule, shares: tuple[float, ...]) -> float:
    """Least time over every permutation of every stream, those that lock up included, and every share."""
    free = [i for i, o in enumerate(start.operators) if o.stream != COMPUTE]
    best = math.inf
    for order in itertools.product(*(list(itertools.permutations(queue)) for queue in start.order)):
        for chosen in itertools.product(shares, repeat=len(free)):
            share = [chosen[free.index(i)] if i in free else 1.0 for i in range(len(start.operators))]
            try:
                best = min(best, run(replace(start, order=order, share=tuple(share))).time)
            except ScheduleError:
                continue
    return best


@pytest.mark.parametrize("seed", range(12))
def test_small_instances_equal_brute_force(seed: int) -> None:
    draw = np.random.default_rng(seed)
    streams = draw.choice([COMPUTE, MEMORY, NETWORK], size=3, p=[0.5, 0.3, 0.2])
    batches = [tuple(op(int(s), float(draw.uniform(0.2, 3.0)), k) for k, s in enumerate(streams)) for _ in range(2)]
    found = best_schedule(batches, shares=SHARES)
    assert found.exact
    assert found.time == pytest.approx(brute_force(chain(batches, 1, 0, 0.1, 0.1), SHARES), rel=1e-12)
    assert found.bound <= found.time * (1 + 1e-12)


def test_local_search_is_close_to_the_exact_one_and_never_below_it() -> None:
    parts = layer_operators(rank("llama-2-70b", "a100-80g-sxm", 8), 0, [Batch(512.0, 256.0, 200_000.0)] * 2)
    exact = best_schedule(parts, shares=SHARES, limit=10**7)
    local = best_schedule(parts, limit=0, shares=SHARES)
    assert exact.exact
    assert not local.exact
    assert exact.bound <= exact.time
    assert local.time <= exact.time * 1.05


def test_improving_single_operators_does_not_lose_against_the_family() -> None:
    parts = layer_operators(rank("llama-2-70b", "a100-80g-sxm", 8), 0, [FULL.part(0.5)] * 2)
    family = min(
        run(chain(parts, 2, skew, memory, network)).time
        for skew, memory, network in itertools.product(SKEWS, MEMORY_SHARES, NETWORK_SHARES)
    )
    found = best_schedule(parts, 2, budget=60)
    assert found.bound <= found.time <= family * (1 + 1e-12)


def test_tune_finds_the_best_of_its_family() -> None:
    r = rank("llama-2-70b", "a100-80g-sxm", 8)
    best = min(
        2 * run(chain(layer_operators(r, 0, [FULL.part(s) for s in splits]), 2, skew, memory, network)).time
        for splits, skew, memory, network in itertools.product(SPLITS, SKEWS, MEMORY_SHARES, NETWORK_SHARES)
    )
    found = tune(r, FULL)
    parts = layer_operators(r, 0, [FULL.part(s) for s in found.splits])
    assert 2 * run(chain(parts, 2, found.skew, found.memory_share, found.network_share)).time == best
    assert layers_time(r, found, [FULL])[0] < whole_time(r, FULL)
    assert 1 < found.least <= 2048


def test_tune_without_gain_leaves_every_iteration_whole() -> None:
    assert tune(rank("llama-2-70b", "a100-80g-sxm", 8), FULL, gain=0.0).least > 16_384


def state(model: str = "llama-2-70b", devices: str = "8x a100-80g-sxm", requests: int = 300, **plan: Any) -> Setting:
    table: dict[str, Any] = {
        "fleet": {"devices": devices} | plan.pop("fleet", {}),
        "workload": {
            "model": model, "arrivals": {"kind": "poisson", "rate": "500 /s", "requests": requests},
            "lengths": {"kind": "fixed", "prompt": 512, "output": 512},
        },
        "plan": {"batch": {"kind": "chunked", "chunk": 2048, "max_batch": 1024}} | plan,
    }  # fmt: skip
    return setting(load(table))


TP8 = {"replicas": 1, "tensor_parallel": 8, "pipeline_parallel": 1}
TUNED = {"kind": "nano", "splits": [0.5, 0.5], "skew": 1, "memory_share": 0.4, "network_share": 0.2, "least": 1024}


def test_none_is_exactly_what_was_before() -> None:
    outcomes = []
    for overlap in ({}, {"overlap": "none"}, {"overlap": {"kind": "none"}}):
        s = state(**TP8, **overlap)
        outcomes.append(simulate(s, complete(s, s.scenario.plan), record=True))
    first = outcomes[0]
    for other in outcomes[1:]:
        assert other.plan == first.plan
        assert other.metrics == first.metrics
        assert first.record is not None
        assert other.record is not None
        assert other.record.digest() == first.record.digest()


def test_iterations_below_the_threshold_cost_bit_for_bit_the_same() -> None:
    s = state(**TP8)
    pool = complete(s, s.scenario.plan).pools[0]
    before = s.server(pool).cost
    after = s.server(with_choice(pool, overlap=TUNED)).cost
    least = 1024
    for name, table in before.tables.items():
        upto = least if name == "dense" else len(table)
        assert table[:upto].tobytes() == after.tables[name][:upto].tobytes(), name
    full = int(np.flatnonzero(GRID == 2048)[0])
    assert after.tables["dense"][full] < before.tables["dense"][full]
    assert dict(after.scalars) | {"cut": None} == dict(before.scalars) | {"cut": None}
    assert (before.scalars["cut"], after.scalars["cut"]) == (WHOLE, least)


def test_nano_batches_serve_faster_and_say_how_near_the_optimum() -> None:
    s = state(**TP8, requests=3000)
    plain = simulate(s, complete(s, s.scenario.plan))
    s = state(**TP8, overlap=TUNED, requests=3000)
    nano = simulate(s, complete(s, s.scenario.plan))
    assert 1.02 < nano.metrics["throughput"] / plain.metrics["throughput"] < 1.3
    assert nano.breakdown["time"]["overlap"] < 0
    assert "overlap" not in plain.breakdown["time"]
    (said,) = [n for n in nano.notes if "of the optimum" in n]
    assert 0.2 < float(said.split("%")[0]) / 100 < 1.0
    assert not [n for n in plain.notes if "of the optimum" in n]


def test_event_jumping_stays_exact() -> None:
    s = state(**TP8, overlap=TUNED, requests=200)
    plan = complete(s, s.scenario.plan)
    fast, slow = simulate(s, plan), simulate(s, plan, by_step=True)
    assert fast.requests is not None
    assert slow.requests is not None
    np.testing.assert_allclose(fast.requests.e2e, slow.requests.e2e, rtol=1e-9)


def test_the_planner_weighs_both_and_its_pruned_result_is_the_exhaustive_one() -> None:
    s = state(tensor_parallel=[4, 8], pipeline_parallel=1, overlap=["none", "nano"])
    ranking = search(s)
    assert ranking.best is not None
    kinds = {o.plan.get("overlap", {}).get("kind", "none") for o in ranking.plans}
    assert kinds == {"none", "nano"}
    for outcome in ranking.plans:  # every plan is complete: nothing is left to a later default
        nano = nano_of(outcome.plan.get("overlap"))
        assert outcome.plan.get("overlap") == (None if nano is None else table_of(nano))
    every = search(s, exhaustive=True)
    assert every.best is not None
    assert every.best.plan == ranking.best.plan
    assert every.best.metrics == ranking.best.metrics


def test_a_plan_that_was_found_can_be_simulated_from_its_table() -> None:
    s = state(**TP8, overlap="nano")
    best = search(s).best
    assert best is not None
    again = state(**best.plan)
    assert simulate(again, complete(again, again.scenario.plan)).metrics == best.metrics


def test_what_is_not_modelled_is_rejected_with_its_reason() -> None:
    s = state(model="deepseek-v3", devices="8x h200-sxm", replicas=1, tensor_parallel=1, pipeline_parallel=1,
              attention_dp=8, overlap="nano", dtype="fp8")  # fmt: skip
    with pytest.raises(Infeasible, match="attention-DP ranks under nano-batches"):
        complete(s, s.scenario.plan)
    s = state(**TP8, overlap="nano", fleet={"power_limit": "300 W"})
    with pytest.raises(Infeasible, match="power of a device with nano-batches"):
        complete(s, s.scenario.plan)
    s = state(**TP8, overlap=["none", "nano"])
    with pytest.raises(SpecError, match="list of values to search"):
        complete(s, s.scenario.plan)


def test_engines_that_cannot_run_it_are_not_written_for() -> None:
    s = state(**TP8, overlap=TUNED)
    with pytest.raises(Unsupported, match="nano-batches"):
        services(s, complete(s, s.scenario.plan))


def test_steady_batch_holds_the_traffics_mix_within_the_cache() -> None:
    s = state()
    mix = steady_batch(s, 2048.0, 1e9)
    assert (mix.tokens, mix.decodes, mix.context) == pytest.approx((2048.0, 1024.0, 1024 * 768.0))
    tight = steady_batch(s, 2048.0, 100 * 768.0)
    assert (tight.decodes, tight.tokens) == pytest.approx((100.0, 200.0))


def test_timeline_is_checked_and_complete() -> None:
    r = rank("llama-2-70b", "a100-80g-sxm", 8)
    log = timeline(r, Nano(), FULL, layers=2)
    assert len(log) == 2 * 2 * 8
    assert log.resources == ("compute", "memory", "network")


def test_simulate_leaves_the_timeline_of_a_cut_iteration(tmp_path: Path) -> None:
    s = state(**TP8, overlap=TUNED, requests=50)
    outcome = simulate(s, complete(s, s.scenario.plan))
    (path,) = [p for p in write_outcome(tmp_path, s.scenario, outcome) if p.name == "layers.json.gz"]
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    assert len([e for e in events if e["ph"] == "X"]) == 4 * 2 * 8
    assert {e["args"]["name"] for e in events if e["name"] == "thread_name"} == {"compute", "memory", "network"}
    plain = state(**TP8, requests=50)
    written = write_outcome(tmp_path, plain.scenario, simulate(plain, complete(plain, plain.scenario.plan)))
    assert not [p for p in written if p.name.startswith("layers")]


def test_the_spread_of_the_gain_is_that_of_the_profiled_pairs() -> None:
    pairs = [(0.1, 0.2), (0.1, 0.3), (0.4, 0.233), (0.05, 0.1), (0.05, 0.1)]  # P - R at 0.1, 0.2, 0.4, 0.8, 0.9
    relative = [abs(a - b) / math.sqrt(2) / ((a + b) / 2) for a, b in pairs]
    assert gain_spread() == pytest.approx(math.sqrt(sum(r * r for r in relative) / 5), rel=1e-9)
    assert 0.4 < gain_spread() < 0.6
    assert gain_spread(Interference((0.0, 0.5, 1.0), (0.0, 0.7, 1.0), (0.0, 0.7, 1.0))) == 0.0


def test_intervals_widen_with_the_gain_that_is_believed() -> None:
    def width(overlap: Any, path: str) -> float:
        s = state(**TP8, overlap=overlap)
        low, high = simulate(s, complete(s, s.scenario.plan)).intervals[path]
        return math.log(high / low)

    for path in ("ttft.mean", "tpot.mean", "throughput"):
        found = [width({"kind": "nano", "gain": g}, path) for g in (0.0, 0.5, 1.0)]
        assert width("none", path) <= found[0] * (1 + 0.02) and found[0] < found[1] < found[2]
    s = state(**TP8, overlap="nano")
    outcome = simulate(s, complete(s, s.scenario.plan))
    assert any(note.startswith("intervals: what sharing a device gains differs by 51%") for note in outcome.notes)
