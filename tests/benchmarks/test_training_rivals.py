"""The scripts that hold training's memory and search against other tools and against runs: their own arithmetic."""

import numpy as np
import pytest

from benchmarks import fits, rival_calculon, speed_training
from fleetcast.cost.collectives import collective_time


def test_verdicts_are_counted():
    told, true = [True, True, False, False, True], [True, False, True, False, True]
    precision, recall, words = fits.confusion(told, true)
    assert (precision, recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert words.startswith("2 fit as told, 1 do not as told, 1 were told to fit and do not, 1 do")


def test_frozen_runs_straddle_the_boundary_and_the_forecast_knows_it():
    runs = fits.runs()
    assert len(runs) >= 40
    room = np.array([run["limit"] / fits.forecast(run)[0] for run in runs])
    assert 0.3 < (room > 1).mean() < 0.7
    assert ((room > 0.4) & (room < 1.8)).all()


def test_a_links_bytes_count_as_calculon_counts_them():
    _, machine = rival_calculon.setting()
    row = {"bandwidth": 25, "efficiency": 0.9, "latency": 2e-5, "ops": {"all_reduce": [2.0, -1], "p2p": [1.0, None]}}
    fabric = rival_calculon.drawn(machine.outer, row)
    size = np.array([1e6, 3e8])
    assert collective_time("all_reduce", size, 8, fabric) == pytest.approx(2e-5 + size * 2 * 7 / 8 / 22.5e9, rel=2e-3)
    assert collective_time("send", size, 2, fabric) == pytest.approx(2e-5 + size / 22.5e9, rel=2e-3)


def test_efficiency_is_a_step_of_the_operation():
    table = [[128, 0.95], [16, 0.9], [1, 0.6], [0, 0.1]]
    assert rival_calculon.efficiency(np.array([5e8, 1e9, 2e10, 1e12]), table).tolist() == [0.1, 0.6, 0.9, 0.95]


def test_conventions_change_the_terms_they_name():
    found = rival_calculon.sample()
    if found is None:
        pytest.skip("calculon's plans are absent: set FLEETCAST_DATA")
    near = rival_calculon.costed(found, set())["total"]
    assert np.isfinite(near).all()
    more = rival_calculon.costed(found, {"half"})
    assert (more["total"] <= near + 1e-12).all()
    assert (more["data_comm"] <= rival_calculon.costed(found, set())["data_comm"] + 1e-12).all()


def test_the_quick_space_is_that_of_fewer_devices():
    every, _, _, system = speed_training.case(True)
    assert len(every) > 1_000_000
    assert system.memory == pytest.approx(80 * 2**30)
