"""Functions at the command line: simulate, plan, check, what if, watch."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fleetcast
from fleetcast.base.errors import Infeasible, SpecError, Unsupported
from fleetcast.policy.scale import Fixed
from fleetcast.scenario.load import dump, load
from fleetcast.scenario.workload.invocations.generators import Synthetic
from fleetcast.sim.functions.outcome import charge
from fleetcast.sim.functions.setting import setting
from fleetcast.sim.functions.world import play
from fleetcast.view.cli import main
from fleetcast.view.functions.logs import cold_start_tables
from fleetcast.view.starts import draw_parts, watch_starts

SMALL = {
    "fleet": {"groups": [{"name": "a", "devices": "1x epyc-9654"}, {"name": "b", "devices": "1x xeon-8480"}],
              "price": {"xeon-8480": "2 $/h"}},
    "workload": {
        "kind": "functions",
        "invocations": {"kind": "synthetic", "functions": 40, "regions": 2, "hours": 1, "steady": 0.5},
        "regions": [{"name": "R1", "grid": "100 g/kWh"}, {"name": "R2", "grid": "PJM"}],
    },
}  # fmt: skip


def with_(**parts):
    return load({name: SMALL.get(name, {}) | parts.get(name, {}) for name in (*SMALL, *parts)})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(dump(with_()))
    return str(path)


def test_simulate_prints_what_the_issue_of_cold_starts_asks_for(file, capsys):
    assert main(["simulate", file, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    m = found["metrics"]
    assert 0 < m["cold_starts"]["count"] < m["requests"]
    assert m["cold_starts"]["share"] == m["cold_starts"]["count"] / m["requests"]
    assert {"mean", "p50", "p99"} == set(m["latency"]) and m["latency"]["p50"] <= m["latency"]["p99"]
    assert min(m[name] for name in ("pod_seconds", "energy", "carbon", "cost", "peak_pods")) > 0
    assert set(found["breakdown"]["cold"]) == {"pod_allocation", "code", "dependencies", "scheduling"}
    pods = found["breakdown"]["pods"]
    assert sum(pods.values()) == pytest.approx(m["pod_seconds"])
    assert sum(found["breakdown"]["cold"].values()) == pytest.approx(pods["starting"])
    assert sum(r["cold_starts"] for r in found["resources"]) == m["cold_starts"]["count"]
    assert sum(r["energy"] for r in found["resources"]) == pytest.approx(m["energy"])


def test_the_screens_name_policy_regions_and_parts(file, capsys):
    assert main(["simulate", file]) == 0
    said = capsys.readouterr().out
    assert "Scale fixed keep 60" in said and "allocating the pod" in said and "R2" in said
    assert main(["plan", file]) == 0
    said = capsys.readouterr().out
    assert "Best: " in said and "histogram range 14400" in said


def test_energy_money_and_carbon_are_those_of_the_memory_held():
    state = setting(with_())
    pods = play(state.trace, Fixed())
    joules, dollars, grams = charge(state, pods, state.trace.region[pods.function])
    by_hand = money = 0.0
    for f in range(len(state.trace.names)):
        group = state.sites[state.trace.region[f]].group
        share = state.trace.memory[f] / group.device.memory
        idle, full = group.device.power.idle, group.limit
        by_hand += share * (idle * pods.seconds[f] + (full - idle) * pods.running[f])
        money += share * group.price * pods.seconds[f] / 3600
    assert joules.sum() == pytest.approx(by_hand) and dollars == pytest.approx(money)
    first = state.trace.region[pods.function] == 0
    assert grams[first].sum() == pytest.approx(joules[first].sum() / 3.6e6 * 100.0)
    rates = 3.6e6 * grams[~first] / joules[~first]
    assert min(state.sites[1].grid.values) <= rates.min() <= rates.max() <= max(state.sites[1].grid.values)


def test_a_budget_makes_every_policy_use_the_same_pod_seconds():
    ranking = fleetcast.plan(with_(plan={"budget": 1.0}), top=None)
    null = next(o for o in ranking.plans if o.plan["scale"] == {"kind": "fixed", "keep": 60.0})
    best = ranking.best
    assert best.plan["scale"]["kind"] in ("priced", "timers")
    assert best.metrics["pod_seconds"] <= null.metrics["pod_seconds"] * (1 + 1e-9)
    assert best.metrics["cold_starts"]["count"] < null.metrics["cold_starts"]["count"]
    again = fleetcast.simulate(with_().with_plan(ranking.plan))
    assert again.metrics["cold_starts"] == best.metrics["cold_starts"]


@pytest.mark.parametrize("goal", ["cold_starts", "pod_seconds", "latency", "tail", "cost", "carbon", "energy"])
def test_every_goal_ranks(goal):
    ranking = fleetcast.plan(with_(objective={"minimize": goal}, plan={"scale": ["fixed", "timers"]}), top=None)
    path = ranking.goals[0][1]
    values = [_at(outcome.metrics, path) for outcome in ranking.plans]
    assert values == sorted(values) and len(values) == 2


def _at(metrics, path):
    for part in path.split("."):
        metrics = metrics[part]
    return metrics


def test_whatif_changes_the_keep_alive(file, capsys):
    assert main(["whatif", file, "--set", "plan.scale.kind=fixed", "--set", "plan.scale.keep=600", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert "cold_starts" in json.dumps(table)


def test_out_writes_a_plan_that_loads_again(file, tmp_path, capsys):
    assert main(["plan", file, "--out", str(tmp_path / "out"), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    chosen = load(tmp_path / "out/plan.toml")
    assert chosen.plan.scale["kind"] == table["best"]["plan"]["scale"]["kind"]
    assert (tmp_path / "out/trace.json.gz").exists()


def test_nodes_that_fill_up_queue_and_end_pods():
    tight = with_(workload={"invocations": SMALL["workload"]["invocations"] | {"functions": 20},
                            "memory": "100 GB"}, plan={"route": "hash"})  # fmt: skip
    found = fleetcast.simulate(tight).metrics
    assert found["queued"] > 0 and found["ended"] > 0
    loose = fleetcast.simulate(with_(plan={"route": "hash"})).metrics
    assert loose["queued"] == 0
    assert loose["cold_starts"] == fleetcast.simulate(with_()).metrics["cold_starts"]


WRONG = [
    ("workload", "invocations", "nowhere.csv", SpecError, "nowhere.csv: cannot be read"),
    ("workload", "invocations", {"kind": "sinthetic"}, SpecError, "synthetic"),
    ("workload", "memory", "9 TB", Infeasible, r"function R\d-f\d+: memory of a pod on a node of region"),
    ("workload", "durations", "d.csv", SpecError, "workload.durations: is of a trace"),
    ("workload", "regions", [{"name": "x"}, {"name": "x"}], SpecError, "second region of that name"),
    ("workload", "regions", [{"name": "x", "on": "c"}], SpecError, r"workload.regions\[0\].on"),
    ("workload", "regions", [{"name": "x", "on": "a"}, {"name": "y", "on": "a"}], SpecError, "group of region x too"),
    ("plan", "scale", {"kind": "fixed", "kep": 1}, SpecError, "keep"),
    ("plan", "scale", [], SpecError, "plan.scale: names no policy"),
    ("plan", "scale", ["fixed", "fixed"], SpecError, "is named before"),
    ("plan", "scale", {"keep": 3}, SpecError, "plan.scale.kind: is missing"),
    ("plan", "budget", -1, SpecError, "plan.budget"),
    ("plan", "patience", "1 GB", SpecError, "plan.patience"),
    ("objective", "minimize", "speed", SpecError, "cold_starts"),
    ("slo", "e2e_p99", 1, SpecError, "limits the latency of requests"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "key", "value", "error", "said"), WRONG)
def test_nonsense_is_refused_with_the_next_step(part, key, value, error, said):
    with pytest.raises(error, match=said):
        fleetcast.plan(with_(**{part: {key: value}}))


def test_cost_without_a_price_is_refused():
    bare = with_(fleet={"groups": [{"name": "a", "devices": "1x m2-ultra"}], "price": {}},
                 workload={"regions": []}, objective={"minimize": "cost"})  # fmt: skip
    with pytest.raises(SpecError, match="m2-ultra"):
        fleetcast.plan(bare)
    assert any(remark.level == "error" for remark in fleetcast.check(bare))


def test_a_report_of_functions_is_refused(file, tmp_path):
    assert main(["plan", file, "--report", str(tmp_path / "x.html")]) == Unsupported.exit_code


def test_check_warns_of_full_nodes():
    full = with_(workload={"memory": "500 GB"}, plan={"route": "hash"})
    assert any("requests queue" in str(remark.table()) for remark in fleetcast.check(full))
    assert fleetcast.check(with_()) == []


# watch


def test_watch_finds_each_regions_part_in_what_a_run_would_have_logged(tmp_path):
    pods = play(Synthetic(functions=60, regions=3, hours=1.0, steady=0.2).invocations(4), Fixed())
    for name, text in cold_start_tables(pods).items():
        (tmp_path / f"{name}.csv").write_text(text)
    found = watch_starts(tmp_path / "starts.csv", kinds=tmp_path / "kinds.csv", requests=tmp_path / "requests.csv")
    parts = {f.who: f.values["component"] for f in found.findings if f.kind == "dominant part"}
    assert parts["region R2"] == "pod_allocation" and parts["region R3"] == "scheduling"
    assert found.starts == len(pods.start) and found.unexplained < 1e-6
    utility = next(g for g in found.groups["region"] if g.name == "R2").utility
    mine = pods.trace.region[pods.function] == 1
    assert utility == pytest.approx(float(np.median(pods.utility[mine])), rel=0.02)
    assert any(f.kind == "foreseeable" for f in found.findings)


def test_the_packaged_log_is_watched_by_name(capsys, tmp_path):
    assert main(["watch", "coldstart", "coldstarts", "--json", "--out", str(tmp_path)]) == 1
    table = json.loads(capsys.readouterr().out)
    parts = {f["who"]: f["values"]["component"] for f in table["findings"] if f["kind"] == "dominant part"}
    assert parts["region R1"] == "dependencies" and parts["region R2"] == "pod_allocation"
    assert set(table["groups"]) == {"region", "runtime", "trigger", "pool"}
    assert (tmp_path / "parts.svg").read_text().count("<rect") >= 20
    assert "rect" in draw_parts(watch_starts("coldstarts"))


def test_watch_refuses_what_is_no_log(tmp_path, capsys):
    assert main(["watch", "coldstart", str(tmp_path / "none.csv")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(["watch", "coldstart", "coldstarts", "--sure", "2"]) == 2
