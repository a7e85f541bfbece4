"""A model's parameters and FLOP as training sees them, against published counts and formulas."""

from __future__ import annotations

import pytest

from fleetcast.cost.training.network import of
from fleetcast.scenario.workload import catalog

PUBLISHED = {  # billions, SC 2021's Table 1
    "megatron-1.7b": 1.7, "megatron-3.6b": 3.6, "megatron-7.5b": 7.5, "megatron-18.4b": 18.4, "megatron-39.1b": 39.1,
    "megatron-76.1b": 76.1, "megatron-145.6b": 145.6, "megatron-310.1b": 310.1, "megatron-530b": 529.6,
    "megatron-1t": 1008.0,
}  # fmt: skip


@pytest.mark.parametrize(("name", "billions"), PUBLISHED.items())
def test_parameters_are_those_of_the_paper(name: str, billions: float) -> None:
    assert of(catalog.model(name)).params / 1e9 == pytest.approx(billions, abs=0.051 if billions < 100 else 0.06)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "mixtral-8x7b", "deepseek-v3", "gemma-2-9b", "gpt-oss-120b"])
def test_parameters_are_those_that_serving_counts(name: str) -> None:
    model = catalog.model(name)
    assert of(model).params == model.params() + model.vision_params


@pytest.mark.parametrize("name", ["megatron-22b", "gpt3-175b", "megatron-1t"])
def test_flops_are_narayanans_formula(name: str) -> None:
    net = of(catalog.model(name))
    h, s, v, layers = net.hidden, 2048, net.vocab, net.depth
    expected = 72 * layers * h * h * (1 + s / (6 * h) + v / (12 * layers * h))
    assert net.flops(s) == pytest.approx(expected, rel=1e-9)


def test_a_token_is_multiplied_with_the_experts_it_visits_alone() -> None:
    net = of(catalog.model("mixtral-8x7b"))
    assert net.params / 1e9 == pytest.approx(46.7, abs=0.05)
    assert net.active_params / 1e9 == pytest.approx(12.75, abs=0.05)
    assert net.experts == 8


def test_a_window_takes_fewer_flops_and_a_mask_half() -> None:
    net = of(catalog.model("llama-2-7b"))
    plain, masked = net.flops(8192), net.flops(8192, causal=True)
    pairs = 12 * net.hidden * 8192 * net.depth
    assert plain - masked == pytest.approx(pairs / 2)
