"""What the engine's profile and collectives look like to people, and the command line around them."""

import json
import tomllib

import pytest

from fleetcast.runtime.measure.engine_profile import engine_profile
from fleetcast.view import cli, verbs
from tests.runtime.measure.test_fitting import MACHINE, said


@pytest.fixture
def measured(monkeypatch):
    """Stands in for the real measurement; returns what it was asked."""
    asked, profile = [], engine_profile(MACHINE, said(), load=2.0)
    monkeypatch.setattr(verbs, "measure", lambda device, **settings: asked.append(settings) or profile)
    return asked


def run(capsys, *words):
    code = cli.main([str(w) for w in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_people_see_roofs_products_and_how_far_forecasts_were_off(capsys, measured):
    code, out, err = run(capsys, "measure", "--threads", "2")
    text = " ".join(out.split())
    assert (code, err) == (0, "") and measured[0]["threads"] == 2 and measured[0]["quick"] is None
    for words in ("read, 2 threads 20 GB/s 19 GB/s", "Rows fp32 bf16", "GFLOP/s", "fp32 2.0% 0.0% 0.0%",
                  "280 us per iteration", "20 us per sequence", "other work ran (load 2.0 per core)",
                  "power is not measured", "--out profile.toml"):  # fmt: skip
        assert words in text, words


def test_json_is_the_file_s_table(capsys, measured, tmp_path):
    path = tmp_path / "profile.toml"
    code, out, _ = run(capsys, "measure", "--json", "--out", path)
    assert code == 0 and json.loads(out) == tomllib.loads(path.read_text())
    assert json.loads(out)["measured"]["held_out"]["fp32"]["median"] < 1e-6


def test_quick_is_passed_on(capsys, measured):
    run(capsys, "measure", "--quick")
    assert measured[0]["quick"] is True


def test_collectives_show_both_fits(capsys, monkeypatch, tmp_path):
    from fleetcast.runtime.measure import collectives
    from tests.scenario.test_measured_links import measured as link

    asked = []
    monkeypatch.setattr(collectives, "measure_collectives", lambda counts, **_: asked.append(counts) or link())
    code, out, err = run(capsys, "measure", "collectives", "--processes", "2,4", "--out", tmp_path / "links.toml")
    text = " ".join(out.split())
    assert (code, err, asked) == (0, "", [[2, 4]])
    for words in ("all_reduce, 2 1 ms", "send, 4 1 ms", "Off by Curve", "wrote"):
        assert words in text, words
    assert tomllib.loads((tmp_path / "links.toml").read_text())["link"]["id"] == "made-up-4-cores-gloo"
    code, out, _ = run(capsys, "measure", "collectives", "--json")
    assert code == 0 and set(json.loads(out)) == {"link", "collectives", "measured"}


def test_processes_that_are_no_numbers_are_refused(capsys):
    code, _, err = run(capsys, "measure", "collectives", "--processes", "2,many")
    assert code == 2 and "--processes" in err and "many" in err


def test_more_threads_than_cores_are_refused(capsys):
    code, _, err = run(capsys, "measure", "--quick", "--threads", "9999")
    assert code == 2 and "threads" in err
