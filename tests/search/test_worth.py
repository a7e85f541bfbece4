"""What a choice buys: the best plan that chooses otherwise is that of simulating every plan."""

from typing import Any

import pytest

import fleetcast
from fleetcast.base.errors import SpecError
from fleetcast.scenario.load import load
from fleetcast.scenario.plan import read_plan
from fleetcast.search.candidates import fit_all
from fleetcast.search.parallelism import search
from fleetcast.search.ranking import values
from fleetcast.search.space import spaces
from fleetcast.search.worth import choices
from fleetcast.sim.serving.setting import Setting, setting
from fleetcast.view.worth import worth_lines

BATCH = {"kind": "chunked", "chunk": [512, 2048], "max_batch": 64}
DRAFTS = {"kind": "fixed", "length": 3, "model": "llama-3.2-1b", "acceptance": 0.7}
CASES: dict[str, dict[str, Any]] = {
    "phases and kinds": {"plan": {"phases": ["together", "split"]}},
    "drafts and clocks": {"plan": {"speculate": ["off", DRAFTS], "clock": [0.7, 1.0]}, "goal": {"minimize": "energy"}},
    "dtypes": {"plan": {"dtype": ["bf16", "fp8"], "kv_dtype": ["bf16", "fp8"]}},
    "spilling": {
        "plan": {"phases": ["together", "split"], "route": {"kind": "split_phases", "spill": [0, 1500]}},
        "goal": {"minimize": "latency"},
    },
    "nano-batches": {"plan": {"overlap": ["none", "nano"]}, "goal": {"maximize": "throughput"}},
    "a budget": {"plan": {"phases": ["together", "split"]}, "fleet": {"budget": "1.6 kW"}},
    "latency": {"plan": {"phases": ["together", "split"], "clock": [0.7, 1.0]}, "goal": {"minimize": "latency"}},
}


def state(case: str, ttft: float = 2.0, tpot: float = 0.06) -> Setting:
    c = CASES[case]
    return setting(load({
        "fleet": {"devices": "2x l40s + 2x h100-sxm", "price": {"l40s": 1.0, "h100-sxm": 3.0}} | c.get("fleet", {}),
        "workload": {
            "model": "llama-3.1-8b", "arrivals": {"kind": "poisson", "rate": "5 /s", "requests": 80},
            "lengths": {"kind": "lognormal", "prompt": 900, "output": 80, "prompt_p90": 2000, "output_p90": 150},
        },
        "slo": {"ttft_p99": ttft, "tpot_p90": tpot}, "objective": c.get("goal", {"minimize": "cost"}),
        "plan": {"tensor_parallel": 1, "pipeline_parallel": 1, "batch": BATCH} | c["plan"],
    }))  # fmt: skip


@pytest.mark.parametrize("top", [1, 4])
@pytest.mark.parametrize(("ttft", "tpot"), [(2.0, 0.06), (0.4, 0.02)])
@pytest.mark.parametrize("case", CASES)
def test_the_best_plan_that_chooses_otherwise_by_simulating_every_plan(
    case: str, ttft: float, tpot: float, top: int
) -> None:
    here = state(case, ttft, tpot)
    ranking = search(here, top=top, weigh=True)
    plain = search(here, top=top)
    assert [o.plan for o in ranking.plans] == [o.plan for o in plain.plans]
    assert [o.plan for o in ranking.frontier] == [o.plan for o in plain.frontier]
    if ranking.best is None:
        assert not ranking.worth
        return
    assert ranking.worth
    every = search(here, top=None, exhaustive=True)
    made = {c.plan.label() + repr(c.plan): choices(c) for c in fit_all(here, spaces(here)).candidates}

    def of(table: Any) -> frozenset[str]:
        plan = read_plan(dict(table))
        return made[plan.label() + repr(plan)]

    mine = of(ranking.best.plan)
    assert {w.choice for w in ranking.worth if w.used} <= mine
    for w in ranking.worth:
        assert w.used == (w.choice in mine)
        others = [o for o in every.plans if (w.choice in of(o.plan)) != w.used]
        if not others:
            assert w.other is None
            continue
        assert w.other is not None
        assert (w.choice in of(w.other.plan)) != w.used
        assert values(w.other, ranking.goals) == min(values(o, ranking.goals) for o in others)


def test_routes_go_with_the_ways_they_serve() -> None:
    pool = {"tensor_parallel": 1, "pipeline_parallel": 1, "batch": BATCH}
    table = state("phases and kinds").scenario.table()

    def found(**plan: Any) -> list[tuple[int, Any]]:
        here = setting(load(table | {"plan": pool | plan}))
        return [(len(space.templates), space.route) for space in spaces(here)]

    both, least = ["together", "split"], {"kind": "least_loaded"}
    split = {"kind": "split_phases", "spill": 0.0, "layerwise": True}
    assert found(phases=both) == [(1, least), (2, split)]
    assert found(phases=both, route={"kind": "split_phases", "spill": [0, 9]}) == [
        (1, least), (2, split), (2, split | {"spill": 9.0}),
    ]  # fmt: skip
    assert found(phases=both, route=["round_robin", "least_loaded"]) == [
        (1, {"kind": "round_robin"}), (1, least), (2, split),
    ]  # fmt: skip
    for phases, route in (("together", "split_phases"), ("split", "round_robin")):
        with pytest.raises(SpecError, match=r"plan\.route\.kind"):
            found(phases=phases, route=route)


def test_choices_that_nothing_decides_are_left_out() -> None:
    names = {w.choice for w in search(state("phases and kinds"), weigh=True).worth}
    assert names == {"split phases", "l40s", "h100-sxm"}
    assert {w.choice for w in search(state("dtypes"), weigh=True).worth} >= {"l40s", "h100-sxm"}
    assert not search(state("phases and kinds")).worth


def test_sentences_share_a_plan_and_name_the_difference() -> None:
    ranking = search(state("phases and kinds"), weigh=True)
    lines = worth_lines(ranking)
    assert lines and all(line.startswith(("Without ", "With ")) for line in lines)
    for w in ranking.worth:
        said = next(line for line in lines if f"{'ithout' if w.used else 'ith'} {w.choice}" in line)
        if w.other is None:
            assert said.endswith("no plan meets the SLO.")
        else:
            assert read_plan(dict(w.other.plan)).label() in said and said.endswith("cost.")
    assert "worth" in ranking.table() and ranking.table()["worth"][0]["choice"]


def test_the_opening_question_is_answered_part_by_part() -> None:
    ranking = fleetcast.plan("mixed-budget", top=3)
    best = ranking.best
    assert best is not None and ranking.frontier
    on = {pool["on"] for pool in best.plan["pools"]}
    assert on == {"new", "old"}  # what runs where
    weighed = {w.choice: w for w in ranking.worth}
    assert set(weighed) == {"split phases", "drafts", "lower clocks", "devices of new", "devices of old"}
    limits = best.provenance["limits"]
    assert [row["what"] for row in limits] == ["power"] and limits[0]["value"] <= limits[0]["limit"] == 200e3
    over = [row for row in ranking.rejected if row["constraint"] == "power of all servers"]
    assert over and all(row["need"] > row["have"] == 200e3 for row in over)
    assert ranking.counts["over_budget"] > 0
