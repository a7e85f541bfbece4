"""Plans of streams: every set of upgrades and every place of a filter is tried, and the ranking is that of trying."""

from itertools import combinations
from typing import Any

import pytest

import fleetcast
from fleetcast.base.errors import SpecError
from fleetcast.scenario.kinds.stream import StreamScenario
from fleetcast.scenario.load import load, load_stream
from fleetcast.search.ranking import made
from fleetcast.search.streams import improvements, search
from fleetcast.sim.stream.world import places, setting, simulate
from fleetcast.view.verbs import example


def trigger() -> StreamScenario:
    found = load(example("trigger"))
    assert isinstance(found, StreamScenario)
    return found


def cameras(**plan: Any) -> StreamScenario:
    table = load(example("cameras")).table()
    table["workload"]["samples"] = 3000
    table["plan"] = plan
    found = load(table)
    assert isinstance(found, StreamScenario)
    return found


def test_every_set_of_upgrades_is_tried() -> None:
    scenario = trigger()
    names = [upgrade.name for upgrade in scenario.plan.upgrades]
    seen: list[tuple[int, int]] = []
    ranking = search(scenario, top=None, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (8, 8)
    assert ranking.counts["enumerated"] == ranking.counts["simulated"] == 8
    every = {frozenset(s) for size in range(4) for s in combinations(names, size)}
    assert {frozenset(outcome.plan["use"]) for outcome in ranking.plans} == every
    values = [outcome.metrics["productivity"] for outcome in ranking.plans]
    assert values == sorted(values, reverse=True)
    assert ranking.best is not None
    assert set(ranking.best.plan["use"]) == set(names)
    again = simulate(scenario.with_plan(load_plan(scenario, ranking.best.plan["use"])))
    assert again.metrics == ranking.best.metrics


def load_plan(scenario: StreamScenario, use: list[str]) -> Any:
    import msgspec

    return msgspec.structs.replace(scenario.plan, use=tuple(use))


def test_the_pipeline_as_it_is_stands_in_every_ranking() -> None:
    for top in (1, 2, 6):
        plans = search(trigger(), top=top).plans
        assert any(made(outcome.plan) == "as it is" for outcome in plans)
    with pytest.raises(SpecError, match="top: is out of range"):
        search(trigger(), top=0)


def test_early_or_late_is_a_matter_of_what_links_and_operations_cost() -> None:
    scenario = cameras()
    assert places(scenario) == ["cameras", "edge", "server"]
    order = [made(o.plan) for o in search(scenario, top=None).plans]
    assert order[0] == "filter at cameras"
    # where operations at the cameras are dear, the edge filters
    table = scenario.table()
    table["workload"]["nodes"][0]["op_energy"] = "100 nJ"
    assert made(search(load_stream(table), top=None).plans[0].plan) == "filter at edge"
    # F1 is the same wherever it sits; only "nowhere", the null, keeps everything
    f1 = {made(o.plan): o.metrics["f1"] for o in search(scenario, top=None).plans}
    assert f1["filter at cameras"] == pytest.approx(f1["filter at server"])
    assert f1["no filter"] == pytest.approx(2 * 0.02 / 1.02)


def test_a_list_of_places_is_searched_alone() -> None:
    plans = search(cameras(filter=["edge", "nowhere"]), top=None).plans
    assert [made(o.plan) for o in plans] == ["filter at edge", "no filter"]


def test_several_sensors_are_one_place() -> None:
    nodes: list[dict[str, Any]] = [
        {"name": "a", "to": "hub", "rate": 10, "size": 100}, {"name": "b", "to": "hub", "rate": 5, "size": 100},
        {"name": "hub", "to": "disk", "merge": "interleave"}, {"name": "disk"},
    ]  # fmt: skip
    workload = {
        "kind": "stream", "nodes": nodes, "interesting": 0.1,
        "filter": {"ratio": 5, "classifier": {"kind": "gaussian", "skill": 2}},
    }  # fmt: skip
    scenario = load({"workload": workload})
    assert isinstance(scenario, StreamScenario)
    assert places(scenario) == ["sensors", "hub"]
    early, late = (simulate(load_stream({"workload": workload, "plan": {"filter": at}})) for at in ("sensors", "hub"))
    for name in ("tp", "fp", "fn", "tn"):
        assert early.metrics[name] == pytest.approx(late.metrics[name])
    nodes[2]["merge"] = "assemble"
    nodes[1]["rate"] = 10
    assert places(load_stream({"workload": workload})) == ["hub"]


def test_without_anything_open_one_improvement_a_stage_is_tried() -> None:
    import msgspec

    from fleetcast.scenario.stream_plan import StreamPlan

    scenario = trigger()
    bare = msgspec.structs.replace(scenario, plan=StreamPlan())
    names = [u.name for u in improvements(setting(bare))]
    assert "half the energy of operations at farm" in names
    assert "more skill at level-1" in names
    ranking = search(bare, top=None)
    assert [o.plan["use"] for o in ranking.plans if not o.plan["use"]] == [[]]
    assert {u for o in ranking.plans for u in o.plan["use"]} == set(names)
    power = {made(o.plan): o.metrics["power"] for o in ranking.plans}
    base = power["as it is"]
    # the farm's operations are all but one part in 600, and what it does grows with the square of the data
    assert power["half the energy of operations at farm"] == pytest.approx(base / 2, rel=0.01)
    assert power["half the data to level-1"] < 0.3 * base
    assert power["more skill at farm"] == pytest.approx(base)


def test_the_goal_decides() -> None:
    table = cameras().table()
    table["objective"] = {"minimize": "latency"}
    best = fleetcast.plan(table).best
    assert best is not None
    assert best.plan["filter"] != "cameras"  # cameras are slow
    table["objective"] = {"minimize": ["power", "latency"]}
    ranking = fleetcast.plan(table)
    points = [(o.metrics["power"], o.metrics["latency"]) for o in ranking.frontier]
    assert points == sorted(points)
    assert [p[1] for p in points] == sorted((p[1] for p in points), reverse=True)
