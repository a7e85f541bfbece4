"""From ten times to a profile that scenarios run on; machines here are made up, so that the truth is known."""

import json
import tomllib
from dataclasses import replace

import numpy as np
import pytest

import fleetcast
from benchmarks.operators import SEED, draw
from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.cost.roofline import coefficients_for
from fleetcast.runtime import measure
from fleetcast.runtime.measure import worker
from fleetcast.runtime.measure.machine import Machine
from fleetcast.runtime.measure.operators import UNITS, Caches, elementwise, units
from fleetcast.runtime.measure.probes import PROBES, place
from fleetcast.runtime.measure.profile import Readings, profile
from fleetcast.scenario.fleet import catalog
from fleetcast.scenario.fleet.spec import parse_devices, rename_profiles

MACHINE = Machine(
    name="Made-up CPU", vendor="none", cores=4, memory=64e9, own=float(1 << 20), last=float(32 << 20), clock=3e9
)
CACHES = Caches(MACHINE.own, MACHINE.last)
TYPICAL = np.array(list(UNITS.values()))
RUN = {
    "workload": {
        "model": "llama-3.2-1b", "arrivals": {"kind": "closed", "concurrency": 1, "requests": 10},
        "lengths": {"kind": "fixed", "prompt": 64, "output": 16},
    },
    "plan": {
        "replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1, "engine": "ideal", "dtype": "fp32",
        "batch": {"kind": "prefill_first", "max_batch": 1, "max_tokens": 4096},
    },
}  # fmt: skip


def times(operators, costs, noise=0.0, seed=0):
    """What operators take on a core with ``costs`` (s per unit)."""
    jitter = 1.0 + noise * np.abs(np.random.default_rng(seed).standard_normal(len(operators)))
    return units(operators, CACHES) @ costs * jitter


def readings(costs, cores=3.0, half=0.0):
    return Readings(tuple(times(PROBES, costs).tolist()), {"product": cores, "copy": 2.0}, half)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "profile.toml"
    path.write_text(profile(MACHINE, readings(0.5 * TYPICAL)).toml())
    return path


@pytest.mark.parametrize("seed", range(6))
def test_ten_probes_forecast_what_was_never_timed(seed):
    costs = TYPICAL * np.exp(np.random.default_rng(seed).normal(np.log(0.5), 0.3, len(UNITS)))
    core = place(times(PROBES, costs, 0.01, seed), CACHES)
    operators = draw(SEED)
    truth = times(operators, costs)
    found = core.forecast(operators)
    assert np.median(np.abs(found.mean / truth - 1)) < 0.12
    assert np.mean((truth >= found.low) & (truth <= found.high)) > 0.75


def test_a_machine_as_expected_beforehand_is_found_exactly():
    core = place(times(PROBES, TYPICAL / 3), CACHES)
    for name, cost in core.costs.items():
        # No probe tells a BLAS call from other overheads, and rows only a little: both lean on their kind.
        assert cost == pytest.approx(UNITS[name] / 3, rel=0.25 if name in ("product", "row") else 0.02)
    assert all(low < core.costs[name] < high for name, (low, high) in core.intervals.items())


def test_every_cost_but_one_has_a_probe_that_depends_on_it():
    work = units(PROBES, CACHES) * TYPICAL
    largest = dict(zip(UNITS, (work / work.sum(1, keepdims=True)).max(0), strict=True))
    assert len(PROBES) == 10
    assert [name for name, share in largest.items() if share < 0.05] == ["product"]


def test_a_disturbed_probe_is_named():
    said = list(readings(TYPICAL).seconds)
    said[6] *= 4.0
    found = profile(MACHINE, Readings(tuple(said), {"product": 4.0, "copy": 2.0}))
    assert found.doubted in ([], ["product 384x384x384 float32"])
    assert found.core.device.doubt.argmax() == 6


def test_figures_are_those_of_all_cores():
    found = profile(MACHINE, readings(TYPICAL, cores=3.0))
    assert found.device["peak"]["fp32"] == pytest.approx(3.0 / UNITS["flop32"], rel=0.03)
    assert found.device["bandwidth"] == pytest.approx(2.0 / UNITS["far"], rel=0.03)
    for name, (low, high) in found.intervals.items():
        value = found.device["bandwidth"] if name == "bandwidth" else found.device["peak"][name.partition(".")[2]]
        assert low < value < high
    assert not found.busy and found.doubted == []
    assert profile(MACHINE, replace(readings(TYPICAL), load=1.5)).busy


def test_bf16_counts_where_it_is_faster():
    assert "bf16" not in profile(MACHINE, readings(TYPICAL, half=1e9)).device["peak"]
    found = profile(MACHINE, readings(TYPICAL, half=1e12))
    assert found.device["peak"]["bf16"] == pytest.approx(3e12) and "peak.bf16" in found.intervals
    plain = profile(MACHINE, readings(TYPICAL))
    shares = [p.coefficients["tables"]["prefill"]["bf16"]["compute"] for p in (plain, found)]
    assert shares[1] < shares[0], "faster products leave the softmax a larger share"


def test_the_file_is_a_device_of_a_scenario(file):
    ((count, device),) = parse_devices("2x profile.toml", base=file.parent)
    written = tomllib.loads(file.read_text())
    assert count == 2 and device.id == "made-up-4-cores" == written["device"]["id"]
    assert device.bandwidth == written["device"]["bandwidth"]
    found = coefficients_for(device)
    assert found.provenance["gemm"].kind == "measured" and found.provenance["gemm"].source == "fleetcast measure"
    assert found.provenance["draw"].kind == "generic"
    assert found.tables["gemm"]["bf16"] == written["coefficients"]["tables"]["gemm"]["bf16"]


def test_simulate_runs_on_it_and_follows_it(tmp_path):
    speeds = {}
    for name, costs in (("fast", 0.5 * TYPICAL), ("slow", 5.0 * TYPICAL)):
        (tmp_path / f"{name}.toml").write_text(profile(MACHINE, readings(costs)).toml())
        table = {"fleet": {"devices": f"1x {tmp_path / name}.toml"}} | RUN
        speeds[name] = fleetcast.simulate(table).metrics["e2e"]["mean"]
    assert speeds["slow"] == pytest.approx(10 * speeds["fast"], rel=0.02)


def test_decoding_reads_the_weights_at_the_measured_bandwidth(file):
    outcome = fleetcast.simulate({"fleet": {"devices": f"1x {file}"}} | RUN)
    ((_, device),) = parse_devices(f"1x {file}")
    read = 4 * 1.24e9 / device.bandwidth
    assert read < outcome.metrics["tpot"]["mean"] < 3 * read


def test_prices_sizing_and_groups_know_a_measured_device(file, tmp_path):
    table = {"fleet": {"devices": f"1x {file}", "price": {"made-up-4-cores": 0.5}}} | RUN
    assert fleetcast.simulate(table).metrics["cost"] > 0
    needs = table | {"slo": {"e2e_p99": 1000.0}, "plan": {"engine": "ideal", "dtype": "fp32"}}
    (need,) = fleetcast.devices_needed(needs, [str(file)], most=2)
    assert need.kind == "made-up-4-cores" and need.devices == 1
    with pytest.raises(SpecError, match="--kinds"):
        fleetcast.devices_needed(needs)
    grouped = {"fleet": {"groups": [{"name": "desk", "devices": f"1x {file}"}]}} | RUN
    assert fleetcast.simulate(grouped).resources[0]["device"] == "made-up-4-cores"


def test_plans_written_elsewhere_still_find_the_profile(file, tmp_path):
    from fleetcast.view.outputs import rebased

    scenario = tmp_path / "s.toml"
    scenario.write_text('fleet.groups = [{ devices = "1x profile.toml + 2x h100-sxm" }]\nworkload.model = "gpt2"\n'
                        'workload.trace = "azure-conv-2023"\n')  # fmt: skip
    moved = rebased(fleetcast.load(scenario), tmp_path / "out")
    assert moved.fleet.groups[0].devices == "1x ../profile.toml + 2x h100-sxm"
    assert rename_profiles("3 x a.toml+1x h100-sxm", str.upper) == "3 x A.TOML + 1x h100-sxm"


@pytest.mark.parametrize(
    ("devices", "says"),
    [
        ("1x absent.toml", "is not a file"),
        ("1x fleet.toml", "no device profile"),
        ("profile.toml", "without a count"),
        ("1x torn.toml", "is not TOML"),
        ("1x odd.toml", "is not a key here"),
        ("1x spread.toml", "lacks 'gemm'"),
        ("0x profile.toml", "too few"),
    ],
)
def test_wrong_files_are_named(file, tmp_path, devices, says):
    text = file.read_text()
    (tmp_path / "fleet.toml").write_text('devices = "1x h100-sxm"')
    (tmp_path / "torn.toml").write_text("[device")
    (tmp_path / "odd.toml").write_text(text.replace("[device]", '[device]\ncolour = "red"'))
    (tmp_path / "spread.toml").write_text(text.replace("\ngemm = ", "\nother = ", 1))
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(f'fleet.devices = "{devices}"\nworkload.model = "gpt2"\nworkload.trace = "azure-conv-2023"\n')
    with pytest.raises(SpecError, match=says):
        fleetcast.simulate(scenario)


def test_other_devices_cannot_be_measured_yet():
    with pytest.raises(Unsupported, match="cuda"):
        measure.measure("cuda")


def test_the_worker_says_how_far_it_is_and_what_it_read(monkeypatch, capsys):
    small = elementwise("add", 16)
    monkeypatch.setattr(worker, "PROBES", (small, small))
    monkeypatch.setattr(worker, "TOGETHER", {"product": small, "copy": small})
    monkeypatch.setattr(worker, "REPEATS", 2)
    assert worker.main() == 0
    *steps, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [s["done"] for s in steps] == [1, 2, 3, 4, 5] and {s["total"] for s in steps} == {5}
    assert len(last["seconds"]) == 2 and min(last["seconds"]) > 0 and set(last["scaling"]) == {"product", "copy"}


def test_a_worker_that_dies_is_an_error(monkeypatch):
    monkeypatch.setattr(measure, "WORKER", ("-c", "raise SystemExit(3)"))
    with pytest.raises(Unsupported, match="status 3"):
        measure.measure(quick=True)


def test_readings_pass_from_the_worker_to_the_profile(monkeypatch):
    said = {"seconds": list(readings(TYPICAL).seconds), "scaling": {"product": 1.0, "copy": 1.0}, "half": 0.0}
    lines = [{"done": 1, "total": 2}, {"done": 2, "total": 2}, said]
    monkeypatch.setattr(measure, "WORKER", ("-c", f"print({chr(10).join(map(json.dumps, lines))!r})"))
    steps = []
    found = measure.measure(quick=True, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 2), (2, 2)]
    assert found.readings.seconds == readings(TYPICAL).seconds
    assert catalog.device("h100-sxm").fitted is None
