"""`import fleetcast`: light, lazy, typed; the verbs take whatever describes a scenario."""

import subprocess
import sys

import pytest

import fleetcast
from fleetcast.base.errors import SpecError


def test_import_loads_no_numpy_and_nothing_of_ours():
    code = "import sys, fleetcast; print([m for m in sys.modules if m == 'numpy' or m.startswith('fleetcast.')])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_command_line_help_loads_no_numpy():
    code = (
        "import sys; from fleetcast.view.cli import main; main(['--help']); "
        "print('numpy' in sys.modules, file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.strip() == "False"


def test_names_are_listed_and_found():
    for name in fleetcast.__all__:
        assert callable(getattr(fleetcast, name))
    assert set(fleetcast.__all__) <= set(dir(fleetcast))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = fleetcast.nonsense


def test_load_takes_names_texts_tables_and_scenarios(tmp_path):
    named = fleetcast.load("quickstart")
    path = tmp_path / "mine.toml"
    path.write_text(
        '[fleet]\ndevices = "8x h100-sxm"\n[workload]\nmodel = "llama-3.1-70b"\ntrace = "azure-conv-2023"\n'
    )
    for source in (path, str(path), path.read_text(), {"fleet": {"devices": "8x h100-sxm"},
                   "workload": {"model": "llama-3.1-70b", "trace": "azure-conv-2023"}}):  # fmt: skip
        assert fleetcast.load(source).workload == named.workload
    assert fleetcast.load(named) is named
    assert fleetcast.load(named, seed=7).seed == 7


def test_a_file_wins_over_an_example_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").write_text('[fleet]\ndevices = "1x l4"\n[workload]\nmodel = "llama-3.1-8b"\n')
    assert fleetcast.load("quickstart").fleet.devices == "1x l4"


def test_neither_file_nor_example():
    with pytest.raises(SpecError, match=r"neither a file nor an example.*Did you mean 'quickstart'"):
        fleetcast.load("quickstrat")


def test_a_scenario_can_be_planned_and_its_plan_simulated():
    table = {
        "fleet": {"devices": "2x h100-sxm"},
        "workload": {
            "model": "llama-3.1-8b", "arrivals": {"kind": "poisson", "rate": 2, "requests": 50},
            "lengths": {"kind": "fixed", "prompt": 200, "output": 20},
        },
    }  # fmt: skip
    scenario = fleetcast.load(table)
    ranking = fleetcast.plan(scenario, top=3)
    again = fleetcast.simulate(scenario.with_plan(ranking.plan))
    assert all(d.before == d.after for d in fleetcast.compare(ranking.best, again))
    assert "Outcome(simulated" in repr(again) and "<table>" in again._repr_html_()
