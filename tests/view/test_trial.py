"""`fleetcast measure app`: what it prints, writes and refuses; the cells here are a test's own."""

import json
from pathlib import Path

import pytest

from fleetcast.runtime.measure.trial import Cell, small
from fleetcast.search.tiers import trial
from fleetcast.view import cli
from tests.search.test_trial import answers, known


@pytest.fixture
def emulated(monkeypatch):
    """Stands in for models, processes and tiers."""
    monkeypatch.setattr(small, "trained", lambda size, folder, progress: Path(size.name))
    monkeypatch.setattr(trial, "calibrate", lambda name, folder, before, **_: known(name))

    def cell(folder, name, tier, asked, **_):
        if (name, tier.name) == ("large", "device"):
            return Cell(tier.name, name, refusal="does not fit")
        return Cell(tier.name, name, answers(0.1, 0.2, 0.3), {"mapped": 5e7}, "cgroup1")

    monkeypatch.setattr(trial, "measure_cell", cell)


def run(capsys, *words):
    code = cli.main([str(w) for w in words])
    out, err = capsys.readouterr()
    return code, " ".join(out.split()), err


def test_people_see_every_cell_beside_its_forecast(capsys, emulated):
    code, text, err = run(capsys, "measure", "app", "--tiers", "--quick", "--logs", 9)
    assert (code, err) == (0, "")
    for said in ("9 sensor logs told as contexts", "device large - does not fit", "cloud", "100%", "200 ms",
                 "logs are synthetic", "tiers are emulated", "behind 5g"):  # fmt: skip
        assert said in text, said


def test_without_tiers_the_machine_is_tried_as_it_is(capsys, emulated, tmp_path):
    code, text, _ = run(capsys, "measure", "app", "--quick", "--logs", 3, "--out", tmp_path / "trial.json")
    assert code == 0
    table = json.loads((tmp_path / "trial.json").read_text())
    assert [row["tier"] for row in table["cells"]] == ["here"] * 3
    assert table["synthetic"] is True
    assert "device" not in text


def test_no_logs_are_refused(capsys, emulated):
    code, _, err = run(capsys, "measure", "app", "--logs", 0)
    assert code == 2
    assert "--logs" in err
