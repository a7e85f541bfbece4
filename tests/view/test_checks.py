"""What `check` finds: each check has a scenario that it complains about, and a clean one that it does not."""

import pytest

from fleetcast.view import checks, verbs

CLEAN = {
    "fleet": {"devices": "2x h100-sxm"},
    "workload": {
        "model": "llama-3.1-8b",
        "arrivals": {"kind": "poisson", "rate": "4 /s", "requests": 200},
        "lengths": {"kind": "fixed", "prompt": 512, "output": 64},
    },
    "slo": {"ttft_p99": "1 s", "tpot_p99": "50 ms"},
    "plan": {"replicas": 2, "tensor_parallel": 1, "pipeline_parallel": 1},
}


def changed(**parts):
    table = dict(CLEAN)
    for part, value in parts.items():
        table[part] = value if value is None else {**table.get(part, {}), **value}
    return {k: v for k, v in table.items() if v is not None}


def test_a_clean_scenario_is_clean():
    assert verbs.check(CLEAN) == []


WRONG = {
    "check_plan": (changed(plan={"replicas": 3}), "error", "devices of group"),
    "check_weights": (changed(workload={"model": "llama-3.1-405b"}, plan=None), "error", "405b weighs"),
    "check_grid": (changed(fleet={"grid": "no-such.csv"}), "error", "fleet.grid: cannot be read"),
    "check_context": (
        changed(workload={"model": "llama-2-13b", "lengths": {"kind": "fixed", "prompt": 4000, "output": 200}}),
        "warning", "200 of 200 requests exceed the model's 4,096 positions",
    ),
    "check_traffic": (
        changed(workload={"arrivals": {"kind": "poisson", "rate": "4 /s", "requests": 20}}),
        "warning", "20 requests: a p99 of so few",
    ),
    "check_load": (
        changed(workload={"arrivals": {"kind": "poisson", "rate": "4000 /s", "requests": 2000}}),
        "warning", "queues will grow",
    ),
    "check_slo": (changed(slo={"tpot_p99": "1 ms"}), "error", "reading the active weights once takes"),
    "check_goal": (
        changed(fleet={"devices": "1x snapdragon-8-gen-3"}, workload={"model": "llama-3.2-1b"}, plan=None),
        "error", "has no rental price",
    ),
    "check_dtypes": (
        changed(fleet={"devices": "2x a100-80g-sxm"}, plan={"dtype": "fp8"}),
        "warning", "does not multiply fp8",
    ),
    "check_groups": (
        changed(
            fleet={"devices": "2x h100-sxm + 2x l40s"},
            plan={"on": "h100-sxm"},
        ),
        "warning", "no pool runs on l40s",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_each_check_complains_where_it_must(name):
    table, level, text = WRONG[name]
    found = [(r.level, r.text) for r in verbs.check(table)]
    assert any(level == has and text in said for has, said in found), found


def test_every_check_has_a_case():
    assert {c.__name__ for c in checks.CHECKS} == set(WRONG)


def test_errors_come_first():
    table = changed(
        slo={"tpot_p99": "1 ms"}, workload={"arrivals": {"kind": "poisson", "rate": "4 /s", "requests": 20}}
    )
    levels = [r.level for r in verbs.check(table)]
    assert levels == sorted(levels) and set(levels) == {"error", "warning"}


def test_missing_slo_is_doubtful():
    assert [r.path for r in verbs.check(changed(slo=None))] == ["slo"]


def test_an_unknown_grid_is_an_error():
    (remark,) = verbs.check(changed(fleet={"grid": "PJMX"}))
    assert (remark.level, remark.path) == ("error", "fleet.grid") and "PJM" in remark.text


LISTS = {"batch": {"kind": "chunked", "chunk": [512, 2048], "max_batch": 64}, "dtype": ["bf16", "fp8"],
         "tensor_parallel": [1, 2], "engine": ["vllm-1", "sglang-0.4"], "order": ["fifo", "shortest_prompt"],
         "clock": [0.8, 1.0]}  # fmt: skip


@pytest.mark.parametrize("key", LISTS)
def test_lists_that_plan_takes_are_taken(key):
    table = changed(plan={"replicas": 1, key: LISTS[key]})
    assert verbs.plan(table, top=1).best is not None
    assert verbs.check(table) == []


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"tensor_parallel": [3, 5]}, "TP3 PP1 on h100-sxm: devices, 6 of 2"),
        ({"batch": ["chunked", "chunkd"]}, "Did you mean 'chunked'?"),
        ({"dtype": ["bf16", "fp8"], "engine": ["vllm-1", "vlm"]}, "vlm"),
        ({"tensor_parallel": [1, 2], "route": {"kind": "prefix_hash"}}, "needs the trace's column 'session'"),
        ({"batch": {"chunk": [64], "max_batch": 256}}, "leaves nothing to search"),
    ],
)
def test_lists_that_cannot_be_are_errors(plan, said):
    found = [r for r in verbs.check(changed(plan=plan)) if r.level == "error"]
    assert any(said in r.text for r in found), found


def test_an_open_plan_of_which_nothing_fits_is_an_error():
    table = changed(workload={"model": "llama-3.1-405b"}, plan=None)
    said = {r.path: r.text for r in verbs.check(table) if r.level == "error"}
    assert said["plan"].startswith("nothing fits; nearest is TP2 PP1 on h100-sxm: memory for weights")


def test_pools_that_do_not_fit_together_are_an_error():
    pools = [{"tensor_parallel": 2}, {"tensor_parallel": [1, 2]}]
    table = {**changed(plan=None), "plan": {"pools": pools}}
    said = {r.path: r.text for r in verbs.check(table) if r.level == "error"}
    assert said["plan"] == "nothing fits; nearest is the pools on h100-sxm together: devices, 3 of 2"
    ranking = verbs.plan(table)
    assert ranking.best is None and [(r["need"], r["have"]) for r in ranking.rejected] == [(3, 2)]
