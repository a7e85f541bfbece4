"""Attention: pairs against brute force, the decode line and its floor, and rows that were measured."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.cost.attention import (
    Decode,
    Prefill,
    decode_base,
    decode_floor,
    decode_head,
    decode_slope,
    decode_time,
    latent_slope,
    pairs,
    prefill_pair,
    prefill_time,
    prefill_token,
)
from fleetcast.cost.collectives import fabric_for
from fleetcast.cost.layers import Rank, attention_terms
from fleetcast.cost.roofline import Chip, coefficients_for
from fleetcast.scenario.fleet.catalog import device
from fleetcast.scenario.workload.catalog import model
from fleetcast.scenario.workload.models import Layout

CHIP = Chip("chip", "none", 1e12, 100, {"bf16": 100e12})
DECODE = Decode(launch=1e-5, head=1e-8, base=1.2e-5, memory=0.8, compute=0.5)
PREFILL = Prefill(launch=1e-5, compute=0.5, narrow=0.25, token=2.0, window=64.0)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 80))
def test_pairs_count_what_each_token_sees(new, cached, window):
    seen = 0
    for i in range(cached, cached + new):
        seen += min(i + 1, window) if window else i + 1
    assert pairs(new, cached, window) == seen


def test_pairs_broadcast():
    assert pairs([1, 2, 3], 10, [0, 0, 4]).tolist() == [11, 23, 12]


def test_decode_is_a_line_over_context_above_a_floor():
    n = np.array([0, 1, 64])
    floor, base = decode_floor(n, 8, 128, DECODE), decode_base(n, DECODE)
    assert floor.tolist() == pytest.approx([0.0, 1.008e-5, 1.512e-5])
    assert base.tolist() == [0.0, 1.2e-5, 1.2e-5]
    slope = float(decode_slope(32, 8, 128, "bf16", CHIP, DECODE))
    assert slope == pytest.approx(2 * 8 * 128 * 2 / 0.8e12)
    assert decode_time(64, 1e6, 32, 8, 128, "bf16", CHIP, DECODE) == pytest.approx(1.2e-5 + slope * 1e6)
    assert decode_time(64, 64, 32, 8, 128, "bf16", CHIP, DECODE) == pytest.approx(1.512e-5)


def test_an_eight_bit_cache_is_read_in_half_the_time_until_arithmetic_binds():
    wide = decode_slope(8, 8, 128, "bf16", CHIP, DECODE)
    assert decode_slope(8, 8, 128, "fp8", CHIP, DECODE) == pytest.approx(wide / 2)
    shared = decode_slope(128, 1, 128, "fp8", CHIP, DECODE)
    assert shared == pytest.approx(4 * 128 * 128 / 50e12)


def test_latent_attention_reads_one_latent_and_multiplies_every_head():
    few = latent_slope(1, 512, 64, "bf16", CHIP, DECODE)
    assert few == pytest.approx(576 * 2 / 0.8e12)
    many = latent_slope(128, 512, 64, "bf16", CHIP, DECODE)
    assert many == pytest.approx(2 * 128 * 1088 / 50e12)


def test_prefill_adds_up_from_its_parts():
    pair = prefill_pair(32, 128, CHIP, PREFILL)
    query, context = prefill_token(32, 128, CHIP, PREFILL), prefill_token(8, 128, CHIP, PREFILL)
    got = prefill_time(100, 400, 32, 8, 128, CHIP, PREFILL)
    assert got == pytest.approx(1e-5 + pair * pairs(100, 400) + query * 100 + context * 500)
    assert prefill_pair(32, 64, CHIP, PREFILL) == pytest.approx(pair)  # half the width at half the rate


def test_chunks_cost_what_the_whole_does_but_for_launches_and_rereading():
    whole = prefill_time(4096, 0, 32, 8, 128, CHIP, PREFILL)
    parts = sum(float(prefill_time(1024, c, 32, 8, 128, CHIP, PREFILL)) for c in range(0, 4096, 1024))
    reread = float(prefill_token(8, 128, CHIP, PREFILL)) * (1024 + 2048 + 3072)
    assert parts - 3e-5 - reread == pytest.approx(float(whole), rel=1e-9)


def test_a_window_never_costs_more_and_reads_whole_blocks():
    full = prefill_time(8192, 0, 32, 8, 128, CHIP, PREFILL)
    short = prefill_time(8192, 0, 32, 8, 128, CHIP, PREFILL, 1024)
    assert short < full
    exact = Prefill(launch=1e-5, compute=0.5, narrow=0.25, token=2.0, window=0.0)
    assert prefill_time(8192, 0, 32, 8, 128, CHIP, exact, 1024) < short


# Measured: aiconfigurator perf tables (Apache-2.0), vLLM 0.24 on H100, 0.14 on A100, 0.22 on B200; LLMServingSim
# (MIT), vLLM 0.19 on RTX PRO 6000 in its engine, so with a cold cache; 32 query and 8 key heads of 128; us.
DECODES = [
    ("h100-sxm", 64, 64 * 2048, 186.7),
    ("h100-sxm", 8, 8 * 16384, 210.3),
    ("h100-sxm", 256, 256, 66.5),
    ("a100-80g-sxm", 128, 128 * 1024, 343.1),
    ("b200-sxm", 64, 64 * 2048, 81.5),
    ("rtx-pro-6000-server", 8, 8 * 1024, 36.9),
    ("rtx-pro-6000-server", 8, 8 * 2048, 60.4),
    ("rtx-pro-6000-server", 64, 64 * 1024, 221.2),
]


@pytest.mark.parametrize(("name", "n", "context", "us"), DECODES)
def test_measured_decodes(name, n, context, us):
    chip = device(name)
    c = coefficients_for(chip).get("decode", "bf16", Decode)
    assert decode_time(n, context, 32, 8, 128, "bf16", chip, c) * 1e6 == pytest.approx(us, rel=0.2)


# The same tables, 8 key heads of 64, contexts of two tokens: the floor alone, us.
NARROW = [("h100-sxm", 128, 32.0), ("h100-sxm", 256, 54.0)]


@pytest.mark.parametrize(("name", "n", "us"), NARROW)
def test_the_floor_of_narrow_heads_grows_with_the_root_of_their_width(name, n, us):
    chip = device(name)
    c = coefficients_for(chip).get("decode", "bf16", Decode)
    assert decode_floor(n, 8, 64, c) * 1e6 == pytest.approx(us, rel=0.1)
    assert decode_head(8, 64, c) == pytest.approx(8 * c.head / 2**0.5)


def test_the_world_reads_the_floor_that_was_fitted():
    chip, architecture = device("h100-sxm"), model("llama-3.2-1b")  # heads of 64
    rank = Rank(
        model=architecture, layout=Layout(tensor_parallel=2), precision=architecture.precision, kv_dtype="bf16",
        chip=chip, fitted=coefficients_for(chip), inner=fabric_for("h100-sxm", "nvlink", 4.5e11),
        outer=fabric_for("h100-sxm", "infiniband", 5e10), per_node=8,
    )  # fmt: skip
    terms, c = attention_terms(rank), rank.fitted.get("decode", "bf16", Decode)
    floor = decode_floor([1, 100], 4, 64, c) * architecture.layers
    assert terms["launch"] + terms["head"] * np.array([1, 100]) == pytest.approx(floor)


PREFILLS = [("h100-sxm", 2048, 89.0), ("h100-sxm", 8192, 912.2), ("h100-sxm", 16384, 3310.4)]


@pytest.mark.parametrize(("name", "length", "us"), PREFILLS)
def test_measured_prefills(name, length, us):
    chip = device(name)
    c = coefficients_for(chip).get("prefill", "bf16", Prefill)
    assert prefill_time(length, 0, 32, 8, 128, chip, c) * 1e6 == pytest.approx(us, rel=0.2)


def test_what_follows_each_other_adds_up_and_what_overlaps_does_not():
    plain = Decode(launch=0.0, head=0.0, base=1e-5, memory=0.5, compute=0.01)
    chip = Chip("chip", "none", 1e11, 2, {"bf16": 1e12})
    read, multiply = 2 * 4 * 64 * 2.0 / 5e10, 4 * 16 * 64 / 1e10
    for adds in (0.0, 0.5, 1.0):
        c = replace(plain, adds=adds)
        assert decode_slope(16, 4, 64, "bf16", chip, c) == pytest.approx(multiply + adds * read)
