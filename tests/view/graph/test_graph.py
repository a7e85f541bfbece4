"""A graph from file to screen: commands, what they write, checks, what-ifs, refusals."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import fleetcast
from fleetcast.base.errors import FleetcastError, SpecError
from fleetcast.base.record import Record
from fleetcast.scenario.load import dump, load
from fleetcast.view import verbs
from fleetcast.view.cli import main
from fleetcast.view.graph.timeline import lanes, letters, short

TABLE: dict[str, Any] = {
    "fleet": {"groups": [{"name": "node", "devices": "1x xeon-8480 + 2x a100-40g-pcie", "link": "pcie-4"}]},
    "workload": {"kind": "graph", "graph": {"kind": "cholesky", "tiles": 6, "tile": 960}, "home": "xeon-8480"},
    "plan": {"workers": {"xeon-8480": 4}},
}


def changed(**parts: Any) -> dict[str, Any]:
    return {key: TABLE[key] | parts.get(key, {}) for key in TABLE} | {
        key: value for key, value in parts.items() if key not in TABLE
    }


def test_simulate_prints_the_metrics_that_scripts_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "graph", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    metrics = told["metrics"]
    assert 0 < metrics["lower_bound"] <= metrics["makespan"]
    assert metrics["energy"] > 0
    assert metrics["moved_bytes"] > 0
    assert told["plan"]["order"] == {"kind": "heft"}
    assert sum(row["tasks"] for row in told["resources"]) == metrics["tasks"] == 1540
    assert sum(told["breakdown"]["energy"].values()) == pytest.approx(metrics["energy"])
    busy = sum(row["busy"] for row in told["resources"]) * metrics["makespan"]
    assert sum(told["breakdown"]["time"].values()) == pytest.approx(busy)


def test_plan_ranks_every_order_beside_the_null(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "graph-workflow", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    spans = [row["metrics"]["makespan"] for row in told["plans"]]
    assert spans == sorted(spans)
    assert {"fifo", "heft", "critical_path"} <= {row["plan"]["order"]["kind"] for row in told["plans"]}
    assert main(["plan", "graph-workflow"]) == 0
    shown = capsys.readouterr().out
    assert "Best: " in shown
    assert "First come, first served takes" in shown
    assert "no order ends before" in " ".join(shown.split())


def test_the_best_orders_are_shown_beside_the_null() -> None:
    rows = fleetcast.plan(load(TABLE))
    for top in range(1, len(rows.plans) + 1):
        kinds = [row.plan["order"]["kind"] for row in fleetcast.plan(load(TABLE), top=top).plans]
        assert kinds[:top] == [row.plan["order"]["kind"] for row in rows.plans[:top]]
        assert kinds.count("fifo") == 1


def test_what_nobody_would_wait_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetcast.search.graphs.ranking.MOST_PLAYED", 100)
    with pytest.raises(SpecError, match="policies would be played on 56 tasks"):
        fleetcast.plan(load(TABLE))
    asked = changed(plan={"order": ["fifo", "heft"]})
    assert len(fleetcast.plan(load(asked)).plans) == 2


def test_a_legend_shortens_the_names_of_workflows() -> None:
    assert short("NFCORE_RNASEQ:RNASEQ:ALIGN_STAR:STAR_ALIGN") == "STAR_ALIGN"
    assert short("GEMM") == "GEMM"
    long = short("a_kernel_with_a_very_long_name_indeed")
    assert long == "a_kernel_w…me_indeed"
    assert short("odd:") == "odd:"


def test_what_a_plan_names_is_what_is_ranked() -> None:
    found = fleetcast.plan(changed(plan={"order": ["fifo", {"kind": "heft"}]}))
    assert {o.plan["order"]["kind"] for o in found.plans} == {"fifo", "heft"}
    assert fleetcast.simulate(changed(plan={"order": "fifo"})).plan["order"] == {"kind": "fifo"}
    assert "best heft" in repr(found)
    least = fleetcast.plan(changed(objective={"minimize": "bytes"}))
    moved = [o.metrics["moved_bytes"] for o in least.plans]
    assert moved == sorted(moved)


def test_out_leaves_a_plan_that_simulates_alike_and_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "graph-workflow", "--out", str(tmp_path)]) == 0
    assert "wrote" in capsys.readouterr().out
    first = json.loads((tmp_path / "outcome.json").read_text())
    again = fleetcast.simulate(tmp_path / "plan.toml")
    assert again.metrics["makespan"] == first["metrics"]["makespan"]
    events = json.loads(gzip.decompress((tmp_path / "trace.json.gz").read_bytes()))["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    assert len(spans) == first["metrics"]["tasks"] + first["metrics"]["messages"]
    assert {"align", "data", "input"} <= {e["name"] for e in spans}
    assert main(["plan", "graph-workflow", "--out", str(tmp_path)]) == 0


def test_the_record_changes_no_result_and_holds_every_span() -> None:
    plain, kept = fleetcast.simulate(TABLE), fleetcast.simulate(TABLE, record=True)
    assert plain.metrics == kept.metrics or plain.metrics["cost"] != plain.metrics["cost"]
    assert plain.record is None
    assert kept.record is not None
    assert float((kept.record.time + kept.record.duration).max()) == kept.metrics["makespan"]


def test_a_scenario_is_written_and_read_back() -> None:
    for name in ("graph", "graph-workflow"):
        scenario = verbs.load(name)
        again = msgspec.structs.replace(load(dump(scenario)), folder=scenario.folder)
        assert again == scenario


def test_a_what_if_of_a_quicker_link_shortens_nothing_below_the_bound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whatif", "graph-workflow", "--set", "fleet.network=ethernet-10g", "--how", "simulate"]) == 0
    shown = capsys.readouterr().out
    assert "Makespan" in shown
    assert "Moved" in shown


@pytest.mark.parametrize(("parts", "said"), [
    ({"workload": {"graph": {"kind": "cholesky", "tiles": 1}}}, "workers busy on average"),
    ({"workload": {"graph": {"kind": "layered", "tasks": 40, "width": 40}}}, "have neither parent nor child"),
    ({"workload": {"graph": {"kind": "cholesky", "tiles": 3, "tile": 120000}}, "plan": {"workers": {}}},
     "need more memory than"),
    ({"workload": {"graph": {"kind": "stencil"}}}, "placement matters more than order"),
    ({"objective": {"minimize": "cost"}}, "has no rental price"), ({"plan": {"order": "hefty"}}, "Did you mean 'heft'"),
    ({"workload": {"graph": "none.json"}}, "is not a file"),
    ({"workload": {"graph": {"kind": "cholesky", "tiles": 2, "tile": 400000}}}, "does not fit: memory of task"),
])  # fmt: skip
def test_checks_say_what_is_wrong_or_doubtful(parts: dict[str, Any], said: str) -> None:
    assert any(said in remark.text or said in remark.next for remark in verbs.check(changed(**parts)))


def test_a_fine_scenario_has_no_remarks() -> None:
    assert verbs.check("graph-workflow") == []


@pytest.mark.parametrize(("parts", "said"), [
    ({"workload": {"graph": ...}}, "workload.graph: is missing"), ({"workload": {"graph": 7}}, "workload.graph"),
    ({"workload": {"graph": {"kind": "choleski"}}}, "Did you mean 'cholesky'"),
    ({"workload": {"graph": {"kind": "cholesky", "tiles": 0}}}, r"workload.graph.tiles: is out of range"),
    ({"workload": {"graph": {"kind": "cholesky", "tile": "big"}}}, "workload.graph.tile"),
    ({"workload": {"graph": {"tiles": 4}}}, "workload.graph.kind: is missing"),
    ({"workload": {"grph": 1}}, "Did you mean 'graph'"),
    ({"workload": {"speeds": {"xeon-8480": 0}}}, "workload.speeds"),
    ({"workload": {"dtype": "fp65"}}, "is no format that xeon-8480 multiplies"),
    ({"plan": {"order": []}}, "plan.order: names no policy"),
    ({"plan": {"order": {"rank": 1}}}, "plan.order.kind: is missing"),
    ({"plan": {"workers": {"xeon-8480": 0}}}, "plan.workers"),
    ({"plan": {"replicas": 1}}, "plan.replicas: is not a key here"), ({"slo": {"ttft_p99": 1}}, "a graph has none"),
    ({"objective": {"minimize": "latency"}}, "objective.minimize: is unknown"),
    ({"objective": {"minimize": "cost"}}, "needs a price"),
    ({"plan": {"order": "json:JSONDecoder"}}, "has no method start"),
])  # fmt: skip
def test_what_cannot_be_is_refused_by_key(parts: dict[str, Any], said: str) -> None:
    table = changed(**parts)
    table["workload"] = {k: v for k, v in table["workload"].items() if v is not ...}
    with pytest.raises(FleetcastError, match=said):
        verbs.plan(table)


def test_other_verbs_say_that_they_are_not_of_graphs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "graph", "--to", "vllm"]) == 2
    assert "a graph of tasks" in capsys.readouterr().err
    assert main(["plan", "graph", "--report", "x.html"]) == 2


def test_lanes_show_the_kernel_that_fills_most_of_a_column() -> None:
    assert letters(["GEMM", "GETRF", "E"]) == {"GEMM": "G", "GETRF": "E", "E": "A"}
    time, length = np.array([0.0, 2.0, 3.0]), np.array([2.0, 1.0, 1.0])
    who, what = np.array([0, 0, 1], np.int32), np.array([0, 1, 0], np.int32)
    record = Record(time, length, who, what, *(np.ones(3, np.int64),) * 2, np.zeros(3), ("x", "y"), ("GEMM", "E"))
    assert lanes(record, 2, ["GEMM", "E"], 4) == ["GGE·", "···G"]


def test_a_graph_too_large_for_any_device_exits_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = dump(load(changed(workload={"graph": {"kind": "cholesky", "tiles": 2, "tile": 400000}})))
    (tmp_path / "big.toml").write_text(text)
    assert main(["simulate", str(tmp_path / "big.toml")]) == 1
    assert "does not fit: memory of task" in " ".join(capsys.readouterr().err.split())


def test_errors_of_a_file_name_it_as_the_scenario_does(tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text('{"workflow": {}}')
    (tmp_path / "s.toml").write_text(dump(load(changed(workload={"graph": "w.json", "home": ""}))))
    with pytest.raises(SpecError, match=r"^w.json.workflow.specification: is missing"):
        fleetcast.simulate(tmp_path / "s.toml")


def test_a_graph_that_takes_no_time_is_ranked_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [{"id": "a", "name": "a", "parents": [], "children": []}]
    ran = {"makespanInSeconds": 0, "executedAt": "2020", "tasks": [{"id": "a", "runtimeInSeconds": 0}]}
    flow: dict[str, Any] = {"name": "x", "schemaVersion": "1.5"}
    flow["workflow"] = {"specification": {"tasks": tasks, "files": []}, "execution": ran}
    (tmp_path / "nothing.json").write_text(json.dumps(flow))
    file = tmp_path / "nothing.toml"
    file.write_text('[fleet]\ndevices = "2x xeon-8480"\n[workload]\nkind = "graph"\ngraph = "nothing.json"\n')
    assert main(["plan", str(file)]) == 0
    said = capsys.readouterr().out
    assert "1 task and 0 edges" in said
    assert "every order ends at once" in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("speeds = { xeon-8480 = -1 }", ("workload.speeds.xeon-8480: is out of range", "value -1")),
        ("[plan]\nworkers = { xeon-8480 = 0 }", ("plan.workers.xeon-8480: is out of range", "value 0")),
        ('dtype = "fp33"', ("workload.dtype: is no format that xeon-8480 multiplies", "value 'fp33'")),
        ('[plan]\norder = ["heft", "fifo", "heft"]', ("plan.order[2]: is named before", "value 'heft'")),
        ('grap = "x"', ("workload.grap: is not a key here", "Did you mean 'graph'?")),
        ('[objective]\nmaximize = "throughput"', ("objective.maximize: is not asked here", "minimize = one of time")),
    ],
)  # fmt: skip
def test_errors_name_the_entry_its_value_and_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, said: tuple[str, ...]
) -> None:
    file = tmp_path / "bad.toml"
    start = '[fleet]\ndevices = "2x xeon-8480"\n[workload]\nkind = "graph"\ngraph = { kind = "cholesky", tiles = 2 }\n'
    file.write_text(start + more)
    assert main(["plan", str(file)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert all(part in told for part in said)


def test_a_misspelt_kind_is_named_before_a_fleet_is_missed() -> None:
    with pytest.raises(SpecError, match=r"workload\.kind: is unknown"):
        load({"workload": {"kind": "strem"}})
