"""Products: the two roofs, padding, quantisation, and rows that were measured."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.cost.gemm import Gemm, gemm_time, quantise_time
from fleetcast.cost.roofline import FORMATS, Chip, coefficients_for, format_of, peak, soft_max
from fleetcast.scenario.fleet.catalog import device, devices

IDEAL = Gemm(launch=0.0, compute=1.0, memory=1.0, sharp=8)
CHIP = Chip("chip", "none", 1e12, 100, {"bf16": 100e12, "fp8": 200e12})
NATIVE = [(name, dtype) for name in ("a100-80g-sxm", "h100-sxm", "l40s", "gb200") for dtype in ("bf16", "fp8")]


@given(st.floats(1e-6, 1.0), st.floats(1e-6, 1.0), st.sampled_from([1, 2, 4, 8]))
def test_soft_max_is_the_power_mean(a, b, sharp):
    got = soft_max(np.array([a]), np.array([b]), sharp)[0]
    assert got == pytest.approx((a**sharp + b**sharp) ** (1 / sharp), rel=1e-12)
    assert max(a, b) <= got <= a + b + 1e-15


def test_soft_max_of_nothing_is_nothing():
    assert soft_max(np.zeros(2), np.zeros(2), 4).tolist() == [0.0, 0.0]


def test_large_products_meet_the_compute_roof_and_small_ones_the_memory_roof():
    large = gemm_time([8192], 8192, 8192, "bf16", CHIP, IDEAL)[0]
    assert large == pytest.approx(2 * 8192**3 / 100e12, rel=1e-6)
    small = gemm_time([1], 8192, 8192, "bf16", CHIP, IDEAL)[0]
    assert small == pytest.approx(2 * 8192 * 8194 / 1e12, rel=1e-6)


def test_no_tokens_take_no_time_and_shape_is_kept():
    got = gemm_time([[0, 1], [2, 0]], 512, 512, "bf16", CHIP, Gemm(launch=1e-6, compute=0.5, memory=0.5))
    assert got.shape == (2, 2)
    assert got[0, 0] == got[1, 1] == 0.0
    assert got[0, 1] > 1e-6


@pytest.mark.parametrize(("name", "dtype"), NATIVE)
def test_more_tokens_are_never_faster(name, dtype):
    chip = device(name)
    c = coefficients_for(chip).get("gemm", dtype, Gemm)
    for n, k in ((1280, 8192), (8192, 1024), (28672, 8192), (57344, 8192)):
        assert np.all(np.diff(gemm_time(np.arange(1, 6000), n, k, dtype, chip, c)) >= 0)


@given(st.integers(1, 20_000), st.integers(64, 30_000), st.integers(64, 30_000), st.sampled_from(NATIVE))
def test_a_better_device_is_never_slower(m, n, k, which):
    chip, dtype = device(which[0]), which[1]
    c = coefficients_for(chip).get("gemm", dtype, Gemm)
    base = gemm_time(m, n, k, dtype, chip, c)
    peaks = {key: 1.5 * value for key, value in chip.peak.items()}
    for other in (
        Chip(chip.id, chip.architecture, 1.5 * chip.bandwidth, chip.units, dict(chip.peak)),
        Chip(chip.id, chip.architecture, chip.bandwidth, chip.units, peaks),
    ):
        assert gemm_time(m, n, k, dtype, other, c) <= base * (1 + 1e-12)


def test_a_fixed_tile_pads_rows_and_waits_for_its_last_wave():
    c = Gemm(launch=0.0, compute=1.0, memory=1.0, pad=1.0, wave=1.0, tile=256)
    times = gemm_time([257, 512, 513], 65536, 8192, "fp8", CHIP, c)
    assert times[0] == pytest.approx(times[1], rel=0.01)
    assert times[2] > 1.4 * times[1]


def test_quantisation_is_counted_only_where_activations_are_quantised():
    c = Gemm(launch=0.0, compute=1.0, memory=1.0, quant=5.0, quant_row=100.0)
    quick = gemm_time([64], 4096, 4096, "fp8", CHIP, c, quantise=False)
    whole = gemm_time([64], 4096, 4096, "fp8", CHIP, c)
    assert whole - quick == pytest.approx(quantise_time([64], 4096, CHIP, c))
    assert quantise_time(64, 4096, CHIP, c) == pytest.approx(64 * 4196 * 5 / 1e12)
    assert gemm_time([64], 4096, 4096, "bf16", CHIP, c) == gemm_time([64], 4096, 4096, "bf16", CHIP, c, quantise=False)


def test_unknown_formats_and_missing_arithmetic_say_what_is_known():
    with pytest.raises(KeyError, match="unknown dtype 'fp7'; known: fp32"):
        format_of("fp7")
    with pytest.raises(KeyError, match="chip has no arithmetic for bf16"):
        peak(Chip("chip", "none", 1.0, 1, {"int8": 1.0}), "bf16")
    assert format_of("fp8_block") is FORMATS["fp8-block"]


# Measured: aiconfigurator perf tables (Apache-2.0), vLLM 0.24 on H100 and L40S, 0.14 on A100, 0.22 on GB200; us.
MEASURED = [
    ("h100-sxm", "bf16", 1, 8192, 7168, 40.5),
    ("h100-sxm", "bf16", 256, 4096, 4096, 19.6),
    ("h100-sxm", "bf16", 4096, 4096, 4096, 166.0),
    ("h100-sxm", "fp8", 64, 8192, 7168, 27.6),
    ("h100-sxm", "fp8", 8192, 8192, 7168, 765.1),
    ("a100-80g-sxm", "bf16", 1, 12288, 8192, 142.4),
    ("l40s", "bf16", 64, 8192, 7168, 181.0),
    ("gb200", "nvfp4", 8192, 8192, 7168, 238.5),
    ("gb200", "bf16", 2048, 8192, 7168, 144.4),
]


@pytest.mark.parametrize(("name", "dtype", "m", "n", "k", "us"), MEASURED)
def test_measured_products(name, dtype, m, n, k, us):
    chip = device(name)
    c = coefficients_for(chip).get("gemm", dtype, Gemm)
    assert gemm_time(m, n, k, dtype, chip, c) * 1e6 == pytest.approx(us, rel=0.2)


def test_a_whole_token_grid_is_quick():
    chip = device("h100-sxm")
    c = coefficients_for(chip).get("gemm", "fp8", Gemm)
    grid = np.arange(1300.0)
    best = np.inf
    for _ in range(20):
        start = time.perf_counter()
        gemm_time(grid, 8192, 8192, "fp8", chip, c)
        best = min(best, time.perf_counter() - start)
    assert best < 1e-3  # 0.05 ms on an idle core


def test_every_device_and_format_has_a_product_time():
    for chip in devices().values():
        fitted = coefficients_for(chip)
        for dtype in FORMATS:
            if any(p in chip.peak for p in FORMATS[dtype].peaks):
                got = gemm_time([1, 64, 4096], 4096, 4096, dtype, chip, fitted.get("gemm", dtype, Gemm))
                assert np.all(np.isfinite(got)) and np.all(got > 0)


ROWS = Gemm(
    launch=2e-6, compute=1.0, memory=1.0, rows=[1, 4, 8, 9, 64], passes=[2.0, 3.0, 4.0, 20.0, 40.0],
    kept=[1.0, 2.0, 3.0, 18.0, 39.0], footprint=[1e6, 4e6, 1e7], held=[1.0, 0.5, 0.0],
)  # fmt: skip


def test_measured_rows_are_exact_and_linear_in_between():
    reading = 2.0 * 512 * 1024 / 1e12

    def passes(m, **given):
        return (gemm_time(m, 512, 1024, "bf16", CHIP, ROWS, **given) - 2e-6) / reading

    assert passes(ROWS.rows) == pytest.approx(ROWS.passes)
    assert passes([2.5, 36.5]) == pytest.approx([2.5, 30.0]), "a step between 8 and 9 rows is no slope"
    assert passes([119]) == pytest.approx([60.0]), "beyond the last, as between the last two"
    assert passes(ROWS.rows, resident=1.0) == pytest.approx(ROWS.kept)
    assert passes([4], resident=0.25) == pytest.approx([2.75])
    assert gemm_time([0, 1], 512, 1024, "bf16", CHIP, ROWS).tolist()[0] == 0.0


def test_the_cache_keeps_less_of_more_weights():
    assert [ROWS.resident(size) for size in (0.0, 1e6, 2e6, 4e6, 1e7, 1e9)] == pytest.approx([1, 1, 0.75, 0.5, 0, 0])
    assert IDEAL.resident(1.0) == 0.0, "where nothing was measured, weights come from memory"


def test_a_device_without_measured_rows_ignores_what_its_cache_holds():
    c = coefficients_for(device("h100-sxm")).get("gemm", "bf16", Gemm)
    for m in (1, 100, 5000):
        plain, kept = (gemm_time(m, 4096, 4096, "bf16", CHIP, c, resident=share) for share in (0.0, 1.0))
        assert plain == kept
