"""The table of plans: rows are layouts, columns tell them apart, and everything fits the terminal."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from fleetcast.view import plans, tables, verbs, words
from fleetcast.view.choices import setup

COST = ("cost", "cost", 1)
LATENCY = ("latency", "e2e.mean", 1)


def printed(view, width=100):
    page = Console(file=io.StringIO(), width=width)
    page.print(view)
    return page.file.getvalue()


def heads(table):
    return [column.header for column in table.columns]


def with_plan(outcome, **changes):
    return replace(outcome, plan={**outcome.plan, **changes})


def test_a_column_for_what_differs_and_for_nothing_else(make):
    one = make()
    assert heads(plans.plans_table([one, make(replicas=1)], [COST], 200))[:2] == ["Plan", "Devices"]
    others = {
        "Engine": {"engine": "sglang-0.4"}, "Weights": {"dtype": "fp8"}, "Cache": {"kv_dtype": "fp8"},
        "Order": {"order": {"kind": "shortest_prompt"}}, "Memory": {"memory": {"kind": "swap"}},
        "Activations": {"activation_dtype": "fp8"}, "Batch": {"batch": {"kind": "chunked", "chunk": 512}},
    }  # fmt: skip
    for head, changes in others.items():
        for width in (60, 200):
            assert heads(plans.plans_table([one, with_plan(one, **changes)], [COST], width))[:2] == ["Plan", head]


def test_goals_and_limits_stay_where_the_terminal_is_narrow(make):
    table = plans.plans_table([make()], [LATENCY], 45)
    assert heads(table) == ["Plan", "TTFT p99", "TPOT p99", "E2E mean"]
    assert "Energy/M" in heads(plans.plans_table([make()], [LATENCY], 200))


def test_what_is_unknown_has_no_column(make):
    outcome = make()
    million = outcome.metrics["per_million_output_tokens"] | {"cost": float("nan")}
    unpriced = replace(outcome, metrics={**outcome.metrics, "per_million_output_tokens": million})
    assert "$/M tok" not in heads(plans.plans_table([unpriced], [LATENCY], 200))


def test_batch_policies_of_a_layout_are_one_row(ranking):
    folded = plans.layouts(ranking)
    names = [words.plan_name(f.best.plan) for f in folded]
    assert len(set(names)) == len(names) < len(ranking.plans)
    assert folded[0].best is ranking.best
    assert sum(1 + f.more for f in folded) == len(ranking.plans)
    same = replace(ranking, identical=(({"batch": {}}, {"batch": {}}),))
    assert plans.layouts(same)[0].more == folded[0].more + 2


def test_several_goals_print_the_frontier(ranking, scenario):
    several = replace(ranking, goals=(COST, LATENCY))
    text = printed(tables.ranking_view(scenario, several, 100))
    assert "Best by cost: " in text and "Frontier of cost and latency" in text and "By cost first" in text
    assert "Frontier of" not in printed(tables.ranking_view(scenario, ranking, 100))
    many = replace(several, frontier=several.plans[:1] * 40)
    assert "28 more plans lie between these (--json)" in printed(tables.ranking_view(scenario, many, 100))


def test_spaced_keeps_the_ends():
    assert plans.spaced(list(range(5)), 12) == [0, 1, 2, 3, 4]
    assert plans.spaced(list(range(101)), 3) == [0, 50, 100]


def test_trade_says_what_the_frontier_trades(make, ranking):
    cheap, fast = make(replicas=1, tensor_parallel=4), make(replicas=1, tensor_parallel=8, slow=0.5)
    said = words.trade(replace(ranking, frontier=(cheap, fast)))
    assert said.startswith("Frontier: 2 plans trade cost for latency, from 1x TP4 ($")
    assert "to 1x TP8 ($" in said
    assert "this one plan" in words.trade(replace(ranking, frontier=(cheap,)))
    assert "nothing to trade" in words.trade(replace(ranking, frontier=(cheap, cheap)))
    assert words.trade(replace(ranking, frontier=())) == ""


def test_plans_that_cost_the_same_are_called_so(make, scenario):
    best, same = make(replicas=1, tensor_parallel=8), make(replicas=2, tensor_parallel=4)
    assert words.why(best, [best, same], scenario.objective)[0] == (
        "1 other layout has the same cost: choose among them by what else counts."
    )


def test_the_next_layout_of_the_same_name_says_what_differs(make, scenario):
    best, slow = make(replicas=1, tensor_parallel=4), make(replicas=2, tensor_parallel=4)
    other = with_plan(slow, replicas=1, dtype="fp8", memory={"kind": "swap"})
    said = words.why(best, [best, other], scenario.objective)[0]
    assert said == "The next layout, 1x TP4 with fp8, swap, has 100% more cost."


def test_other_devices_within_the_interval_are_not_told_apart(make, scenario):
    path = words.GOAL_METRIC["cost"]

    def on(device, outcome, wide):
        value = outcome.metrics[words.PER_MILLION]["cost"]
        rows = tuple({**row, "device": device} for row in outcome.resources)
        return replace(outcome, resources=rows, intervals={path: (value / wide, value * wide)})

    best = on("l40s", make(replicas=1, tensor_parallel=4), 1.5)
    dear = make(replicas=1, tensor_parallel=5)
    said = "On other devices or another engine, 1x TP5: within the 80 % interval of its cost, so not told apart."
    assert said in words.why(best, [best, on("h100-sxm", dear, 1.5)], scenario.objective)
    assert said not in words.why(best, [best, on("l40s", dear, 1.5)], scenario.objective)
    assert said not in words.why(best, [best, on("h100-sxm", dear, 1.1)], scenario.objective)


def test_setup_echoes_what_was_not_asked_for(scenario, outcome):
    assert setup(scenario, outcome.plan) == (
        "Engine vllm-0.6, weights bf16, cache bf16, order fifo, memory recompute, route least_loaded; by default: all."
    )
    asked = verbs.load("policies")
    assert setup(asked, outcome.plan).endswith("; by default: weights, cache, route.")


def test_setup_tells_overlap_and_drafts_where_there_are_any(scenario, outcome):
    drafting = outcome.plan | {
        "overlap": {"kind": "nano", "splits": [0.5, 0.5]},
        "speculate": {"kind": "fixed", "length": 4, "model": "llama-3.2-1b"},
    }
    said = setup(scenario, drafting)
    assert "drafts fixed 4 by llama-3.2-1b" in said
    assert "overlap 2 nano-batches" in said


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("name", ["carbon", "pools", "mixed-fleet", "phone"])
def test_examples_fit_the_terminal(name, width):
    scenario = verbs.load(name)
    text = printed(tables.ranking_view(scenario, verbs.plan(scenario), width), width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
