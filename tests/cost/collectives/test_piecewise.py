"""All-reduce by size and ranks: broken lines recover what they are made of, held-out sizes of published sweeps."""

import numpy as np
import pytest

from fleetcast.base.errors import SpecError
from fleetcast.cost.collectives.piecewise import (
    AllReduce,
    Piecewise,
    all_reduce_time,
    bandwidth_only,
    broken,
    fit,
    hockney,
    machines,
)

SIZES = np.geomspace(1e3, 1e9, 60)
LINE = Piecewise(np.array([1e3, 1e5, 1e9]), np.array([1e-5, 5e-5, 1e-2]))


def test_latency_and_bandwidth_come_back():
    found = hockney(SIZES, 2e-5 + SIZES / 1e10)
    assert found(0.0) == pytest.approx(2e-5) and found(1e9) - found(0.0) == pytest.approx(0.1)
    assert bandwidth_only(SIZES, SIZES / 1e10)(3e6) == pytest.approx(3e-4)


def test_latency_is_never_negative():
    assert hockney(SIZES, 1e-9 * SIZES**1.1)(0.0) == 0.0


def test_a_broken_line_through_all_is_exact_and_goes_on_beyond():
    x = np.array([1e3, 1e5, 1e7, 1e9])
    found = broken(x, LINE(x), 4)
    assert found(x) == pytest.approx(LINE(x), rel=1e-9)
    assert found(2e9) == pytest.approx(2e-2, rel=0.01)  # the last interval's bandwidth
    assert found(10.0) == found(1e3)  # no size takes less than the least measured


def test_noise_is_smoothed_where_measurements_are_many():
    noise = np.exp(0.1 * np.random.default_rng(0).standard_normal(len(SIZES)))
    truth = 2e-5 + SIZES / 1e10
    smooth, through = fit(SIZES, truth * noise), broken(SIZES, truth * noise, len(SIZES))
    off = [np.mean(np.abs(line(SIZES) / truth - 1)) for line in (smooth, through)]
    assert len(smooth.size) < len(SIZES) and off[0] < 0.85 * off[1]


def test_ranks_between_measured_ones_follow_from_both():
    def line(n):
        return Piecewise(SIZES, 1e-5 * n + 2 * (n - 1) / n * SIZES / 1e11)

    known = AllReduce("x", {n: line(n) for n in (2, 4, 8)})
    assert known.time(1e9, 6) == pytest.approx(line(6)(1e9), rel=0.01)
    assert known.time([0.0, 1e6], 1).tolist() == [0.0, 0.0]
    assert known.time(0.0, 4) == 0.0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: all_reduce_time(1e6, 9, "a100-nvlink-3"), "measured on a100-nvlink-3: 2, 3, 4"),
        (lambda: all_reduce_time(-1.0, 4, "a100-nvlink-3"), "bytes, at least 0"),
        (lambda: all_reduce_time(1e6, 0, "a100-nvlink-3"), "at least 1"),
        (lambda: all_reduce_time(1e6, 4, "a100-nvlink-4"), "Did you mean 'a100-nvlink-3'"),
        (lambda: AllReduce("dgx-1", {2: LINE, 4: LINE}, switched=False).time(1e6, 3), "without a switch"),
        (lambda: hockney([1e3], [1e-3]), "2 sizes"),
        (lambda: fit([1.0, 2.0, 2.0], [1.0, 2.0, 3.0]), "twice"),
        (lambda: fit([1.0, 2.0, -2.0], [1.0, 2.0, 3.0]), "above 0"),
    ],
)
def test_what_cannot_be_is_refused(call, said):
    with pytest.raises(SpecError, match=said):
        call()


def test_shipped_machines_take_longer_for_more_bytes():
    assert "h200-nvlink-4-sharp" in machines()
    found = all_reduce_time(np.array([1e7, 1e8, 1e9, 1e10]), 8, "h200-nvlink-4-sharp")
    assert np.all(np.diff(found) > 0)
    assert 2 * 7 / 8 * 1e10 / found[-1] == pytest.approx(478e9, rel=0.02)  # 477 GB/s at 8 GiB, ml-engineering


def test_held_out_sizes_of_published_sweeps_stay_within_the_bars():
    from benchmarks.collectives_accuracy import held_out, rank_left_out
    from benchmarks.fit.all_reduce import curves

    measured = curves()
    if measured is None:
        pytest.skip("published all-reduce measurements are not here")
    found = held_out(measured)
    assert found["node"]["broken line"] <= 0.03 < found["node"]["one bandwidth"]
    assert found["several nodes"]["broken line"] <= 0.08 < found["several nodes"]["one bandwidth"]
    assert found["node"]["broken line"] < found["node"]["latency and bandwidth"]
    assert rank_left_out(measured, "a100-nvlink-3") <= 0.10
