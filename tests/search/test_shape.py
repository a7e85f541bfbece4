"""Advice on sizes: products against the model's own, tiles by hand, and a choice that an exhaustive look confirms."""

from dataclasses import replace
from math import ceil

import pytest

import fleetcast
from fleetcast.cost.training import network
from fleetcast.scenario.workload import catalog
from fleetcast.scenario.workload.training import Shape
from fleetcast.search.shape.advisor import advise, products, share, sizes, time
from fleetcast.search.shape.tiles import ODD, SHORT, fit, padded, tiling

H100 = tiling("gpu", 132)
ODDLY = Shape(layers=24, hidden=2000, heads=25, vocab=50257)


def of(shape, tokens=4096, **cut):
    return sizes(network.of(shape.model(tokens)), tokens=tokens, **cut)


@pytest.mark.parametrize("model", ["megatron-1.7b", "llama-3.1-8b", "mixtral-8x7b"])
@pytest.mark.parametrize("tensor", [1, 4])
def test_products_are_the_models_own(model, tensor):
    net = network.of(catalog.model(model))
    found = list(products(sizes(net, tokens=1024, tensor=tensor)))
    layer = net.layers[0]
    dense = sum(m.outputs * m.inputs for m in layer.matrices)
    routed = layer.expert_matrices * net.hidden * layer.expert_ffn * layer.top_k if layer.experts else 0
    gate = net.hidden * layer.experts if layer.experts else 0  # the router's own product is too small to size
    expected = 2 * 1024 * (net.depth * (dense - gate + routed) + net.vocab * net.hidden) / tensor
    assert sum(p.flops for p in found) == pytest.approx(expected, rel=2e-3)


def test_one_tile_more_than_a_wave_takes_another_wave():
    full, more = fit(128 * 132, 128, 4096, H100), fit(128 * 132 + 1, 128, 4096, H100)
    assert full.share > more.share
    one = replace(H100, tiles=((128, 128, 1.0),))
    assert fit(128 * 132, 128, 64, one).share == 1.0
    over = fit(128 * 133, 128, 64, one)
    assert over.waves == pytest.approx(133 / 132) and over.last == pytest.approx(133 / 264)
    edge = fit(129, 128, 64, one)
    assert edge.edges == pytest.approx(129 / 256) and edge.last == pytest.approx(2 / 132)


def test_rows_that_are_no_whole_lines_are_slower():
    assert [fit(4096, n, 4096, H100).aligned for n in (4096, 4104, 4097)] == [1.0, SHORT, ODD]
    assert fit(4096, 4096, 4100, H100).aligned == ODD


def test_shares_are_shares():
    for m in (1, 63, 128, 1000, 8192):
        for n in (8, 100, 4096, 50257):
            found = fit(m, n, 1024, H100)
            assert 0 < found.share <= 1 and 0 < found.edges <= 1 and 0 < found.last <= 1
    assert padded(128) == 1.0 and padded(80) == pytest.approx(80 / 96) and padded(300) == pytest.approx(300 / 512)


def test_the_advised_size_gains_what_it_says_and_nothing_nearer_does():
    s = of(ODDLY)
    found = {one.name: one for one in advise(s, H100).fields}
    ffn = found["ffn"]
    assert ffn.better is not None
    gain = share(replace(s, ffn=ffn.better), H100) / share(s, H100)
    assert gain == pytest.approx(1 + ffn.gain, rel=1e-12)
    every = {n: share(replace(s, ffn=n), H100) / share(s, H100) - 1 for n in range(7000, 9001)}
    best = max(every.values())
    nearer = [n for n in every if abs(n - s.ffn) < abs(ffn.better - s.ffn)]
    assert all(every[n] < 0.8 * best for n in nearer)


def test_a_vocabulary_only_grows_and_what_is_added_says_nothing():
    s = of(ODDLY)
    vocab = next(one for one in advise(s, H100).fields if one.name == "vocab")
    assert vocab.better is not None and vocab.now < vocab.better <= vocab.now + 1024 and vocab.better % 64 == 0
    now, then = time(s, H100)[1], time(replace(s, vocab=vocab.better), H100)[1]
    assert now / then == pytest.approx(1 + vocab.gain, rel=1e-12)


def test_every_advised_size_splits_over_the_ranks():
    shape = Shape(layers=48, hidden=6144, heads=48, kv_heads=8, ffn=16500, gated=True, vocab=50257)
    for tensor in (1, 2, 4, 8):
        found = advise(of(shape, tensor=tensor), H100)
        for one in found.fields:
            if one.better is not None and one.name != "hidden":
                assert one.better % tensor == 0, one
        assert found.better >= found.share
    ffn = next(one for one in advise(of(shape, tensor=8), H100).fields if one.name == "ffn")
    assert ffn.better is not None and any("does not split over 8 ranks" in why for why in ffn.reasons)


def test_a_well_cut_model_is_left_alone():
    s = of(Shape(layers=4, hidden=4096, heads=32, ffn=16384, vocab=65536), tokens=128 * 128)
    even = tiling("gpu", 128)
    assert [one.better for one in advise(s, even).fields] == [None] * 4


def test_experts_with_few_rows_are_said_to_have_them():
    s = of(Shape(layers=4, hidden=2048, heads=16, ffn=1408, experts=64, top_k=2, gated=True, vocab=32000), 4096)
    experts = next(one for one in advise(s, H100).fields if one.name == "experts")
    assert any("128 rows" in why for why in experts.reasons)
    rows = {p.name: p for p in products(replace(s, expert=8))}
    assert rows["experts, in"].m == 4096 * 2 * 8 / 64 and rows["experts, in"].copies == 8


def test_on_a_processor_vectors_are_what_counts():
    how = tiling("cpu", 8)
    assert fit(64, 65, 16, how).share == pytest.approx(65 / (16 * ceil(65 / 16)) * ODD / ODD, rel=0.1)
    assert fit(64, 64, 16, how).share == 1.0


def test_advise_and_check_speak_of_a_training_scenario():
    table = {
        "fleet": {"devices": "8x h100-sxm"}, "plan": {"tensor_parallel": 8, "micro_batch": 2},
        "workload": {
            "kind": "training", "sequence": 2048, "batch": 64,
            "model": {"layers": 24, "hidden": 6144, "heads": 48, "ffn": 16504, "vocab": 50257},
        },
    }  # fmt: skip
    found = fleetcast.advise(table)
    assert found.sizes.tensor == 8 and found.sizes.tokens == 4096 and found.device.startswith("NVIDIA H100")
    assert found.table()["fields"][1]["name"] == "ffn"
    said = [r for r in fleetcast.check(table) if "of the peak by their sizes" in r.text]
    assert len(said) == 1 and said[0].level == "warning" and "ffn" in said[0].text
