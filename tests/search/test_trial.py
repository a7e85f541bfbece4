"""The trial's forecast: quotas against a simulation by small steps, memory, order, and what a table says."""

import math
from pathlib import Path

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.runtime.measure.trial import TIERS, Cell, Tier
from fleetcast.runtime.measure.trial.application import Answer
from fleetcast.runtime.measure.trial.contexts import logs
from fleetcast.scenario.workload.architectures import from_config
from fleetcast.search.tiers import trial
from fleetcast.search.tiers.quota import Pauses, answered, lost_of
from fleetcast.search.tiers.trial import Known, Trial, forecast, needed, room_for, run

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 192, "vocab_size": 512,
    "max_position_embeddings": 256, "tie_word_embeddings": True, "hidden_act": "silu", "rms_norm_eps": 1e-5,
    "torch_dtype": "float32",
}  # fmt: skip


def known(name="one", cpu=0.01, **changes) -> Known:
    table = CONFIG | changes
    return Known(
        name, Path(name), from_config(table, "config"), cpu + 0.001, cpu, 0.001, (cpu,), Pauses(), 400.0, 50.0, 5e7
    )


NONE = Pauses()
PERIOD = 0.02


def stepped(works, gap, share, pauses, step=2e-6):
    """Requests one after the other under a quota, by small steps of time."""
    clock, used, number, ran, found = 0.0, 0.0, 0, None, []
    for left in works:
        begin = clock
        while left > 1e-12:
            if int(clock / PERIOD + 1e-9) > number:
                number, used = int(clock / PERIOD + 1e-9), 0.0
            if used >= share * PERIOD - step / 2:
                ran = 0.0  # it is paused
            else:
                used += step
                if ran is None:
                    left -= step
                else:
                    at, gone = [0.0, *pauses.slices], [0.0, *pauses.lost]
                    left -= step - (np.interp(ran + step, at, gone) - np.interp(ran, at, gone))
                    ran += step
            clock += step
        found.append(clock - begin)
        clock += gap
    return np.array(found)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("gap", [0.0005, 0.0071])
@pytest.mark.parametrize("pauses", [NONE, Pauses((0.0006, 0.002, 0.006), (0.0004, 0.0009, 0.001))])
def test_answers_take_what_a_simulation_by_small_steps_takes(share, gap, pauses) -> None:
    works = [0.0041, 0.0007, 0.0112, 0.005, 0.0049, 0.0052]
    found = answered(works, gap, share, pauses, PERIOD)
    exact = stepped(works, gap, share, pauses)
    assert found == pytest.approx(exact, rel=0.02, abs=3e-4)


def test_quota_at_its_ends() -> None:
    assert answered([0.5, 0.2], 0.1, 1.0, NONE, PERIOD).tolist() == [0.5, 0.2]
    assert answered([0.0], 0.1, 0.1, NONE, PERIOD) == pytest.approx(0.0)
    # in the long run by the share, and by what of each slice does work
    assert answered([10.0], 0.0, 0.1, NONE, PERIOD) == pytest.approx(100.0, rel=0.001)
    half = Pauses((0.001, 0.002), (0.0007, 0.001))
    assert answered([10.0], 0.0, 0.1, half, PERIOD) == pytest.approx(200.0, rel=0.001)
    # asked without a gap, all that a quota gives is used
    many = answered([0.0043] * 2000, 0.0, 0.05, NONE, PERIOD)
    assert many.mean() == pytest.approx(0.0043 / 0.05, rel=0.01)
    # and work that fits what is left of any period is not held back
    assert set(np.round(answered([0.001] * 50, 0.03, 0.5, NONE, PERIOD), 6)) == {0.001}


def test_what_a_pause_costs_is_found_again_and_read_both_ways() -> None:
    pauses = Pauses((0.001, 0.004), (0.0006, 0.0012))
    for ran in (0.0, 0.0005, 0.001, 0.003, 0.004, 0.02):
        assert pauses.needed(pauses.done(ran)) == pytest.approx(ran)
    assert pauses.done(0.02) == pytest.approx(0.02 - 0.0012)
    # of each slice of 4 ms, 1.2 ms are lost: 2.8 ms of work take 4 ms
    assert lost_of(0.0028, 0.004, 0.2, PERIOD) == pytest.approx(0.0012)
    assert lost_of(0.01, 0.009, 0.2, PERIOD) == 0.0
    stuck = Pauses((0.001,), (0.001,))  # measured by mistake: nothing is done, and yet it ends
    assert np.isfinite(answered([0.001], 0.0, 0.05, stuck, PERIOD)).all()


def test_a_cell_takes_its_quota_and_its_link() -> None:
    one = known()
    cloud = forecast(one, TIERS[2], 0.0, 2)
    link = TIERS[2].path[0]
    there, back = 400 / link.uplink + link.latency, 4 / link.bandwidth + link.latency
    assert cloud.seconds == pytest.approx(0.011 + there + back)
    assert forecast(one, Tier("here", 1.0, 1e12), 0.0, 0).seconds == pytest.approx(0.011)
    slow = answered([0.01] * trial.LAPS, 0.001, 0.1, Pauses(), 0.02)
    assert forecast(one, Tier("slow", 0.1, 1e12), 0.0, 0).seconds == pytest.approx(0.001 + np.median(slow))


def test_memory_is_weights_cache_and_what_the_runtime_takes() -> None:
    one = known()
    room = room_for(one.model, 1e12, 7e6)
    cache = 2 * 2 * 64 * 4 * 256
    assert room.weights == 4 * one.model.params()
    assert needed(room) == pytest.approx(room.weights + room.activations + 7e6 + cache)
    enough = needed(room)
    assert forecast(one, Tier("t", 1.0, enough * 1.01), 7e6, 0).fits
    short = forecast(one, Tier("t", 1.0, enough * 0.9), 7e6, 0)
    assert not short.fits
    assert math.isnan(short.seconds)
    assert "the tier has" in short.why


def answers(*seconds, right=True):
    return tuple(Answer(s, s / 2, "x", right, (50, 10), (400, 300)) for s in seconds)


@pytest.fixture
def tried(monkeypatch):
    """A trial of two models whose cells are a test's own."""
    medians = {"device": 1.0, "edge": 0.5, "cloud": 0.2}
    seen = []

    def cell(folder, name, tier, asked, **_):
        seen.append((tier.name, name))
        if (tier.name, name) == ("device", "two"):
            return Cell("device", "two", refusal="does not fit")
        return Cell(tier.name, name, answers(medians[tier.name], right=name == "two"), {"mapped": 6e7}, "none")

    def calibrated(name, folder, before, **_):
        return known(name, cpu=0.02) if name == "one" else known(name, num_hidden_layers=900)

    monkeypatch.setattr(trial, "calibrate", calibrated)
    monkeypatch.setattr(trial, "measure_cell", cell)
    told = []
    found = run(
        {"one": Path("one"), "two": Path("two")}, logs(20, 2), logs(5, 3), groups=None,
        told=lambda f: told.append((f, len(seen))),
    )  # fmt: skip
    return found, told


def test_everything_is_forecast_before_anything_is_measured(tried) -> None:
    found, told = tried
    assert len(told) == 6 == len(found.cells)
    assert all(measured == 0 for _, measured in told)


def test_a_trial_compares_orders_and_counts(tried) -> None:
    found: Trial = tried[0]
    assert found.in_order() == {"one": True, "two": True}
    assert found.fits_told() == 6
    off, plain = found.errors()
    assert len(off) == len(plain) == 5
    assert plain[0] == pytest.approx(0.021 / 1.0 - 1)
    table = found.table()
    rows = {(row["tier"], row["model"]): row for row in table["cells"]}
    assert rows["edge", "two"]["quality"] == 1.0 and rows["edge", "one"]["quality"] == 0.0
    assert rows["device", "two"]["fits"] is False is rows["device", "two"]["forecast_fits"]
    assert 0.05 < table["most_common"] < 0.6


def test_nothing_to_try_is_refused() -> None:
    with pytest.raises(SpecError, match="logs"):
        run({"one": Path("one")}, [], logs(1, 1))
