"""What if: changes by path, for every kind of workload; both sides planned where the plan is open."""

import io
import json

import pytest
from rich.console import Console

import fleetcast
from fleetcast.base.errors import SpecError
from fleetcast.view import cli
from fleetcast.view.changes import looked_at, whatif_view
from fleetcast.view.whatif import changed, is_open, parse, whatif

TRAIN = {
    "name": "train", "fleet": {"devices": "64x a100-80g-sxm"},
    "workload": {"kind": "training", "model": {"layers": 24, "hidden": 2048, "heads": 16}, "batch": 64, "steps": 10},
    "plan": {"tensor_parallel": 2, "pipeline_parallel": 1},
}  # fmt: skip
SERVE = {
    "name": "serve", "fleet": {"devices": "2x h100-sxm"},
    "workload": {
        "model": "llama-3.1-8b", "arrivals": {"kind": "poisson", "rate": "4 /s", "requests": 100},
        "lengths": {"kind": "fixed", "prompt": 512, "output": 64},
    },
    "plan": {"replicas": 2, "tensor_parallel": 1, "pipeline_parallel": 1},
}  # fmt: skip


def test_a_change_is_the_file_with_that_line():
    """The oracle: the same file, written with the change."""
    found = whatif(TRAIN, ["fleet.links.inter=100Gb/s", "workload.batch=128"])
    by_hand = TRAIN | {
        "fleet": TRAIN["fleet"] | {"links": {"inter": "100Gb/s"}}, "workload": TRAIN["workload"] | {"batch": 128},
    }  # fmt: skip
    assert found.after[0].outcome.table() == fleetcast.simulate(by_hand).table()
    assert found.before.outcome.table() == fleetcast.simulate(TRAIN).table()


def test_no_change_changes_nothing():
    row = whatif(TRAIN, {"workload.batch": 64}).table()["variants"][0]
    assert all(ratio in (1.0, None) for ratio in row["ratios"].values())
    assert all(term["before"] == term["after"] for term in row["terms"])


def test_ratios_and_terms_are_of_the_two_outcomes():
    found = whatif(TRAIN, {"fleet.links.inter": "25 Gb/s"})
    row = found.table()["variants"][0]
    before, after = (v.outcome.metrics for v in (found.before, found.after[0]))
    assert row["ratios"]["iteration_time"] == pytest.approx(after["iteration_time"] / before["iteration_time"])
    moved = {term["term"]: term["after"] - term["before"] for term in row["terms"]}
    assert sum(moved.values()) == pytest.approx(after["iteration_time"] - before["iteration_time"])
    assert max(moved, key=lambda k: abs(moved[k])) == "data_comm"


def test_values_with_commas_make_variants_and_paths_multiply():
    found = whatif(TRAIN, ["workload.batch=64,128", "plan.tensor_parallel=1,2,4"])
    rows = [dict(v.changes) for v in found.after]
    assert rows == [
        {"workload.batch": b, "plan.tensor_parallel": t} for b in (64, 128) for t in (1, 2, 4)
    ]  # fmt: skip
    assert len({v.outcome.metrics["iteration_time"] for v in found.after}) == 6


def test_values_are_read_as_toml_and_anything_else_is_text():
    asked = parse([
        "a=1", "b=true", "c=[1, 2]", "d=100Gb/s", "e={ x = 1, y = 2 }", 'f="1024x h100-sxm"', "g=1024x h100-sxm,8x l4",
        "h=[1],[2, 3]",
    ])  # fmt: skip
    assert asked == {
        "a": (1,), "b": (True,), "c": ([1, 2],), "d": ("100Gb/s",), "e": ({"x": 1, "y": 2},),
        "f": ("1024x h100-sxm",), "g": ("1024x h100-sxm", "8x l4"), "h": ([1], [2, 3]),
    }  # fmt: skip


def test_an_open_plan_is_planned_on_both_sides():
    open_ = {k: v for k, v in TRAIN.items() if k != "plan"}
    found = whatif(open_, {"fleet.links.inter": "10 Gb/s"})
    assert found.before.planned and found.after[0].planned
    best = fleetcast.plan(open_, top=1).best
    assert found.before.outcome.metrics["iteration_time"] == best.metrics["iteration_time"]
    kept = whatif(open_, {"fleet.links.inter": "10 Gb/s"}, how="simulate")
    assert kept.after[0].outcome.metrics["iteration_time"] >= found.after[0].outcome.metrics["iteration_time"]


def test_requests_are_changed_as_training_is():
    found = whatif(SERVE, {"workload.arrivals.rate": ("8 /s", "16 /s")})
    by_hand = SERVE | {
        "workload": SERVE["workload"] | {"arrivals": {"kind": "poisson", "rate": "16 /s", "requests": 100}}
    }
    assert not found.before.planned
    assert found.after[1].outcome.metrics == fleetcast.simulate(by_hand).metrics
    times = [v.outcome.metrics["makespan"] for v in (found.before, *found.after)]
    assert times[0] > times[1] > times[2]


def test_pools_are_changed_by_their_number():
    one = SERVE["plan"] | {"replicas": 1, "on": "h100-sxm"}
    pools = fleetcast.load(SERVE | {"plan": {"pools": [one, one | {"dtype": "fp8"}]}})
    made = changed(pools, {"plan.pools.1.replicas": 2})
    assert made.plan.pools[1].replicas == 2 == changed(pools, {"plan.pools[1].replicas": 2}).plan.pools[1].replicas
    assert made.plan.pools[0].replicas == 1
    with pytest.raises(SpecError, match=r"plan.pools.3"):
        changed(pools, {"plan.pools.3.replicas": 1})


def test_plans_are_open_where_a_search_is_needed():
    assert not is_open(fleetcast.load(TRAIN)) and not is_open(fleetcast.load(SERVE))
    assert is_open(fleetcast.load({k: v for k, v in TRAIN.items() if k != "plan"}))
    assert is_open(fleetcast.load(TRAIN | {"plan": {"tensor_parallel": 2, "zero": [0, 1]}}))
    assert is_open(fleetcast.load({k: v for k, v in SERVE.items() if k != "plan"}))
    assert is_open(fleetcast.load("tiers"))
    jobs = fleetcast.load("one-fleet")
    assert is_open(jobs) and not is_open(changed(jobs, {"plan.share": "easy"}))


WRONG = {
    "fleet.link.inter=1": ("fleet.link", "is a table"),
    "fleet.links.intr=100Gb/s": ("fleet.links.intr", "Did you mean 'intra'"),
    "workload.bach=7": ("workload.bach", "Did you mean 'batch'"),
    "plan.tensor_paralel=2": ("plan.tensor_paralel", "Did you mean 'tensor_parallel'"),
    "flet.devices=8x l4": ("flet", "Did you mean 'fleet'"),
    "workload.batch=many": ("workload.batch", "a whole number"),
    "workload.model.layers.x=3": ("workload.model.layers.x", "no table"),
    "fleet.links.inter=fast": ("fleet.links.inter", "link"),
    "workload.batch": ("--set", "path=value"),
    "=3": ("--set", "path=value"),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_no_scenario_has_is_refused_with_the_nearest(text):
    path, said = WRONG[text]
    with pytest.raises(SpecError) as caught:
        whatif(TRAIN, [text])
    assert caught.value.path == path and said in str(caught.value)


def test_without_changes_the_usual_upgrades_are_asked_about_best_first():
    found = whatif("training-counted", [])
    named = [next(iter(variant.changes)) for variant in found.after]
    assert named[0] == "fleet.links.inter", "three quarters of its step are weights on the network"
    assert {"fleet.links.intra", "device.peak", "device.bandwidth", "device.host_link", "fleet.devices"} < set(named)
    assert "device.memory" not in named, "counts say nothing of memory"
    before = found.before.outcome.metrics["iteration_time"]
    times = [variant.outcome.metrics["iteration_time"] for variant in found.after]
    assert times == sorted(times) and times[-1] < before


def test_an_upgrade_of_one_resource_shortens_its_term_alone():
    """The placement stays; twice the peak halves compute, twice the memory bandwidth halves memory's term."""
    found = whatif("training-counted", [])
    before = found.before.outcome.metrics["breakdown"]
    for what, term in (("device.peak", "compute"), ("device.bandwidth", "memory"), ("device.host_link", "data")):
        after = next(v.outcome.metrics["breakdown"] for v in found.after if what in v.changes)
        assert after[term] == pytest.approx(before[term] / 2)
        assert all(after[name] == before[name] for name in before if name != term)


def test_upgrades_of_a_model_that_is_trained():
    table = {
        "fleet": {"devices": "8x a100-80g-sxm"},
        "workload": {"kind": "training", "model": "gpt2", "batch": 64},
        "plan": {"tensor_parallel": 1, "micro_batch": 4},
    }  # fmt: skip
    found = {next(iter(v.changes)): v for v in whatif(table, []).after}
    base = whatif(table, {"workload.batch": 64}).before.outcome.metrics
    assert found["device.memory"].outcome.metrics["iteration_time"] == base["iteration_time"]
    quick = found["device.peak"].outcome.metrics
    assert 0.5 * base["iteration_time"] < quick["iteration_time"] < base["iteration_time"]
    assert quick["mfu"] * 2 * quick["iteration_time"] == pytest.approx(base["mfu"] * base["iteration_time"])
    assert "fleet.links.inter" not in found, "one node has no network"


def test_too_many_and_too_few_changes():
    with pytest.raises(SpecError, match="twice"):
        whatif(TRAIN, ["workload.batch=1", "workload.batch=2"])
    with pytest.raises(SpecError, match=r"--set.*missing"):
        whatif({"fleet": {"devices": "1x b200-sxm"}, "workload": {"model": "llama-3.1-8b"}}, [])
    with pytest.raises(SpecError, match="at most 200"):
        whatif(TRAIN, {"workload.batch": tuple(range(64, 64 * 300, 64))})
    with pytest.raises(SpecError, match="auto, plan, simulate"):
        whatif(TRAIN, {"workload.batch": 64}, how="guess")


def test_the_command_prints_before_after_and_ratio(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    file = tmp_path / "train.toml"
    file.write_text(
        '[fleet]\ndevices = "64x a100-80g-sxm"\n[workload]\nkind = "training"\nbatch = 64\n'
        "model = { layers = 24, hidden = 2048, heads = 16 }\n[plan]\ntensor_parallel = 2\n"
    )
    assert cli.main(["whatif", str(file), "--set", "fleet.links.inter=25Gb/s"]) == 0
    out = capsys.readouterr().out
    assert "fleet.links.inter = 25Gb/s" in out and "Ratio" in out and "Gradients added up" in out
    assert cli.main(["whatif", str(file), "--set", "plan.micro_batch=1,2", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert [v["set"] for v in got["variants"]] == [{"plan.micro_batch": 1}, {"plan.micro_batch": 2}]
    assert got["before"]["outcome"]["metrics"]["iteration_time"] > 0
    assert cli.main(["whatif", str(file), "--set", "workload.model.layers=2400"]) == 1
    assert "Falls short" in capsys.readouterr().out
    assert cli.main(["whatif", str(file), "--set", "plan.tensor_parallel=5"]) == 2
    assert "attention heads" in capsys.readouterr().err


CHANGED = {
    "jobs": ({"plan.share": "fifo"}, {"jct.mean", "utilisation", "makespan", "energy"}),
    "pods": ({"plan.place": "kube_default"}, {"placed", "moves", "evicted", "at_end.cpu"}),
    "functions": ({"plan.scale": "histogram"}, {"cold_starts.count", "pod_seconds", "latency.p99", "carbon"}),
    "learned-jobs": ({"plan.share": "drf"}, {"jct.mean", "waits.mean", "utilisation"}),
    "green-jobs": ({"plan.share": "edf"}, {"work_carbon", "late", "carbon"}),
    "one-fleet": ({"plan.share": "easy"}, {"jct.mean", "cost"}),
    "graph": ({"plan.order": "fifo"}, {"makespan", "gap", "moved_bytes"}),
    "cameras": ({"workload.nodes.0.rate": 5}, {"power", "f1", "latency"}),
    "chat": ({"workload.arrivals.rate": 2}, {"ttft.p99", "throughput"}),
    "multitask": ({"seed": 1}, {"iteration_time"}),
}  # fmt: skip
"""Example -> a change of it, and some of what people look at first."""


@pytest.mark.parametrize("name", CHANGED)
def test_every_kind_of_workload_shows_what_people_look_at_first(name):
    changes, metrics = CHANGED[name]
    found = whatif(name, changes)
    assert metrics <= set(looked_at((found.before, *found.after)))
    for width in (80, 120):
        page = Console(file=io.StringIO(), width=width)
        page.print(whatif_view(found, width))
        text = page.file.getvalue()
        assert all(part in text for part in (f"{name}: ", "as it is", found.after[0].name, "Ratio")), text
        assert "None" not in text and "nan" not in text


@pytest.mark.parametrize("name", ["jobs", "learned-jobs", "pods", "functions", "graph"])
def test_a_plan_that_is_decided_stays_so_and_the_null_stands_beside_it(name):
    """The null is played for comparison where a plan does not name it; it is never what was asked for."""
    key, worse, null = {
        "jobs": ("share", "drf", "fifo"), "learned-jobs": ("share", "drf", "fifo"),
        "pods": ("place", "fgd", "kube_default"), "functions": ("scale", "histogram", "fixed"),
        "graph": ("order", "critical_path", "fifo"),
    }[name]  # fmt: skip
    ranking = fleetcast.plan(changed(fleetcast.load(name), {f"plan.{key}": worse}))
    kinds = [outcome.plan[key]["kind"] for outcome in ranking.plans]
    assert kinds == [worse, null]
    assert whatif(name, {f"plan.{key}": worse}).after[0].outcome.plan[key]["kind"] == worse
