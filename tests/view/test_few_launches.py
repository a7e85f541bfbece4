"""The command line of learned searches and of several tasks: what it prints, writes and refuses."""

import json

import pytest

from fleetcast.view.cli import main

TRAIN = """
[fleet]
devices = "8x a100-80g-sxm"
[workload]
kind = "training"
model = { layers = 24, hidden = 2048, heads = 16 }
batch = 32
"""


@pytest.fixture
def train(tmp_path):
    file = tmp_path / "train.toml"
    file.write_text(TRAIN)
    return file


def test_a_learned_search_prints_its_plans_and_keeps_its_launches(train, tmp_path, capsys):
    kept = tmp_path / "launches.jsonl"
    words = ["plan", str(train), "--learned", "--evaluations", "25", "--history", str(kept)]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"]["enumerated"] == 25 == len(kept.read_text().splitlines())
    times = [row["metrics"]["iteration_time"] for row in told["plans"]]
    assert times == sorted(times)
    assert main(words) == 0
    assert "a predictor chose 25 to launch" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--evaluations", "5"], "beside --learned"),
        (["--history", "h.jsonl"], "beside --learned"),
        (["--learned", "--evaluations", "0"], "from 1"),
    ],
)
def test_options_that_go_with_nothing_are_refused(train, words, said, capsys):
    assert main(["plan", str(train), *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_requests_and_tasks_are_not_searched_so(capsys):
    for example in ("quickstart", "multitask"):
        assert main(["plan", example, "--learned"]) == 2
        assert "one model to train" in " ".join(capsys.readouterr().err.split())


def test_waves_are_printed_and_written(tmp_path, capsys):
    assert main(["plan", "multitask", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "one module at a time" in shown and "image-text/image" in shown
    told = json.loads((tmp_path / "outcome.json").read_text())
    assert told["best"]["plan"]["way"] == "waves"
    assert main(["simulate", "multitask", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["metrics"]["iteration_time"] == told["best"]["metrics"]["iteration_time"]
    assert main(["plan", "multitask", "--report", str(tmp_path / "r.html")]) == 2
    assert main(["check", "multitask"]) == 0
