"""`fleetcast collective` and `fleetcast measure collectives --over memory`: tables, JSON, bad input."""

import json

import pytest

from fleetcast.cost.collectives.fitting import Timing
from fleetcast.runtime.measure import fan_in
from fleetcast.runtime.measure.fan_in import FanIn
from fleetcast.runtime.measure.machine import this_machine
from fleetcast.view.cli import main
from tests.runtime.measure.test_fan_in import made


def said(words, capsys):
    code = main(words)
    return code, capsys.readouterr()


def test_json_ranks_gentree_first_and_never_worse(capsys):
    code, out = said(["collective", "two-nodes", "--size", "1 MiB", "--json"], capsys)
    table = json.loads(out.out)
    first, *flat = table["algorithms"]
    assert code == 0 and first["name"] == "GenTree" and table["ranks"] == 16 and len(flat) == 3
    assert all(row["time"] >= first["time"] for row in flat)
    for row in table["algorithms"]:
        # no incast on these links
        assert row["alpha_beta"] <= row["time"] and row["flows"] == pytest.approx(row["time"], rel=1e-9)
    assert table["plan"]["time"] == first["time"] and table["notes"]
    assert 0.1 < table["forecast"] / first["time"] < 20


def test_the_view_says_plan_and_assumptions(capsys):
    code, out = said(["collective", "mixed-fleet", "--size", "64MiB"], capsys)
    assert code == 0
    for text in ("GenTree", "co-located servers", "then the same way back", "assumed"):
        assert text in out.out


def test_one_group_of_a_fleet(capsys):
    code, out = said(["collective", "mixed-fleet", "--on", "h100-sxm", "--json"], capsys)
    assert code == 0 and json.loads(out.out)["ranks"] < 8


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["two-nodes", "--size", "0"], "bytes above 0"),
        (["two-nodes", "--size", "lots"], "--size"),
        (["two-nodes", "--on", "moon"], "not a group"),
        (["phone"], "2 to 1,024 devices"),
        (["nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_explained(words, text, capsys):
    code, out = said(["collective", *words], capsys)
    assert code == 2 and text in out.err and "Traceback" not in out.err


def test_measured_plans_are_shown_and_kept(capsys, tmp_path, monkeypatch):
    timings = tuple(Timing(t.algorithm, t.ranks, t.size, t.time, t.operation) for t in made())
    monkeypatch.setattr(fan_in, "measure_fan_in", lambda counts, **_: FanIn(this_machine(), timings, 3.0))
    words = ["measure", "collectives", "--over", "memory", "--out", str(tmp_path / "timings.csv")]
    code, out = said(words, capsys)
    assert code == 0 and "delta, read or written" in out.out and "alpha-beta-gamma" in out.out
    assert "other work ran" in out.out
    assert len(fan_in.read(tmp_path / "timings.csv")) == len(timings)
    code, out = said([*words[:4], "--json"], capsys)
    assert set(json.loads(out.out)["held_out"]) == {"alpha-beta", "alpha-beta-gamma", "genmodel"}
    assert said(["measure", "collectives", "--over", "memory", "--processes", "two"], capsys)[0] == 2
