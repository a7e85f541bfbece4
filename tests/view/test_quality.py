"""`fleetcast measure quality`: what it prints, writes and refuses; the model here is a test's own."""

import json
import tomllib

import pytest

from fleetcast.runtime.measure import quality
from fleetcast.scenario.load import load
from fleetcast.scenario.workload.quality import scores_of
from fleetcast.sim.serving.setting import setting
from fleetcast.view import cli
from fleetcast.view.outputs import rebased
from tests.runtime.measure.quality.echoes import Knowing


@pytest.fixture
def knows_cooking(monkeypatch):
    """Stands in for a model: knows how to cook, says "A" to all else."""

    def judge_folder(folder, items, *, device="", model="", dtype="auto", **settings):
        meter = quality.Meter(quality.watts_of(device))
        meter.weights, meter.cache_token = 1e6, 100.0
        scorer = Knowing(items, lambda item: item.field == "cooking")
        return quality.judge(scorer, items, model=model or folder.name, dtype="bf16", meter=meter, **settings)

    monkeypatch.setattr(quality, "judge_folder", judge_folder)


def run(capsys, *words):
    code = cli.main([str(w) for w in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_people_see_the_score_beside_chance_and_what_order_did(capsys, knows_cooking):
    code, out, err = run(capsys, "measure", "quality", "there/cook", "--fields", "cooking,travel")
    text = " ".join(out.split())
    assert (code, err) == (0, "")
    for said in ("cook in bf16: 152 questions", "each in 4 orders", "right answers", "guessing 25.0%", "above it",
                 "right in every order", "letters picked A", "cooking 70 100%", "travel 82 25%", "estimated: seconds x",
                 "weights 1 MB", 'workload.quality = "quality.json"'):  # fmt: skip
        assert said in text, said


def test_json_is_what_is_written_and_what_a_scenario_reads(capsys, knows_cooking, tmp_path):
    path, answers, details = tmp_path / "q.json", tmp_path / "answers.csv", tmp_path / "details.json"
    code, out, _ = run(
        capsys, "measure", "quality", tmp_path, "--model", "llama-3.1-8b", "--fields", "cooking", "--json",
        "--out", path, "--answers", answers, "--details", details, "--orders", "all", "--device", "a17-pro",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out) == json.loads(path.read_text())
    (score,) = scores_of("q.json", "other", tmp_path)
    assert (score.model, score.dtype, score.quality, score.items) == ("llama-3.1-8b", "bf16", 1.0, 70)
    assert answers.read_text().startswith("question_id,predicted_answer\nrecipe-01,")
    rows = json.loads(details.read_text())["items"]
    assert len(rows) == 70
    assert {"score", "picks", "seconds", "joules", "cache_bytes"} <= set(rows[0])
    assert "a17-pro" in json.loads(out)["costs"]["method"]
    (tmp_path / "s.toml").write_text(
        '[fleet]\ndevices = "1x h100-sxm"\n[workload]\nmodel = "llama-3.1-8b"\ntrace = "azure-conv-2023"\n'
        'requests = 20\nquality = "q.json"\n[slo]\nquality = 0.9\n'
    )
    assert setting(load(tmp_path / "s.toml")).scores == (score,)
    code, out, _ = run(capsys, "plan", tmp_path / "s.toml")
    assert code == 0
    assert "wrong answers" in out
    code, out, _ = run(capsys, "plan", tmp_path / "s.toml", "--out", tmp_path / "plan", "--report", tmp_path / "r.html")
    assert code == 0
    code, out, _ = run(capsys, "simulate", tmp_path / "plan" / "plan.toml")
    assert (code, "100.0%" in out) == (0, True)
    assert tomllib.loads((tmp_path / "plan" / "plan.toml").read_text())["workload"]["quality"] == "../q.json"


def test_a_written_plan_finds_the_files_that_its_scenario_named(tmp_path):
    (tmp_path / "loads.csv").write_text("x")
    (tmp_path / "q.json").write_text("{}")
    both = ["q.json", {"dtype": "fp8", "quality": 0.5}]
    table = {"model": "mixtral-8x7b", "trace": "azure-conv-2023", "expert_load": "loads.csv", "quality": both}
    (tmp_path / "s.json").write_text(json.dumps({"fleet": {"devices": "1x h100-sxm"}, "workload": table}))
    found = rebased(load(tmp_path / "s.json"), tmp_path / "plan").workload
    assert found.expert_load == "../loads.csv"
    assert found.quality[0] == "../q.json"
    assert found.quality[1].quality == 0.5


def test_questions_without_a_key_are_answered_and_not_scored(capsys, knows_cooking, tmp_path):
    items, key = tmp_path / "cooking.csv", tmp_path / "key.csv"
    items.write_text("question_id,Question,A,B,C,D\nq1,?,one,two,three,four\n")
    key.write_text("question_id,answer\nq1,B\n")
    code, out, _ = run(capsys, "measure", "quality", tmp_path, "--items", items, "--key", key)
    assert (code, "100.0%" in out) == (0, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "asks one model"),
        (("here", "--url", "http://there"), "asks one model"),
        (("--url", "http://there", "--by", "texts"), "cannot be asked of a server"),
        (("here", "--fields", "coking"), "Did you mean 'cooking'"),
        (("here", "--items", "none.csv"), "is not a file"),
        (("here", "--device", "abacus"), "is not a device"),
        (("here", "--orders", "random"), "orders"),
    ],
)
def test_what_cannot_be_asked_is_named(capsys, knows_cooking, words, said):
    code, out, err = run(capsys, "measure", "quality", *words)
    assert (code, out) == (2, "")
    assert said in " ".join(err.split())
