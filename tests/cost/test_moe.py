"""Experts: how many are touched against brute force, the busiest rank, and rows that were measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.cost.moe import Experts, busiest, distinct_experts, experts_time
from fleetcast.cost.roofline import Chip, coefficients_for
from fleetcast.scenario.fleet.catalog import device

CHIP = Chip("chip", "none", 1e12, 100, {"bf16": 100e12})
PLAIN = Experts(launch=0.0, compute=1.0, memory=1.0, sharp=8)


@pytest.mark.parametrize(("tokens", "experts", "top_k"), [(1, 8, 2), (4, 8, 2), (16, 128, 8), (40, 64, 6)])
def test_distinct_experts_match_a_uniform_router(tokens, experts, top_k):
    rng = np.random.default_rng(3)
    draws = [len({e for _ in range(tokens) for e in rng.choice(experts, top_k, replace=False)}) for _ in range(400)]
    assert distinct_experts(tokens, experts, top_k) == pytest.approx(np.mean(draws), rel=0.02)


@given(st.integers(0, 5000), st.integers(1, 512), st.integers(1, 16), st.floats(0.1, 1.0))
def test_distinct_experts_stay_within_what_exists(tokens, experts, top_k, spread):
    top_k = min(top_k, experts)
    got = float(distinct_experts(tokens, experts, top_k, spread))
    assert 0 <= got <= experts + 1e-9
    assert got <= tokens * top_k + 1e-9
    assert tokens == 0 or got >= top_k - 1e-6
    assert got <= float(distinct_experts(tokens + 1, experts, top_k, spread)) + 1e-9


def test_the_busiest_of_many_ranks_has_more_than_the_mean():
    rng = np.random.default_rng(5)
    high = np.mean([rng.poisson(8, 32).max() for _ in range(500)])
    assert busiest(8.0, 32, 64) == pytest.approx(high, rel=0.15)
    assert busiest(8.0, 1, 64) == 8.0
    assert busiest(8.0, 32, 10) == 10.0


def test_all_weights_are_read_once_many_tokens_come():
    got = experts_time(64, 1024, 512, 8, 2, "bf16", CHIP, PLAIN)
    assert got == pytest.approx(8 * 3 * 1024 * 512 * 2 / 1e12, rel=0.1)
    one = experts_time(1, 1024, 512, 8, 2, "bf16", CHIP, PLAIN)
    assert one == pytest.approx(2 * 3 * 1024 * 512 * 2 / 1e12, rel=0.1)


def test_splitting_divides_the_work_but_not_the_shuffle():
    many = 100_000
    c = Experts(launch=0.0, compute=1.0, memory=1.0, sharp=8, shuffle=4.0)
    whole = experts_time(many, 1024, 4096, 8, 2, "bf16", CHIP, PLAIN)
    for cut in ({"tensor_parallel": 4}, {"expert_parallel": 4}):
        part = experts_time(many, 1024, 4096, 8, 2, "bf16", CHIP, PLAIN, **cut)
        assert part == pytest.approx(whole / 4, rel=0.02)
        shuffled = experts_time(many, 1024, 4096, 8, 2, "bf16", CHIP, c, **cut)
        assert shuffled - part == pytest.approx(many * 2 * 1024 * 4 / 1e12)


def test_more_tokens_are_never_faster_and_none_are_free():
    chip = device("h200-sxm")
    for dtype in ("bf16", "fp8", "fp8-block", "int4", "mxfp4"):
        c = coefficients_for(chip).get("moe", dtype, Experts)
        times = experts_time(np.arange(0, 4000), 7168, 2048, 256, 8, dtype, chip, c, expert_parallel=8)
        assert times[0] == 0.0
        assert np.all(np.diff(times) >= -1e-15)


# Measured: aiconfigurator perf tables (Apache-2.0), vLLM 0.24 on H100, 0.22 on H200, power-law router; us.
MEASURED = [
    ("h100-sxm", "bf16", 32, 4096, 14336, 8, 2, 1, 1032.0),
    ("h100-sxm", "bf16", 8192, 4096, 14336, 8, 2, 8, 1304.0),
    ("h100-sxm", "bf16", 64, 2048, 768, 128, 8, 1, 404.0),
    ("h100-sxm", "fp8-block", 32, 7168, 2048, 256, 8, 8, 247.0),
    ("h200-sxm", "fp8", 64, 4096, 14336, 8, 2, 1, 363.0),
]


@pytest.mark.parametrize(("name", "dtype", "tokens", "hidden", "width", "experts", "top_k", "tp", "us"), MEASURED)
def test_measured_experts(name, dtype, tokens, hidden, width, experts, top_k, tp, us):
    chip = device(name)
    c = coefficients_for(chip).get("moe", dtype, Experts)
    got = experts_time(tokens, hidden, width, experts, top_k, dtype, chip, c, tensor_parallel=tp)
    assert got * 1e6 == pytest.approx(us, rel=0.35)  # the tables themselves: 90 % lie within 40 %
