"""Ranking: the frontier is undominated, rows are JSON, exit semantics."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fleetcast.base.errors import SpecError
from fleetcast.scenario.load import load
from fleetcast.search.parallelism import search
from fleetcast.search.ranking import undominated, values, worst_ratio
from fleetcast.sim.serving.completing import complete
from fleetcast.sim.serving.setting import setting

BATCH = {"kind": "chunked", "chunk": [256, 1024], "max_batch": [8, 64]}


def state(slo: dict[str, Any] | None = None, goal: dict[str, Any] | None = None, **more: Any) -> Any:
    table: dict[str, Any] = {
        "fleet": {"devices": "2x l40s"},
        "workload": {
            "model": "llama-3.1-8b", "arrivals": {"kind": "poisson", "rate": "4 /s", "requests": 60},
            "lengths": {"kind": "lognormal", "prompt": 600, "output": 80, "prompt_p90": 1300, "output_p90": 180},
        },
        "slo": slo or {}, "objective": goal or {}, "plan": {"batch": BATCH},
    }  # fmt: skip
    return setting(load(table | more))


@given(hnp.arrays(np.float64, st.tuples(st.integers(0, 30), st.integers(1, 4)), elements=st.integers(0, 5)))
def test_undominated_by_brute_force(points: Any) -> None:
    def beaten(i: int) -> bool:
        return any((points[j] <= points[i]).all() and (points[j] < points[i]).any() for j in range(len(points)))

    assert sorted(undominated(points)) == [i for i in range(len(points)) if not beaten(i)]


def test_best_first_and_frontier_undominated() -> None:
    ranking = search(state({"ttft_p99": 5.0}))
    assert ranking.best is ranking.plans[0] and ranking.plan is not None
    costs = [o.metrics["cost"] for o in ranking.plans]
    assert costs == sorted(costs)
    assert all(o.slo["met"] for o in (*ranking.plans, *ranking.frontier))
    points = [values(o, ranking.axes) for o in ranking.frontier]
    assert len(undominated(points)) == len(points)
    every = [values(o, ranking.axes) for o in ranking.plans]
    assert not any(all(a <= b for a, b in zip(p, q, strict=True)) and p != q for p in every for q in points)
    assert [goal for goal, _, _ in ranking.axes] == ["cost", "latency"]


def test_table_is_json_and_best_can_be_simulated_again() -> None:
    here = state({"ttft_p99": 5.0}, {"minimize": ["cost", "energy"], "maximize": "goodput"})
    ranking = search(here)
    table = json.loads(json.dumps(ranking.table()))
    assert table["best"]["plan"] == table["plans"][0]["plan"]
    assert set(table) >= {"best", "frontier", "plans", "rejected", "counts", "misses"}
    assert set(table["plans"][0]) >= {"plan", "metrics", "intervals", "slo"}
    assert complete(here, ranking.plan) == ranking.plan
    assert "fit in memory" in repr(ranking) and "<table>" in ranking._repr_html_()


def test_nothing_meets_the_slo() -> None:
    ranking = search(state({"ttft_p99": 1e-4, "tpot_p99": 10.0}))
    assert ranking.best is None and not ranking.plans and not ranking.frontier
    ratios = [worst_ratio(o.slo) for o in ranking.misses]
    assert len(ratios) == 3 and ratios == sorted(ratios) and ratios[0] > 1
    assert "no plan meets the SLO" in repr(ranking) and "nearest" in ranking._repr_html_()
    assert ranking.table()["best"] is None and ranking.table()["misses"][0]["worst"] == ratios[0]


def test_nothing_fits() -> None:
    ranking = search(state(workload={
        "model": "llama-3.1-405b", "arrivals": {"kind": "poisson", "rate": "1 /s", "requests": 3},
        "lengths": {"kind": "fixed", "prompt": 10, "output": 10},
    }))  # fmt: skip
    assert ranking.best is None and not ranking.misses and ranking.counts["memory_feasible"] == 0
    assert {r["family"] for r in ranking.rejected} >= {"TP1 PP1 on l40s", "TP2 PP1 on l40s", "TP1 PP2 on l40s"}


def test_equal_plans_are_one_row() -> None:
    ranking = search(state(), top=None)
    assert len({repr(o.metrics) for o in ranking.plans}) == len(ranking.plans)
    told = [row for row in ranking.table()["plans"] if "identical" in row]
    assert told and sum(len(row["identical"]) for row in told) >= ranking.counts["deduplicated"] > 0


def test_layouts_that_miss_the_slo_say_by_how_much() -> None:
    easy = {"ttft_p99": 5.0}
    assert not search(state()).missed and not search(state(easy)).missed
    full = search(state(easy), exhaustive=True, top=None).plans
    single = min(o.metrics["tpot"]["p99"] for o in full if o.metrics["devices"] == 1)
    slo = easy | {"tpot_p99": single * 0.9}
    ranking = search(state(slo))
    row = next(row for row in ranking.missed if row["devices"] == 1)
    assert ranking.best is not None and ranking.best.metrics["devices"] == 2
    assert (row["layout"], row["metric"], row["on"]) == ("1x TP1", "tpot.p99", {"l40s": 1}) and row["every_layout"]
    assert row["limit"] == slo["tpot_p99"] < row["value"] <= single * (1 + 1e-9)
    assert not any(row["every_layout"] for row in ranking.missed if row["devices"] == 2)
    assert json.loads(json.dumps(ranking.table()))["missed"][0]["layout"] == ranking.missed[0]["layout"]


def test_cost_without_prices() -> None:
    edge = {"fleet": {"devices": "2x jetson-agx-orin-64g"}}
    ranking = search(state(**edge))
    assert [goal for goal, _, _ in ranking.goals] == ["energy"] and "no price" in ranking.notes[0]
    with pytest.raises(SpecError, match=r"objective\.minimize: needs prices"):
        search(state(goal={"minimize": "cost"}, **edge))


def test_notes_reach_json() -> None:
    ranking = search(state(**{"fleet": {"devices": "2x jetson-agx-orin-64g"}}))
    notes = ranking.table()["notes"]
    assert notes[0] == ranking.notes[0] and len(set(notes)) == len(notes)
    assert ranking.best is not None and set(ranking.best.notes) < set(notes)
    assert any(note.startswith("pue") for note in notes)


def test_top_counts_layouts() -> None:
    every = search(state(), top=None).plans
    two = search(state(), top=2).plans

    def layout(outcome: Any) -> Any:
        return {k: v for k, v in outcome.plan.items() if k != "batch"}

    assert layout(two[-1]) not in [layout(o) for o in two[:-1]]
    assert len({repr(layout(o)) for o in two}) == 2
    assert [o.plan for o in two] == [o.plan for o in every[: len(two)]]


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    ranking = search(state(), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (ranking.counts["memory_feasible"],) * 2
    assert [d for d, _ in told] == list(range(1, len(told) + 1))


def test_same_scenario_same_ranking() -> None:
    first, second = (search(state({"ttft_p99": 3.0})).table() for _ in range(2))
    assert first == second
