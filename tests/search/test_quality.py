"""Measured quality in the search: an axis of the frontier and a limit, equal to simulating every plan."""

import json

import pytest

from fleetcast.base.errors import SpecError
from fleetcast.scenario.load import dump, load
from fleetcast.search.capacity import max_rate
from fleetcast.search.parallelism import search
from fleetcast.search.ranking import values
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.quality import right_answers
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import simulate

SCORES = [
    {"dtype": "bf16", "quality": 0.66, "items": 798, "interval": [0.63, 0.69]}, {"dtype": "fp8", "quality": 0.65},
    {"dtype": "int4", "quality": 0.6},
]  # fmt: skip
CHUNKED = {"kind": "chunked", "chunk": [256, 2048], "max_batch": [8, 64]}


def scenario(*, quality=SCORES, slo=None, objective=None, plan=None, devices="2x h100-sxm", folder=None, **workload):
    table = {
        "fleet": {"devices": devices},
        "workload": {
            "model": "llama-3.1-8b", "arrivals": {"kind": "poisson", "rate": "6 /s", "requests": 150},
            "lengths": {"kind": "lognormal", "prompt": 400, "output": 60, "prompt_p90": 800, "output_p90": 120},
        } | ({"quality": quality} if quality is not None else {}) | workload,
        "slo": slo or {}, "objective": objective or {},
        "plan": {"dtype": ["bf16", "fp8", "int4"], "batch": CHUNKED} if plan is None else plan,
    }  # fmt: skip
    return load(table)


def keys(outcomes, axes):
    return [(json.dumps(o.plan, sort_keys=True, default=str), values(o, axes)) for o in outcomes]


GOALS = {
    "cost and quality": {"minimize": "cost", "maximize": "quality"},
    "energy, quality and latency": {"minimize": ["energy", "latency"], "maximize": "quality"},
    "quality alone": {"maximize": "quality"},
    "cost alone": {"minimize": "cost"},
}


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("limit", [None, 0.62, 0.655])
def test_pruned_is_exhaustive(goal, limit):
    slo = {"ttft_p99": "400 ms"} | ({} if limit is None else {"quality": limit})
    state = setting(scenario(slo=slo, objective=GOALS[goal]))
    some, every = search(state), search(state, exhaustive=True)
    assert every.plans
    assert [values(o, some.axes) for o in some.frontier] == [values(o, every.axes) for o in every.frontier]
    assert values(some.best, some.goals) == values(every.best, every.goals)
    shown = keys(every.plans, every.goals)
    assert [row[1] for row in keys(some.plans, some.goals)] == [row[1] for row in shown]
    assert some.counts["simulated"] <= every.counts["simulated"]
    if limit is not None:
        assert {o.metrics["quality"] >= limit for o in (*some.plans, *some.frontier)} == {True}


def test_the_frontier_trades_cost_for_quality():
    found = search(setting(scenario(objective=GOALS["cost and quality"])))
    points = {(o.plan["dtype"], o.metrics["quality"]) for o in found.frontier}
    assert points == {("int4", 0.6), ("fp8", 0.65), ("bf16", 0.66)}
    costs = {o.metrics["quality"]: o.metrics["cost"] for o in found.frontier}
    assert costs[0.6] < costs[0.65] < costs[0.66]


def test_a_limit_that_nothing_meets_shows_the_nearest():
    found = search(setting(scenario(slo={"quality": 0.9})))
    assert found.best is None
    assert found.misses[0].metrics["quality"] == 0.66
    assert {row["metric"] for row in found.missed} == {"error"}
    perfect = search(setting(scenario(slo={"quality": 1.0})))
    assert perfect.best is None


def test_without_scores_nothing_changes():
    plain, measured = (search(setting(scenario(quality=q))) for q in (None, SCORES))
    assert [o.plan for o in plain.plans] == [o.plan for o in measured.plans]
    assert "quality" not in plain.best.metrics
    assert {k: v for k, v in measured.best.metrics.items() if k not in ("quality", "error")} == dict(plain.best.metrics)


def outcome(**changes):
    fixed = {"replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1}
    state = setting(scenario(plan=fixed | changes.pop("plan", {}), **changes))
    return simulate(state, complete(state, state.scenario.plan))


def test_an_outcome_says_its_quality_and_where_it_is_from():
    found = outcome(slo={"quality": 0.66})
    assert (found.metrics["quality"], found.metrics["error"]) == (0.66, 1 - 0.66)
    assert found.slo["met"]
    assert "llama-3.1-8b in bf16: 66.0% right of 798 questions (63.0% to 69.0%, 95 %)" in found.notes
    assert not outcome(slo={"quality": 0.661}).slo["met"]


def test_goodput_holds_no_request_to_the_plans_quality():
    assert outcome(slo={"quality": 0.5}).metrics["goodput"] == outcome(quality=None).metrics["goodput"]


def test_an_unknown_dtype_is_a_note_where_nothing_asks_for_it():
    found = outcome(quality=[{"dtype": "fp8", "quality": 0.6}])
    assert "quality" not in found.metrics
    assert "llama-3.1-8b in bf16: quality was not measured" in found.notes


@pytest.mark.parametrize("asked", [{"slo": {"quality": 0.5}}, {"objective": {"maximize": "quality"}}])
def test_an_unknown_dtype_is_refused_where_something_does(asked):
    with pytest.raises(SpecError, match=r"no score of a plan that is asked about .*bf16.*known: llama-3.1-8b in fp8"):
        outcome(quality=[{"dtype": "fp8", "quality": 0.6}], **asked)
    with pytest.raises(SpecError, match="needs to know how good answers are"):
        outcome(quality=None, **asked)


def test_pools_of_two_models_are_as_good_as_who_answers():
    pools = [
        {"model": model, "replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1}
        for model in ("llama-3.1-8b", "llama-3.2-1b")
    ]
    scores = [{"quality": 0.66}, {"model": "llama-3.2-1b", "quality": 0.4}]
    state = setting(scenario(quality=scores, plan={"pools": pools}))
    found = simulate(state, complete(state, state.scenario.plan))
    share = found.resources[0]["requests"] / 150
    assert 0 < share < 1
    assert found.metrics["quality"] == pytest.approx(share * 0.66 + (1 - share) * 0.4)


def test_a_request_of_two_replicas_is_as_good_as_the_worse():
    import numpy as np

    from fleetcast.scenario.workload.quality import Score

    good, bad = Score(quality=0.8), Score(quality=0.5)
    began, where = np.array([0, 0, 1], np.int32), np.array([0, 1, 1], np.int32)
    assert right_answers([good, bad], began, where) == pytest.approx((0.8 + 0.5 + 0.5) / 3)
    assert right_answers([good, None], began, where) is None
    assert right_answers([], began, where) is None


def test_capacity_is_held_to_quality():
    fixed = {"replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1, "dtype": ["bf16", "int4"]}
    slo = {"ttft_p99": "300 ms"}
    free = max_rate(scenario(slo=slo, plan=fixed))
    held = max_rate(scenario(slo=slo | {"quality": 0.65}, plan=fixed))
    assert free.outcome.metrics["quality"] == 0.6
    assert held.outcome.metrics["quality"] == 0.66
    assert held.rate <= free.rate


def written(tmp_path, table, name="quality.json"):
    (tmp_path / name).write_text(json.dumps(table))
    return name


def from_file(tmp_path, given):
    path = tmp_path / "scenario.toml"
    path.write_text(dump(scenario(quality=given, plan={"replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1})))
    return setting(load(path))


def test_files_are_those_that_measure_quality_writes(tmp_path):
    rows = [{"model": "llama-3.1-8b", "dtype": "bf16", "quality": 0.7, "interval": [0.6, 0.8], "items": 10}]
    name = written(tmp_path, {"accuracy": 0.7, "scores": rows})
    state = from_file(tmp_path, name)
    assert [(s.model, s.dtype, s.quality) for s in state.scores] == [("llama-3.1-8b", "bf16", 0.7)]
    both = from_file(tmp_path, [name, {"dtype": "fp8", "quality": 0.69}])
    assert len(both.scores) == 2


WRONG = {
    "is not a file .got 'none.json'": "none.json",
    "names a file without scores": "empty.json",
    "has two scores of llama-3.1-8b in fp8": [{"dtype": "fp8", "quality": 0.1}, {"dtype": "fp8", "quality": 0.2}],
    r"workload.quality: scores\[0\].quality": "wild.json",
}


@pytest.mark.parametrize("problem", WRONG)
def test_what_is_no_measured_quality_is_named(tmp_path, problem):
    written(tmp_path, {"scores": []}, "empty.json")
    written(tmp_path, {"scores": [{"quality": 2.0}]}, "wild.json")
    with pytest.raises(SpecError, match=problem):
        from_file(tmp_path, WRONG[problem])


def test_exits_have_their_own():
    with pytest.raises(SpecError, match="stands beside exits"):
        setting(scenario(model="qwen2.5-7b", exits=[{"layers": 11, "quality": 0.3}, {"layers": 28, "quality": 0.7}]))
