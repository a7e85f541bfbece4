"""Weeks of traffic: the rate asked for, the hour's own swing, streams that a longer row does not change."""

from __future__ import annotations

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.scenario.workload.traces import read
from fleetcast.scenario.workload.weeks import MINUTE, Shape, load, swing, weeks

HOUR = read("azure-conv-2023")
FLAT = Shape(trough=1.0, weekend=1.0, spread=0.0)


def test_a_flat_shape_gives_the_rate_and_the_hours_lengths() -> None:
    made = weeks(HOUR, servers=3, rate=0.2, days=2, seed=4, shape=FLAT)
    assert made.servers == 3
    assert len(made.arrival) / (3 * 2 * 86_400 * 0.2) == pytest.approx(1.0, abs=0.02)
    assert made.prompt[made.sample].mean() == pytest.approx(HOUR.prompt.mean(), rel=0.02)
    for a, b in zip(made.first, made.first[1:], strict=False):
        assert (np.diff(made.arrival[a:b]) >= 0).all()


def test_load_has_the_days_peak_the_weekend_and_the_hours_swing() -> None:
    flat = load(swing(HOUR), FLAT, 7, seed=0)
    assert set(np.round(flat[:60], 12)) <= set(np.round(swing(HOUR), 12))
    daily = load(np.ones(58), Shape(spread=0.0), 7, seed=0)
    assert daily[14 * 60] == pytest.approx(1.0)
    assert daily[2 * 60] == pytest.approx(0.35)
    assert daily[(5 * 24 + 14) * 60] == pytest.approx(0.75)


def test_a_longer_row_keeps_the_shorter_ones_traffic_and_weeks_differ() -> None:
    few, many, later = (weeks(HOUR, servers=n, rate=0.1, days=1, seed=2, week=w) for n, w in ((2, 0), (4, 0), (2, 1)))
    assert (many.arrival[: few.first[-1]] == few.arrival).all()
    assert (many.sample[: few.first[-1]] == few.sample).all()
    assert len(later.arrival) != len(few.arrival)
    assert few.duration == 1440 * MINUTE


def test_an_hour_too_short_is_refused() -> None:
    with pytest.raises(SpecError, match=r"workload\.trace.*at least 10 min"):
        weeks(HOUR.slice(0, 100), servers=1, rate=1.0)
