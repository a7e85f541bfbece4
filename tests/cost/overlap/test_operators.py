"""A layer's operators are the layer: nothing left out, nothing counted twice, no resource asked for more than once."""

import numpy as np
import pytest

from fleetcast.cost.layers import Rank, attention_terms, block_terms
from fleetcast.cost.overlap.operators import Batch, layer_operators
from tests.cost.overlap.ranks import rank

CASES = [
    ("llama-2-70b", "a100-80g-sxm", 8),
    ("llama-3.1-8b", "h100-sxm", 1),
    ("mixtral-8x7b", "a100-80g-sxm", 4),
    ("qwen3-30b-a3b", "h100-sxm", 2),
    ("gemma-2-9b", "h100-sxm", 2),
    ("deepseek-v3", "h200-sxm", 8),
]
MIX = Batch(tokens=700.0, decodes=300.0, context=240_000.0, prefills=2.0, pairs=90_000.0, reach=400.0)


def dense_seconds(r: Rank, index: int, tokens: float) -> float:
    terms = block_terms(r, index, np.array([tokens]))
    return float((terms.gemm + terms.stream + terms.reduce + terms.experts)[0])


@pytest.mark.parametrize(("model", "device", "tp"), CASES)
def test_operators_of_a_batch_add_up_to_the_layer(model: str, device: str, tp: int) -> None:
    r = rank(model, device, tp)
    for index in range(len(r.model.blocks)):
        (ops,) = layer_operators(r, index, [MIX])
        dense = sum(op.time for op in ops if not op.name.startswith("attention"))
        assert dense == pytest.approx(dense_seconds(r, index, MIX.tokens), rel=1e-12)


@pytest.mark.parametrize(("model", "device", "tp"), CASES[:4])
def test_attention_is_that_of_the_tables(model: str, device: str, tp: int) -> None:
    r = rank(model, device, tp)
    (ops,) = layer_operators(r, 0, [MIX])
    time = {op.name: op.time for op in ops}
    t, layers = attention_terms(r), r.model.layers
    slope = t["slope_full"] + t["slope_window"]
    decode = max(t["launch"] + t["head"] * MIX.decodes, t["base"] + slope * MIX.context) / layers
    prefill = t["pre_base"] * MIX.prefills + t["pre_pair"] * MIX.pairs
    prefill += t["pre_query"] * (MIX.tokens - MIX.decodes) + t["pre_context"] * MIX.reach
    assert time["attention decode"] == pytest.approx(decode, rel=1e-9)
    assert time["attention prefill"] == pytest.approx(prefill / layers, rel=1e-9)


@pytest.mark.parametrize(("model", "device", "tp"), CASES)
def test_no_operator_asks_for_more_than_there_is(model: str, device: str, tp: int) -> None:
    r = rank(model, device, tp)
    for batch in (MIX, Batch(1.0, 1.0, 10.0), Batch(16_384.0, prefills=4.0, pairs=1e7, reach=16_384.0)):
        for op in layer_operators(r, 0, [batch])[0]:
            assert all(0.0 <= d <= 1.0 for d in op.demand), op
            assert max(op.demand) > 0.0, op


def test_products_are_bound_by_arithmetic_and_decode_attention_by_memory() -> None:
    (ops,) = layer_operators(rank("llama-2-70b", "a100-80g-sxm", 8), 0, [Batch(2048.0, 1024.0, 1024 * 768.0)])
    demand = {op.name: op.demand for op in ops}
    assert demand["up"][0] > 0.8 > demand["up"][1]
    assert demand["attention decode"][1] > 0.9 > demand["attention decode"][0]
    assert demand["reduce attention"][2] == 1.0


def test_one_device_has_no_collectives() -> None:
    (ops,) = layer_operators(rank("llama-3.1-8b", "h100-sxm", 1), 0, [MIX])
    assert all("reduce" not in op.name for op in ops)


def test_smaller_batches_take_longer_together() -> None:
    r = rank("llama-2-70b", "a100-80g-sxm", 8)
    (whole,) = layer_operators(r, 0, [MIX])
    parts = layer_operators(r, 0, [MIX.part(0.5), MIX.part(0.5)])
    assert sum(op.time for ops in parts for op in ops) > sum(op.time for op in whole)
