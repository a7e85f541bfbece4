"""Training from the command line: exit codes, JSON for machines, calm screens at every width, whole files."""

import json
import tomllib

import pytest

import fleetcast
from fleetcast.cost.training.step import TERMS
from fleetcast.view import cli
from fleetcast.view.training import terms

SMALL = """
name = "small"
[fleet]
devices = "16x a100-80g-sxm"
[workload]
kind = "training"
model = { layers = 24, hidden = 2048, heads = 16 }
batch = 64
steps = 1000
"""
DECIDED = SMALL + "[plan]\ntensor_parallel = 2\npipeline_parallel = 2\n"
HUGE = SMALL.replace("{ layers = 24, hidden = 2048, heads = 16 }", '"gpt3-175b"')


@pytest.fixture
def write(tmp_path):
    def made(text):
        path = tmp_path / "scenario.toml"
        path.write_text(text)
        return str(path)

    return made


def run(capsys, *words):
    code = cli.main([str(w) for w in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_every_term_has_a_name():
    assert set(terms.TIMES) == set(TERMS)


def test_simulate_json_holds_what_is_promised(capsys, write):
    code, out, _ = run(capsys, "simulate", write(DECIDED), "--json")
    got = json.loads(out)
    metrics = got["metrics"]
    assert code == 0 and metrics["fits"] is True
    for name in ("iteration_time", "mfu", "hfu", "memory", "throughput", "flops", "energy", "cost", "carbon"):
        assert metrics[name] > 0, name
    assert set(metrics["breakdown"]) == set(TERMS)
    assert sum(metrics["breakdown"].values()) == pytest.approx(metrics["iteration_time"])
    assert metrics["job"]["iterations"] == 1000
    for path in ("iteration_time", "mfu", "cost", "job.time"):
        low, high = got["intervals"][path]
        assert low < high
    assert got["plan"]["data_parallel"] == 4


def test_a_plan_that_does_not_fit_prints_json_and_returns_1(capsys, write):
    code, out, _ = run(capsys, "simulate", write(HUGE), "--json")
    got = json.loads(out)
    assert code == 1 and got["metrics"]["fits"] is False and got["metrics"]["memory"] > 80e9
    code, out, _ = run(capsys, "simulate", write(HUGE))
    assert code == 1 and "Does not fit: memory of a device is 85.9 GB" in " ".join(out.split())
    code, out, _ = run(capsys, "plan", write(HUGE + "[plan]\noffload = []\n"))
    assert code == 1 and "No plan fits" in out and "Nearest:" in out


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("command", ["simulate", "plan"])
def test_screens_fit_the_terminal(capsys, write, monkeypatch, width, command):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = run(capsys, command, write(DECIDED if command == "simulate" else SMALL))
    assert code == 0 and max(map(len, out.splitlines())) <= width
    for said in ("small: train 24 layers of 2048", "iteration goes", "What binds", "Taken as given", "Products", "█"):
        assert said in out, said


def test_plan_prints_the_space_and_json_ranks(capsys, write):
    _, out, _ = run(capsys, "plan", write(SMALL), "--top", "3")
    said = " ".join(out.split())
    assert "plans divide" in said and "fit in memory; all of those were timed" in said
    code, out, _ = run(capsys, "plan", write(SMALL), "--top", "3", "--json")
    got = json.loads(out)
    times = [row["metrics"]["iteration_time"] for row in got["plans"]]
    assert code == 0 and len(times) == 3 and times == sorted(times)
    assert got["best"]["plan"] == got["plans"][0]["plan"] and got["counts"]["enumerated"] > 1000
    assert got["goals"] == ["time"]


def test_why_says_which_terms_cost_the_next_plans_their_time():
    ranking = fleetcast.plan(SMALL, top=4)
    best, other = ranking.plans[:2]
    said = terms.why(best, [other])[0]
    apart = {k: other.metrics["breakdown"][k] - best.metrics["breakdown"][k] for k in TERMS}
    worst = max(apart, key=apart.get)
    assert terms.plan_name(other.plan) in said and terms.term(worst).lower() in said
    assert f"{other.metrics['iteration_time'] / best.metrics['iteration_time'] - 1:.1%} longer" in said
    assert terms.why(best, [best]) == []


def test_the_goal_ranks(capsys, write):
    by = {}
    for goal in ("time", "energy"):
        ranking = fleetcast.plan(SMALL + f'[objective]\nminimize = "{goal}"\n', top=1)
        by[goal] = ranking.best.metrics
    assert (
        by["energy"]["energy"] <= by["time"]["energy"]
        and by["time"]["iteration_time"] <= by["energy"]["iteration_time"]
    )


def test_out_writes_the_scenario_with_its_plan(capsys, write, tmp_path):
    code, out, _ = run(capsys, "plan", write(SMALL), "--out", tmp_path / "best")
    told = out.replace("\n", "")  # a long path is folded
    assert code == 0 and "plan.toml" in told and "outcome.json" in told
    plan = tomllib.loads((tmp_path / "best" / "plan.toml").read_text())["plan"]
    best = json.loads((tmp_path / "best" / "outcome.json").read_text())["best"]
    assert plan == best["plan"]
    _, out, _ = run(capsys, "simulate", tmp_path / "best" / "plan.toml", "--json")
    assert json.loads(out)["metrics"]["iteration_time"] == best["metrics"]["iteration_time"]
    code, out, _ = run(capsys, "plan", write(SMALL), "--report", tmp_path / "r.html")
    assert code == 0 and "r.html" in out.replace("\n", "") and "<h2>Ranking" in (tmp_path / "r.html").read_text()


def test_compare_sets_two_outcomes_side_by_side(capsys, write, tmp_path):
    for name, plan in (("a", ""), ("b", 'recompute = "full"\n')):
        run(capsys, "simulate", write(DECIDED + plan), "--out", tmp_path / name)
    code, out, _ = run(capsys, "compare", tmp_path / "a" / "outcome.json", tmp_path / "b" / "outcome.json")
    assert code == 0 and "Iteration time" in out and "Recompute" in out and "breakdown" not in out.lower()


def test_questions_about_requests_are_refused(capsys, write):
    for command in (["capacity"], ["run"]):
        code, _, err = run(capsys, *command, write(DECIDED))
        assert code == 2 and "is about requests" in " ".join(err.split()), command


CHECKS = {
    "links": (
        SMALL.replace('"16x a100-80g-sxm"', '"16x rtx-4090"\nlinks.inter = "1 Gb/s"') + "[plan]\ntensor_parallel = 1\n",
        0, "starves the plan",
    ),
    "tiles": (SMALL.replace("2048", "2000"), 0, "2,048 would waste nothing"),
    "bubbles": (SMALL + "[plan]\npipeline_parallel = 16\nmicro_batch = 8\n", 0, "16 stages idle for"),
    "memory": (HUGE + "[plan]\ntensor_parallel = 1\n", 1, "does not fit: memory of a device"),
    "divisors": (SMALL + "[plan]\ntensor_parallel = 3\n", 1, "does not divide the 16 attention heads"),
    "space": (HUGE + "[plan]\noffload = []\n", 1, "no plan fits; nearest is"),
    "prices": (
        SMALL.replace("a100-80g-sxm", "mi250x-gcd") + '[plan]\ntensor_parallel = 2\n[objective]\nminimize = "cost"\n',
        1, "has no rental price",
    ),
    "positions": (HUGE.replace("gpt3-175b", "mpt-1b").replace("batch", "sequence = 4096\nbatch"), 0, "has positions"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKS)
def test_check_remarks(capsys, write, name):
    text, exit_code, said = CHECKS[name]
    code, out, _ = run(capsys, "check", write(text))
    assert said in " ".join(out.split()) and code == exit_code, out
    _, out, _ = run(capsys, "check", write(text), "--json")
    found = json.loads(out)["remarks"]
    assert all(remark["path"] and remark["text"] for remark in found)
    assert any(remark["next"] for remark in found if remark["level"] == "warning" or name != "divisors")


def test_check_finds_nothing_in_a_good_plan(capsys, write):
    code, out, _ = run(capsys, "check", write(DECIDED))
    assert code == 0 and out.startswith("ok")
