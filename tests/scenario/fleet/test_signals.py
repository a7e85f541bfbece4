"""Grid signals: means are integrals, series repeat, files of every kind are read or refused."""

import gzip
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.scenario.fleet.signals import grids, intensity, signal

HOUR = 3600.0
WEEK = 168 * HOUR


@pytest.mark.parametrize("grid", ["400 g/kWh", 400, 400.0, "400", "0.4 kg/kWh", "400 kg/MWh"])
def test_constants(grid):
    found = signal(grid)
    assert intensity(found, 0, 1e9) == intensity(found, 7, 7) == 400


def test_pounds_per_megawatt_hour():
    assert intensity(signal("1000 lb/MWh"), 0, 1) == pytest.approx(453.59237)


@pytest.mark.parametrize("name", ["PJM", "pjm", "CAISO", "california"])
def test_packaged_series_are_a_week_of_hours_with_source(name):
    found = signal(name)
    assert len(found.times) == 168 and found.span == WEEK
    assert "EIA-930" in found.source and "public domain" in found.source
    assert found.mean(0, WEEK) == pytest.approx(sum(found.values) / 168)


def test_california_is_cleaner_at_noon_than_in_the_evening():
    found = signal("CAISO")  # begins at 02:00 UTC = 19:00 local time
    noon = [found.at((17 + 24 * day) * HOUR) for day in range(6)]
    evening = [found.at((2 + 24 * day) * HOUR) for day in range(6)]
    assert max(noon) < min(evening)


def test_every_packaged_grid_is_sane_and_sourced():
    assert len(grids()) > 40
    for found in grids().values():
        assert min(found.values) > 0 and max(found.values) < 1000
        assert len(found.source) > 20
    assert signal("us-east4") == signal("pjm_average")
    assert signal("France").values[0] < signal("germany").values[0] < signal("POLAND").values[0]


def stepwise(found, start, end, steps=20000):
    width = (end - start) / steps
    return sum(found.at(start + (i + 0.5) * width) for i in range(steps)) / steps


@pytest.mark.parametrize("span", [(0, 1800), (1800, 9000), (WEEK - HOUR, WEEK + HOUR), (0, 3 * WEEK)])
def test_mean_is_the_integral_over_the_span(span):
    found = signal("PJM")
    assert found.mean(*span) == pytest.approx(stepwise(found, *span), rel=1e-4)


@given(st.floats(0, 1e7), st.floats(0, 1e7), st.floats(0, 1e7))
def test_means_add_up_and_stay_within_the_values(a, b, c):
    found = signal("CAISO")
    start, middle, end = sorted((a, b, c))
    if end - start < 1:
        return
    whole = found.mean(start, end) * (end - start)
    parts = found.mean(start, middle) * (middle - start) + found.mean(middle, end) * (end - middle)
    assert whole == pytest.approx(parts, rel=1e-9, abs=1e-3)
    assert min(found.values) - 1e-6 <= found.mean(start, end) <= max(found.values) + 1e-6
    assert found.mean(start, end) == pytest.approx(found.mean(start + WEEK, end + WEEK), rel=1e-7)


def test_a_user_s_file(tmp_path):
    (tmp_path / "site.csv").write_text("# ours\ntime_s,intensity\n0,100\n60,300\n120,200\n")
    found = signal("site.csv", tmp_path)
    assert found.span == 180 and found.mean(30, 90) == 200 and found.at(119.9) == 300
    assert found.mean(0, 360) == pytest.approx(200) and found.at(180) == 100
    (tmp_path / "map.csv").write_text(
        "datetime (UTC),zone,Carbon intensity gCO2eq/kWh (direct),Low-carbon\n"
        "2023-01-01 00:00:00,DE,500,20\n2023-01-01 01:00:00,DE,400,30\n"
    )
    assert signal("map.csv", tmp_path).mean(0, 2 * HOUR) == 450
    with gzip.open(tmp_path / "map.csv.gz", "wt") as file:
        file.write("timestamp,avg_CI\n2022-01-01T00:00:00+00:00,10\n2022-01-01T01:00:00+00:00,20\n")
    assert signal("map.csv.gz", tmp_path).values == (10, 20)
    (tmp_path / "one.csv").write_text("time_h,intensity\n5,77\n")
    assert math.isinf(signal("one.csv", tmp_path).span) and signal("one.csv", tmp_path).at(1e9) == 77


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is empty"),
        ("time_s,intensity\n", "has no rows"),
        ("a,b\n1,2\n", "no time and intensity columns"),
        ("time_s,intensity\n0,100\n0,100\n", "row 2: does not come after"),
        ("time_s,intensity\n5,100\n3,100\n", "row 2: does not come after"),
        ("time_s,intensity\n0,-1\n", "row 1: is negative"),
        ("time_s,intensity\n0,lots\n", "row 1: is not a quantity"),
        ("time_s,intensity\n0,inf\n", "row 1"),
        ("time_s,intensity\nnan,5\n1,5\n", "row 1: is not a time"),
        ("time_s,intensity\nnoon,5\n", "row 1: is not a time"),
        ("time_s,intensity\n0\n", "row 1: is short"),
    ],
)
def test_bad_files_name_row_and_limit(tmp_path, text, part):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(SpecError) as caught:
        signal("bad.csv", tmp_path)
    assert part in str(caught.value) and "bad.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("grid", "part"),
    [
        ("pjn", "Did you mean 'pjm'"), ("-4 g/kWh", "is out of range"), ("12 kWh", "wrong unit 'kWh'"),
        ("none.csv", "cannot be read"), ("", "is not a packaged grid"), (math.nan, "not finite"),
    ],
)  # fmt: skip
def test_bad_grids(grid, part, tmp_path):
    with pytest.raises(SpecError, match=part) as caught:
        signal(grid, tmp_path)
    assert str(caught.value).startswith("fleet.grid")


def test_a_file_whose_name_starts_like_a_number_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "1grid.csv").write_text("time_s,intensity\n0,100\n3600,300\n", encoding="utf-8")
    for name in ("1grid.csv", "./1grid.csv", f"../{tmp_path.name}/1grid.csv"):
        assert signal(name, tmp_path).mean(0, 3600) == 100
