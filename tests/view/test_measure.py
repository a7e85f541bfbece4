"""`fleetcast measure`: what it prints, writes and refuses; the machine here is made up."""

import json
import tomllib

import pytest

import fleetcast
from fleetcast.base.files import check_writable
from fleetcast.runtime.measure.machine import Machine
from fleetcast.runtime.measure.operators import UNITS, Caches, units
from fleetcast.runtime.measure.probes import PROBES
from fleetcast.runtime.measure.profile import Readings, profile
from fleetcast.view import cli, verbs


@pytest.fixture
def measured(monkeypatch):
    """Stands in for the real measurement; returns how often it was asked."""
    machine = Machine(name="Made-up", vendor="none", cores=2, memory=16e9, own=1e6, last=16e6, clock=3e9)
    seconds = (units(PROBES, Caches(1e6, 16e6)) @ list(UNITS.values())).tolist()
    asked = []

    def measure(device="cpu", *, quick=None, threads=None, progress=None):
        asked.append(device)
        return profile(machine, Readings(tuple(seconds), {"product": 2.0, "copy": 1.5}, 0.0, 2.0))

    monkeypatch.setattr(verbs, "measure", measure)
    return asked


def run(capsys, *words):
    code = cli.main([str(w) for w in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_people_see_figures_with_intervals_and_what_to_do_next(capsys, measured):
    code, out, err = run(capsys, "measure")
    text = " ".join(out.split())
    assert (code, err) == (0, "")
    for said in ("made-up-2-cores", "fp32 products", "GFLOP/s to", "2 cores do the work of 2.00 (products)",
                 "other work ran (load 2.0 per core)", "power is not measured", "--out profile.toml"):  # fmt: skip
        assert said in text


def test_json_is_the_file_s_table(capsys, measured, tmp_path):
    path = tmp_path / "deep" / "profile.toml"
    code, out, _ = run(capsys, "measure", "--json", "--out", path)
    assert code == 0 and json.loads(out) == tomllib.loads(path.read_text())
    assert {"device", "coefficients", "measured"} == set(json.loads(out))
    assert len(json.loads(out)["measured"]["probes"]) == 10
    assert [p.name for p in path.parent.iterdir()] == ["profile.toml"], "no half-written file is left"


def test_a_measured_file_simulates(capsys, measured, tmp_path):
    run(capsys, "measure", "--out", tmp_path / "profile.toml")
    text = verbs.example("phone").read_text().replace("snapdragon-8-gen-3", "./profile.toml")
    (tmp_path / "phone.toml").write_text(text)
    code, out, err = run(capsys, "simulate", tmp_path / "phone.toml", "--json")
    assert (code, err) == (0, "") and json.loads(out)["metrics"]["throughput"] > 0


def test_what_cannot_be_written_is_refused_before_anything_is_measured(capsys, measured, tmp_path):
    (tmp_path / "file").write_text("")
    for path, says in ((tmp_path / "file" / "profile.toml", "cannot be written"), (tmp_path, "is a folder")):
        code, out, err = run(capsys, "measure", "--out", path)
        assert (code, out) == (2, "") and says in " ".join(err.split()) and "next" in err
    assert measured == []
    check_writable(tmp_path / "new.toml")
    assert not (tmp_path / "new.toml").exists()


def test_only_this_machine_s_processor_can_be_measured(capsys):
    code, out, err = run(capsys, "measure", "h100-sxm", "--json")
    assert (code, err) == (2, "") and "no probes for 'h100-sxm'" in json.loads(out)["error"]["message"]
    assert "measure" in fleetcast.__all__
