"""Nano-batches in the tables: exactly nothing below their threshold, never more than the schedule saves above it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.cost.layers import attention_terms
from fleetcast.cost.overlap.nano import Nano, exposed, layers_time, nano_of, optimal, saved, table_of
from fleetcast.cost.overlap.operators import Batch, layer_operators
from fleetcast.cost.step import GRID
from tests.cost.overlap.ranks import rank

NANO = Nano(splits=(0.5, 0.5), skew=1, memory_share=0.4, network_share=0.2, least=512)


def plain(model: str, device: str, tp: int) -> Any:
    r = rank(model, device, tp)
    seconds = np.zeros_like(GRID)
    for index, count in enumerate(r.model.counts):
        ops = layer_operators(r, index, [Batch(float(t)) for t in GRID])
        seconds += count * np.array([sum(op.time for op in row) for row in ops])
    return r, seconds


def test_below_the_threshold_nothing_is_saved_at_all() -> None:
    r, seconds = plain("llama-2-70b", "a100-80g-sxm", 8)
    found = saved(r, NANO, GRID, seconds, 1.0)
    assert (found[GRID < 512] == 0.0).all()
    assert (found[GRID >= 1024] > 0.0).all()


@pytest.mark.parametrize(("model", "tp"), [("llama-2-70b", 8), ("llama-3.1-8b", 1), ("mixtral-8x7b", 8)])
def test_without_gain_cutting_only_costs(model: str, tp: int) -> None:
    r, seconds = plain(model, "a100-80g-sxm", tp)
    null = Nano(splits=NANO.splits, gain=0.0)
    assert (saved(r, null, GRID, seconds, 1.0) <= 1e-12).all()
    batch = Batch(1024.0, 600.0, 400_000.0)
    (ops,) = layer_operators(r, 0, [batch])
    whole = r.model.layers * sum(op.time for op in ops)
    assert layers_time(r, null, [batch])[0] >= whole * (1 - 1e-12)


def test_one_device_saves_nothing_without_attention_to_hide() -> None:
    r, seconds = plain("llama-3.1-8b", "a100-80g-sxm", 1)
    assert (saved(r, NANO, GRID, seconds, 1.0) <= 0.0).all()


CAPACITY = 1_000_000.0


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 2000), st.integers(0, 3000), st.floats(0.0, 1.0))
def test_attention_is_charged_no_less_than_it_adds(n: int, fresh: int, fill: float) -> None:
    """At contexts and token counts that were not sampled either, of iterations that are cut."""
    r = rank("llama-2-70b", "a100-80g-sxm", 8)
    attention = attention_terms(r)
    tables = exposed(r, NANO, attention, 2000, CAPACITY, 1.0)
    x, tokens = fill * min(CAPACITY, n * r.model.context), float(max(n + fresh, NANO.least))
    charged = tables["base"][n] + tables["slope"][n] * x
    both, without = layers_time(r, NANO, [Batch(tokens, float(n), x), Batch(tokens)])
    whole = attention["slope_full"] * x + 2 * (attention["launch"] + attention["base"]) + attention["head"] * n
    assert charged >= both - without - 0.03 * whole  # between the sampled sequences the tables are read linearly
    assert charged <= 1.5 * whole


def test_nothing_decodes_nothing_is_charged() -> None:
    r = rank("llama-2-70b", "a100-80g-sxm", 8)
    tables = exposed(r, NANO, attention_terms(r), 64, CAPACITY, 1.0)
    assert all(len(t) == 65 and t[0] == 0.0 for t in tables.values())
    assert (tables["base"][1:] > 0.0).all()


def test_optimum_of_llama_2_70b_on_a100_is_the_published_one() -> None:
    """Zhu et al.: 260 TFLOP/s measured / (2 x 70e9) = 1,857 tokens/s; ours from the fitted roof of products."""
    assert optimal(rank("llama-2-70b", "a100-80g-sxm", 8)) == pytest.approx(1857, rel=0.03)


def test_no_schedule_exceeds_the_optimum() -> None:
    r = rank("llama-2-70b", "a100-80g-sxm", 8)
    for tokens in (512.0, 2048.0, 8192.0):
        assert tokens / layers_time(r, NANO, [Batch(tokens)])[0] / 8 < optimal(r)


def test_tables_are_read_back() -> None:
    assert nano_of(table_of(NANO)) == NANO
    assert set(table_of(Nano())) == {"kind", *Nano.__struct_fields__}
    assert nano_of("nano") == Nano()
    assert nano_of("none") is None
    assert nano_of(None) is None
    assert nano_of({"kind": "none"}) is None


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("fancy", "plan.overlap: is unknown"),
        ("nanno", "did you mean 'nano'"),
        ({"kind": "fancy"}, "plan.overlap.kind: is unknown"),
        ({"splits": [0.5, 0.5]}, "plan.overlap.kind: is missing"),
        ({"kind": "none", "splits": [0.5, 0.5]}, "parameters without nano-batches"),
        ({"kind": "nano", "split": [0.5, 0.5]}, "split"),
        ({"kind": "nano", "splits": []}, "2 to 4 nano-batches"),
        ({"kind": "nano", "splits": [1.0]}, "2 to 4 nano-batches"),
        ({"kind": "nano", "splits": [0.2] * 5}, "2 to 4 nano-batches"),
        ({"kind": "nano", "splits": [0.0, 1.0]}, "without tokens"),
        ({"kind": "nano", "splits": [-0.5, 1.5]}, "without tokens"),
        ({"kind": "nano", "splits": [0.5, 0.4]}, "does not sum to 1"),
        ({"kind": "nano", "splits": [0.25] * 4, "least": 3}, "more nano-batches than it has tokens"),
        ({"kind": "nano", "least": 0}, "more nano-batches than it has tokens"),
        ({"kind": "nano", "skew": -1}, "0 to 16 stages"),
        ({"kind": "nano", "memory_share": 0.0}, "above 0"),
        ({"kind": "nano", "memory_share": 0.8, "network_share": 0.3}, "at most 0.9"),
        ({"kind": "nano", "gain": 1.5}, "0 to 1"),
        ({"kind": "nano", "splits": [float("nan"), 0.5]}, "plan.overlap.splits"),
    ],
)
def test_nonsense_is_refused(table: Any, words: str) -> None:
    with pytest.raises(SpecError) as error:
        nano_of(table)
    assert words.lower() in str(error.value).lower()
