"""What the terminal shows and writes of streams."""

import json
from pathlib import Path

import pytest

from fleetcast.runtime.stream.costs import line
from fleetcast.scenario.load import dump
from fleetcast.view import verbs
from fleetcast.view.cli import main

METRICS = ("power", "f1", "productivity", "latency")


def test_simulate_prints_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "trigger", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert all(isinstance(metrics[name], float) for name in METRICS)
    assert main(["simulate", "cameras"]) == 0
    shown = capsys.readouterr().out
    for said in ("cameras: filter at cameras", "Productivity", "Where the power goes", "cameras > edge", "Interesting"):
        assert said in shown


def test_plan_ranks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", "cameras", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert shown.index("filter at cameras") < shown.index("filter at edge") < shown.index("no filter")
    assert "4 plans, all simulated" in shown
    ranking = json.loads((tmp_path / "outcome.json").read_text())
    assert main(["simulate", str(tmp_path / "plan.toml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == ranking["best"]["metrics"]
    assert ranking["best"]["plan"]["filter"] == "cameras"
    assert main(["plan", "trigger", "--json", "--top", "0"]) == 0
    assert len(json.loads(capsys.readouterr().out)["plans"]) == 8
    assert main(["plan", "trigger", "--report", "r.html"]) == 2


def test_simulate_leaves_a_timeline(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["simulate", "cameras", "--out", str(tmp_path)]) == 0
    assert "wrote" in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} == {"plan.toml", "outcome.json", "trace.json.gz"}


def test_a_plan_finds_its_files_where_it_is_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    (home / "s.csv").write_text("score,label\n0,0\n1,1\n2,1\n")
    (home / "line.toml").write_text(
        '[workload]\nkind = "stream"\nnodes = [{ name = "a", to = "b", rate = 10, size = 8 }, '
        '{ name = "b", ratio = 4, op_energy = 1, classifier = { kind = "scores", file = "s.csv" } }]\n'
    )
    assert main(["plan", str(home / "line.toml"), "--out", str(out), "--json"]) == 0
    best = json.loads(capsys.readouterr().out)["best"]
    assert best["plan"]["use"], "an improvement that the search made up"
    assert main(["simulate", str(out / "plan.toml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == best["metrics"]


def test_check_says_what_is_doubtful(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["check", "cameras"]) == 0
    assert "nothing to remark" in capsys.readouterr().out
    file = tmp_path / "busy.toml"
    file.write_text(
        '[workload]\nkind = "stream"\nnodes = [{ name = "a", to = "b", rate = 10, size = 8 }, '
        '{ name = "b", ratio = 4, time = "1 s" }]\n[workload.classifiers.idle]\nskill = 2\n'
    )
    assert main(["check", str(file)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for said in ("gets 10 times what it can do", "goes on at random", "is not used"):
        assert said in shown
    file.write_text('[workload]\nkind = "stream"\nnodes = [{ name = "a", to = "b", rate = 10, size = 8 }]\n')
    assert main(["check", str(file)]) == 1


def test_run_runs_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "line.toml"
    file.write_text(dump(line(4096, 1.0, 4.0, rate=1000.0, samples=200)))
    assert main(["run", str(file), "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["source"] == "measured"
    assert outcome["metrics"]["input_rate"] > 0
    assert main(["run", str(file), "--speed", "2"]) == 2


def test_what_if_shows_what_changes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whatif", "cameras", "--set", "workload.filter.ratio=10"]) == 0
    shown = capsys.readouterr().out
    for said in ("cameras: a sensor pipeline.", "Power", "Recall", "Samples stored"):
        assert said in shown


def test_verbs_that_streams_do_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "trigger", "--to", "vllm"]) == 2
    assert "a sensor pipeline" in capsys.readouterr().err


def test_more_power_than_the_budget_is_remarked() -> None:
    assert [remark.path for remark in verbs.check("trigger")] == ["fleet.budget"]
