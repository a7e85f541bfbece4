"""Carbon of jobs by zone: integrals, forecasts, what a scenario says of deadlines and grids, and an outcome."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.scenario.fleet.signals import signal
from fleetcast.scenario.load import load
from fleetcast.scenario.workload.job_traces import read
from fleetcast.sim.cluster.fast import play
from fleetcast.sim.cluster.grids import grids, mean
from fleetcast.sim.cluster.outcome import outcome, simulate
from fleetcast.sim.cluster.setting import setting

PARTS = {
    "fleet": {
        "groups": [
            {"name": "west", "devices": "4x a100-80g-sxm"}, {"name": "east", "devices": "4x a100-80g-sxm"},
            {"name": "rest", "devices": "4x h100-sxm"},
        ],
        "grid": 300.0, "host_power": "100 W", "pue": 1.2,
    },
    "workload": {
        "kind": "jobs", "trace": {"kind": "synthetic", "jobs": 60, "every": "10 min", "median": "2 h", "widest": 4},
        "slack": "6 h", "grids": {"west": "caiso", "east": "pjm"},
    },
}  # fmt: skip


def made(**workload):
    return setting(load({**PARTS, "workload": {**PARTS["workload"], **workload}}))


@pytest.mark.parametrize("grid", ["caiso", "pjm", 250.0])
def test_means_of_many_spans_are_the_signals_own(grid):
    r = np.random.default_rng(0)
    found = signal(grid)
    begin = r.uniform(0, 3e6, 50)
    end = begin + r.uniform(1, 1e6, 50)
    each = [found.mean(a, b) for a, b in zip(begin, end, strict=True)]
    np.testing.assert_allclose(mean(found, begin, end), each, rtol=1e-9)


def test_each_zone_is_a_kind_on_its_own_grid():
    state = made()
    assert [kind.name for kind in state.nodes.kinds] == ["west", "east", "h100-sxm"]
    assert [grid.name for grid in state.grids.true] == ["caiso", "pjm", "300 g/kWh"]
    assert state.nodes.kinds[0].power == state.nodes.kinds[1].power > 0
    assert [kind.name for kind in made(grids={}).nodes.kinds] == ["a100-80g-sxm", "h100-sxm"]


def test_carbon_is_power_times_intensity_where_each_job_ran():
    state = made()
    run = play(state.jobs, state.nodes, state.pace, state.share("green"), state.place("best_fit"), state.rules)
    found = outcome(state, run, {})
    begin, end = float(state.jobs.arrival[0]), float(run.finish.max())
    kwh = 1.2 / 3.6e6
    work = sum(
        n * state.nodes.kinds[k].power * (b - a) * state.grids.true[k].mean(a, b) * kwh
        for k, n, a, b in zip(run.kind.tolist(), run.devices, run.begin, run.end, strict=True)
    )
    still = sum(
        (g.count * g.device.power.idle + 100.0 * g.nodes) * (end - begin) * grid.mean(begin, end) * kwh
        for g, grid in zip(state.tree.groups, state.grids.true, strict=True)
    )
    assert found.metrics["work_carbon"] == pytest.approx(work, rel=1e-9)
    assert found.metrics["carbon"] == pytest.approx(work + still, rel=1e-9)
    assert found.metrics["late"] == (run.finish > state.jobs.deadline + 1e-3).sum() > 0


def test_waiting_spares_carbon_and_late_jobs_are_counted():
    state = made()
    null, green = (simulate(state, p).metrics for p in ({"kind": "fifo", "backfill": True}, "green"))
    assert green["work_carbon"] < null["work_carbon"]
    hurried = simulate(
        made(slack=0.0, trace={"kind": "synthetic", "jobs": 60, "every": "60 s", "median": "2 h", "widest": 4})
    )
    assert hurried.metrics["late"] > 30
    assert "late" not in simulate(made(slack=None)).metrics


def test_forecasts_are_off_by_what_is_said_and_what_is_true_stays():
    true = signal("caiso")
    found = grids([true, true, signal(5.0)], 0.2, 3)
    assert found.true[0] is true
    factors = np.array(found.told[0].values) / np.array(true.values)
    assert factors.std() == pytest.approx(0.2, rel=0.2)
    assert factors.mean() == pytest.approx(1.0, abs=0.05)
    assert found.told[0] is found.told[1]
    assert found.told[2].values == (5.0,)
    assert grids([true], 0.0).told == (true,)


def test_slack_is_a_time_or_a_multiple():
    state = made(slack=2.0)
    jobs = state.jobs
    np.testing.assert_allclose(jobs.deadline, jobs.arrival + 3 * jobs.seconds)
    jobs = made(slack="90 min").jobs
    np.testing.assert_allclose(jobs.deadline, jobs.arrival + jobs.seconds + 5400)
    assert made(slack=None).jobs.deadline is None


def test_a_trace_has_deadlines_that_move_with_its_jobs(tmp_path: Path):
    path = tmp_path / "jobs.csv.gz"
    path.write_bytes(gzip.compress(b"arrival,devices,seconds,deadline\n20,1,5,\n10,2,5,40\n"))
    assert read(path).deadline.tolist() == [40.0, np.inf]
    jobs = made(trace=str(path), slack=None, window=[5, 100], speed_up=2.0).jobs
    assert jobs.arrival.tolist() == [2.5, 7.5]
    assert jobs.deadline.tolist() == [32.5, np.inf]
    path.write_bytes(gzip.compress(b"arrival,devices,seconds,deadline\n20,1,5,10\n"))
    with pytest.raises(SpecError, match="column deadline: out of range"):
        read(path)


@pytest.mark.parametrize(
    ("keys", "path", "said"),
    [
        ({"slack": "-1 h"}, "workload.slack", "out of range"),
        ({"slack": "5 g"}, "workload.slack", ""),
        ({"slack": -1.0}, "workload.slack", ""),
        ({"grids": {"wset": "caiso"}}, "workload.grids.wset", "did you mean 'west'"),
        ({"grids": {"west": "atlantis"}}, "workload.grids.west", "not a packaged grid"),
        ({"forecast_error": -0.1}, "workload.forecast_error", ""),
    ],
)
def test_nonsense_is_named(keys, path, said):
    with pytest.raises(SpecError) as error:
        made(**keys)
    assert path in str(error.value)
    assert said in str(error.value).lower()
