"""Shards and islands, searched: against plain loops over simulations, and what is refused."""

import itertools

import msgspec
import numpy as np
import pytest

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.scenario.load import load_training
from fleetcast.scenario.training_plan import Shards
from fleetcast.search.training.planner import search
from fleetcast.search.training.space import Question, space
from fleetcast.sim.training.completing import decided
from fleetcast.sim.training.levels import candidates
from fleetcast.sim.training.setting import setting
from fleetcast.sim.training.world import simulate

MODEL = {"layers": 8, "hidden": 2048, "heads": 16, "gated": True, "tied": False, "vocab": 32000}
LARGE = {**MODEL, "layers": 40, "hidden": 8192, "heads": 64}


def state(plan, model=MODEL, devices="32x a100-80g-sxm", batch=64, goal="time", **fleet):
    fleet = fleet or {"devices": devices}
    return setting(
        load_training({
            "fleet": fleet, "plan": plan, "objective": {"minimize": goal},
            "workload": {"kind": "training", "model": model, "sequence": 1024, "batch": batch},
        })
    )  # fmt: skip


def plans_of(s, plan):
    """Every plan of the space of one decided number of islands, without what shards do not go with."""
    batch = s.workload.batch // (plan.islands or 1)
    devices = s.group.count // (plan.islands or 1)
    every = space(Question(s.network, s.workload.sequence, batch, devices, plan))
    rows = every.plans(np.arange(len(every)))
    for i in range(len(every)):
        yield decided(rows, i, "bf16", plan)


def key(plan):
    names = ("tensor", "pipeline", "data", "context", "expert")
    return (*(plan[f"{name}_parallel"] for name in names), plan.get("islands") or 1)


def best_of(outcomes, metric):
    best, fitting = {}, 0
    for outcome in outcomes:
        if outcome.metrics["fits"]:
            fitting += 1
            at = key(outcome.plan)
            best[at] = min(best.get(at, np.inf), outcome.metrics[metric])
    return best, fitting


def told(ranking, metric):
    found = {}
    for outcome in ranking.plans:
        at = key(outcome.plan)
        found[at] = min(found.get(at, np.inf), outcome.metrics[metric])
    return found


@pytest.mark.parametrize(("shards", "model", "goal", "metric"), [
    ("auto", MODEL, "time", "iteration_time"), ("auto", LARGE, "time", "iteration_time"),
    ("auto", MODEL, "energy", "energy"),
    ({"weights": [1, 8], "gradients": [2, 8], "second": 8, "weight_format": "int8"}, MODEL, "time", "iteration_time"),
    ({"weights": [4, 16], "gradients": [8, 32], "optimizer": [16, 32]}, LARGE, "time", "iteration_time"),
])  # fmt: skip
def test_shards_are_searched_as_loops_would(shards, model, goal, metric):
    plan = {
        "shards": shards, "micro_batch": [1, 2], "sequence_parallel": False, "context_parallel": [1, 2],
        "recompute": ["none", "full"],
    }  # fmt: skip
    s = state(plan, model, goal=goal)
    ranking = search(s, top=None)
    outcomes = []
    asked = s.scenario.plan
    for one in plans_of(s, asked):
        if one.tensor_parallel * one.pipeline_parallel > 1 or one.zero or one.offload:
            continue
        copies = one.data_parallel * one.context_parallel
        listed = candidates(copies, 8) if shards == "auto" else [
            Shards(w, g, o, shards.get("second", 0), shards.get("weight_format", "bf16"))
            for w, g, o in itertools.product(shards["weights"], shards["gradients"], shards.get("optimizer", [None]))
            if g % w == 0 and (o is None or o % g == 0)
        ]  # fmt: skip
        outcomes += [simulate(s, msgspec.structs.replace(one, shards=way)) for way in listed]
    best, fitting = best_of(outcomes, metric)
    assert ranking.counts["enumerated"] == len(outcomes) and ranking.counts["memory_feasible"] == fitting
    assert told(ranking, metric) == pytest.approx(best, rel=1e-12)


HALVES = {
    "network": "ethernet-25g",
    "groups": [
        {"name": "a", "devices": "16x a100-80g-sxm"},
        {"name": "b", "devices": "16x h100-sxm"},
    ],
}  # fmt: skip


@pytest.mark.parametrize(("islands", "goal", "metric", "fleet"), [
    ([1, 2, 4], "time", "iteration_time", {}), ([2, 3, 8], "energy", "energy", {}),
    ([2], "time", "iteration_time", HALVES), ([2], "energy", "energy", HALVES), ([2], "cost", "cost", HALVES),
])  # fmt: skip
def test_islands_are_searched_as_loops_would(islands, goal, metric, fleet):
    plan = {
        "islands": islands, "micro_batch": 1, "sequence_parallel": False, "recompute": "none", "offload": [],
        "zero": [0, 1], "schedule": "1f1b", "interleave": 1,
    }  # fmt: skip
    s = state(plan, goal=goal, **fleet)
    ranking = search(s, top=None)
    outcomes = []
    for count in islands:
        if s.group.count % count == 0 and s.workload.batch % count == 0:
            asked = msgspec.structs.replace(s.scenario.plan, islands=count)
            outcomes += [simulate(s, one) for one in plans_of(s, asked)]
    best, fitting = best_of(outcomes, metric)
    assert ranking.counts["enumerated"] == len(outcomes) and ranking.counts["memory_feasible"] == fitting
    assert told(ranking, metric) == pytest.approx(best, rel=1e-12)
    values = [o.metrics[metric] for o in ranking.plans]
    assert values == sorted(values)


def test_shards_on_islands_are_searched():
    s = state({"islands": [2, 4], "shards": "auto", "micro_batch": 1, "recompute": "none"})
    ranking = search(s, top=None)
    best = ranking.best.plan
    assert best["islands"] in (2, 4) and set(best["shards"]) >= {"weights", "gradients"}
    assert simulate(s, ranking.plan).metrics["iteration_time"] == ranking.best.metrics["iteration_time"]


def test_where_nothing_fits_the_nearest_way_is_shown():
    huge = {**LARGE, "layers": 200, "hidden": 16384, "heads": 128}
    ranking = search(state({"shards": "auto"}, huge))
    assert ranking.best is None and not ranking.misses[0].metrics["fits"]
    assert isinstance(ranking.misses[0].plan["shards"], dict)


@pytest.mark.parametrize(("plan", "said"), [
    ({"shards": "auto", "tensor_parallel": 2}, "plan.shards: shares out a whole model, and tensor_parallel cuts it"),
    ({"shards": {"weights": [3], "gradients": [6]}}, "lists no way that the copies"),
    ({"shards": {"weights": [4], "gradients": [6]}}, "no multiple of the level below"),
    ({"shards": "auto", "data_parallel": 32, "context_parallel": 1, "pipeline_parallel": [1]}, ""),
    ({"islands": [3, 5]}, "plan.islands: does not divide the 32 devices"),
])  # fmt: skip
def test_what_no_search_finds_is_refused(plan, said):
    if not said:
        assert search(state(plan)).best is not None
        return
    with pytest.raises(SpecError, match=said):
        search(state(plan))


def test_lists_are_not_simulated():
    with pytest.raises(SpecError, match=r"plan.shards: lists several ways.*fleetcast plan"):
        simulate(state({"shards": {"weights": [1, 2], "gradients": 8}}))
    with pytest.raises(SpecError, match=r"plan.islands: lists several values"):
        simulate(state({"islands": [1, 2]}))
    with pytest.raises(Unsupported, match="islands that differ"):
        search(state({"islands": 2, "shards": "auto"}, **HALVES))
