"""Calibration of training: a practice is found again in synthetic iterations, and errors are of rows held out.

The iterations are synthetic: the model's own times under another practice, with noise of 3 %.
"""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

import fleetcast
from fleetcast.base.errors import SpecError
from fleetcast.cost.training import system as systems
from fleetcast.cost.training.step import step
from fleetcast.scenario.load import load
from fleetcast.sim.training.completing import columns, complete
from fleetcast.sim.training.setting import practice_at, setting
from fleetcast.view import cli
from fleetcast.view.training.measurements import fitted, measured, toml

BASE = {
    "fleet": {"devices": "32x a100-80g-sxm"},
    "workload": {"kind": "training", "model": {"layers": 24, "hidden": 2048, "heads": 16}, "batch": 64},
    "plan": {"zero": 0, "sequence_parallel": False, "recompute": "full"},
}
NOISE = 0.03


@pytest.fixture(scope="module")
def truth():
    known = systems.practice_of("a100-80g-sxm", "ampere")
    return replace(known, gemm=1.5 * known.gemm, tensor=2.0 * known.tensor, data=0.6 * known.data)


@pytest.fixture(scope="module")
def file(tmp_path_factory, truth):
    rng = np.random.default_rng(7)
    rows = []
    for devices in (16, 32, 64):
        for hidden, heads in ((2048, 16), (4096, 32)):
            for tensor in (1, 2, 4, 8):
                for micro in (1, 2):
                    row = {
                        "devices": devices, "hidden": hidden, "heads": heads, "layers": 24, "batch": 64,
                        "tensor_parallel": tensor, "micro_batch": micro if devices // tensor * micro <= 64 else 1,
                    }  # fmt: skip
                    table = {
                        "fleet": {"devices": f"{devices}x a100-80g-sxm"},
                        "workload": BASE["workload"] | {"model": {"layers": 24, "hidden": hidden, "heads": heads}},
                        "plan": BASE["plan"] | {"tensor_parallel": tensor, "micro_batch": row["micro_batch"]},
                    }
                    state = setting(load(table))
                    plan = complete(state, state.scenario.plan).plan
                    system = replace(state.system, practice=truth)
                    time = float(step(state.network, state.job(plan.dtype), columns(plan), system)["total"][0])
                    rows.append(row | {"iteration_time": time * float(np.exp(rng.normal(0.0, NOISE)))})
    path = tmp_path_factory.mktemp("runs") / "iterations.csv"
    with path.open("w", newline="") as out:
        made = csv.DictWriter(out, list(rows[0]))
        made.writeheader()
        made.writerows(rows)
    return path


@pytest.fixture(scope="module")
def found(file):
    return fitted([file], load(BASE))


def test_the_factors_that_made_the_times_are_found_again(found, truth):
    assert found.rows == 48
    assert found.practice.gemm == pytest.approx(truth.gemm, rel=0.1)
    assert found.practice.tensor == pytest.approx(truth.tensor, rel=0.25)
    low, high = found.intervals["gemm"]
    assert low < truth.gemm < high
    assert found.seen < 1.5 * NOISE < found.first, "the old practice is off by more than the noise"


def test_errors_are_of_rows_held_out_and_stand_beside_one_constant_speed(found):
    splits = {split.name: split for split in found.splits}
    assert set(splits) == {"random halves", "model size", "devices"}
    assert splits["random halves"].rows == 5 * 24 and splits["model size"].rows == splits["devices"].rows == 48
    for split in splits.values():
        assert split.mean < 0.12 and split.mean < split.null, split
        assert split.median <= split.worst
    assert splits["random halves"].mean < 2 * NOISE


def test_the_interval_is_that_of_rows_held_out(found):
    assert 0.5 * NOISE < found.practice.spread < 4 * NOISE
    assert found.practice.source == "48 iterations of iterations.csv"


def test_a_scenario_names_the_file_and_its_forecast_follows(found, file, tmp_path, truth):
    (tmp_path / "practice.toml").write_text(toml(found))
    table = BASE | {"plan": BASE["plan"] | {"tensor_parallel": 4, "practice": "practice.toml"}}
    scenario = tmp_path / "train.json"
    scenario.write_text(json.dumps(table))
    before = fleetcast.simulate(BASE | {"plan": BASE["plan"] | {"tensor_parallel": 4}})
    after = fleetcast.simulate(scenario)
    assert after.metrics["iteration_time"] > 1.1 * before.metrics["iteration_time"]
    assert any("48 iterations of iterations.csv" in note for note in after.notes)
    low, high = after.intervals["iteration_time"]
    assert np.log(high / low) / 2 == pytest.approx(1.2815515655 * found.practice.spread, rel=1e-4)
    best = fleetcast.plan(scenario, top=1).best
    assert best.plan["practice"] == "practice.toml"
    assert cli.main(["simulate", str(scenario), "--out", str(tmp_path / "deep" / "out")]) == 0
    again = fleetcast.simulate(tmp_path / "deep" / "out" / "plan.toml")
    assert again.metrics["iteration_time"] == after.metrics["iteration_time"], "paths are moved with the file"


def test_the_command_fits_prints_and_writes(file, tmp_path, capsys):
    base = tmp_path / "base.json"
    base.write_text(json.dumps(BASE))
    out = tmp_path / "practice.toml"
    assert cli.main(["calibrate", str(file), "--scenario", str(base), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "48 measured iterations" in said and "random halves" in said and "One constant speed" in said
    assert practice_at(out).gemm > 0
    assert cli.main(["calibrate", str(file), "--scenario", str(base), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["held_out"]) == 3


def test_rows_are_read_by_path_by_name_and_from_json(tmp_path):
    rows = [
        {"plan.tensor_parallel": 2, "workload.batch": 128, "iteration_time_ms": 1500, "note": "cold"},
        {"model": "megatron-1.7b", "devices": 16, "iteration_time": 2.0, "sequence": ""},
        {"fleet.links.inter": "100 Gb/s", "iteration_time": 3.0, "hidden": 1024, "layers": 12, "heads": 16},
    ]
    path = tmp_path / "runs.json"
    path.write_text(json.dumps(rows))
    first, second, third = measured(path, load(BASE))
    assert first.seconds == 1.5 and first.plan.tensor_parallel == 2 and first.state.workload.batch == 128
    assert second.state.model.id == "megatron-1.7b" and second.state.group.count == 16
    assert third.state.group.network.bandwidth == 12.5e9 and third.state.network.hidden == 1024


WRONG = {
    "tensor_paralel,iteration_time\n2,1\n": (r"row 2, column tensor_paralel", "Did you mean 'tensor_parallel'"),
    "tensor_parallel,iteration_time\n2,-1\n": (r"row 2, column iteration_time", "above 0"),
    "tensor_parallel,iteration_time\n2,soon\n": (r"column iteration_time: is no time", "soon"),
    "tensor_parallel\n2\n": ("row 2: has no time", "iteration_time"),
    "tensor_parallel,iteration_time\n2,1\n2,1\n": ("at least 4", "Measure more"),
    "batch,iteration_time\nmany,1\n": ("row 2: workload.batch: is text", "whole number"),
    "plan.zeros,iteration_time\n1,1\n": ("plan.zeros: is not a key here", "Did you mean 'zero'"),
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_cannot_be_read_is_named_by_row_and_column(text, tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(text)
    where, said = WRONG[text]
    with pytest.raises(SpecError, match=where) as caught:
        fitted([path], load(BASE))
    assert said in str(caught.value)


def test_practices_are_checked_key_by_key(tmp_path):
    path = tmp_path / "practice.toml"
    for text, said in (
        ("[practise]\ngemm = 1\n", "holds no practice"), ("[practice]\ngem = 1\n", "Did you mean 'gemm'"),
        ("[practice]\ngemm = -1\n", "practice.gemm: is no factor"), ("[practice]\ngemm = true\n", "is no factor"),
        ("practice = 3\n", "holds no practice"), ("x =", "is not TOML"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(SpecError, match=said):
            practice_at(path)
    with pytest.raises(SpecError):
        setting(load(BASE | {"plan": {"practice": str(tmp_path / "none.toml")}}))


def test_the_command_says_what_it_lacks(file, capsys):
    for words, said in (
        (["calibrate", str(file)], "--scenario"), (["calibrate", str(file), "--scenario", "quickstart"], "training"),
        (["calibrate", str(file), "--scenario", "training-plan", "--engine", "vllm-1"], "--engine"),
    ):  # fmt: skip
        assert cli.main(words) == 2
        assert said in capsys.readouterr().err


def test_a_fleet_of_several_kinds_has_no_practice(tmp_path):
    file = tmp_path / "two.csv"
    rows = "\n".join(f"{micro},{seconds}" for micro, seconds in ((1, 1.0), (2, 0.9), (4, 0.8), (8, 0.8)))
    file.write_text(f"micro_batch,iteration_time\n{rows}\n")
    scenario = load(BASE | {"fleet": {"devices": "16x a100-80g-sxm + 16x h100-sxm"}})
    with pytest.raises(SpecError, match=r"several kinds.*a100-80g-sxm.*h100-sxm.*one kind to a practice"):
        fitted([file], scenario)
