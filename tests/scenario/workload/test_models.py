"""Models: sums over blocks, caches, quantised weights, ranks and stages."""

import dataclasses

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.scenario.workload.catalog import model, models
from fleetcast.scenario.workload.models import (
    Attention,
    Block,
    Ffn,
    Layout,
    Model,
    Precision,
    rank_bytes,
)
from fleetcast.scenario.workload.precision import BITS, DTYPES, as_engine

BF16 = Precision(weights="bf16")


def small(**attention: int | str | bool) -> Model:
    """A four-layer model of 256 with 8 heads of 32."""
    shape = {"heads": 8, "kv_heads": 4, "head_dim": 32} | attention
    block = Block(attention=Attention(**shape), ffn=Ffn(width=512))
    return Model(architecture="", hidden=256, vocab=1000, blocks=(block,), pattern=(0,) * 4, precision=BF16)


@pytest.mark.parametrize("id", models())
def test_parts_add_up_and_every_token_uses_fewer(id: str) -> None:
    found = model(id)
    assert sum(found.parts.values()) == found.params()
    assert 0 < found.active_params() <= found.params() + found.vocab * found.hidden
    assert found.embedding_params() < found.params()
    assert sum(found.counts) == found.layers
    assert found.precision.weights in BITS


SPREAD = [
    (id, ranks) for id in models() for ranks in (2, 4, 8, 16) if model(id).misfit(Layout(tensor_parallel=ranks)) is None
]


@pytest.mark.parametrize(("id", "ranks"), SPREAD)
def test_ranks_together_hold_the_whole(id: str, ranks: int) -> None:
    """What is cut adds up to the whole; norms, routers and spare KV heads are on every rank."""
    found, layout = model(id), Layout(tensor_parallel=ranks)
    for block, rows in zip(found.blocks, found.tensors, strict=True):
        for tensor in rows:
            whole = rank_bytes(tensor, Layout(), found.precision)
            held = ranks * rank_bytes(tensor, layout, found.precision)
            copies = 1 if tensor.split else ranks
            if block.attention and tensor.name in ("k", "v", "k_norm", "cross.k", "cross.v"):
                copies = max(1, ranks // block.attention.kv_heads)
            if tensor.split == "in" and tensor.bias:
                spare = (ranks - 1) * tensor.biases * found.precision.bytes_per_weight("norm")
                whole += spare
            assert held == pytest.approx(copies * whole, rel=1e-9), tensor.name


@pytest.mark.parametrize("id", ["deepseek-r1", "gpt-oss-120b", "qwen3-235b-a22b-fp8", "minimax-m2"])
def test_experts_spread_alike_over_width_and_number(id: str) -> None:
    found = model(id)
    wide = found.weight_bytes(Layout(tensor_parallel=8))
    many = found.weight_bytes(Layout(tensor_parallel=8, expert_parallel=8))
    mixed = found.weight_bytes(Layout(tensor_parallel=8, expert_parallel=2))
    assert many == pytest.approx(wide, rel=1e-2)
    assert mixed == pytest.approx(wide, rel=1e-2)
    lonely = found.weight_bytes(Layout(attention_dp=8, expert_parallel=8))
    assert lonely > many, "attention data parallelism repeats all but the experts"


@pytest.mark.parametrize("id", models())
@pytest.mark.parametrize("stages", [1, 2, 3, 7])
def test_stages_hold_every_layer_once(id: str, stages: int) -> None:
    found = model(id)
    cut = found.stages(stages)
    assert sum(cut, ()) == found.pattern
    assert max(map(len, cut)) - min(map(len, cut)) <= 1
    assert len(cut[-1]) == min(map(len, cut)), "the last stage has the LM head to do as well"
    total = sum(found.stage_bytes(Layout(pipeline_parallel=stages), found.precision))
    once = sum(found.stage_bytes(Layout(), found.precision))
    copy = found.vocab * found.hidden * BITS[found.precision.rest] / 8
    assert total == pytest.approx(once + (copy if found.tied and stages > 1 else 0), rel=1e-9)


@given(st.sampled_from([1, 2, 4, 8]), st.integers(1, 8), st.sampled_from([1.0, 2.0, 4.0]))
def test_kv_grows_with_heads_layers_and_bytes(kv_heads: int, layers: int, size: float) -> None:
    found = msgspec.structs.replace(small(kv_heads=kv_heads), pattern=(0,) * layers)
    assert found.kv_bytes_per_token(size) == 2 * kv_heads * 32 * layers * size


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]))
def test_ranks_share_kv_heads_or_repeat_them(kv_heads: int, ranks: int) -> None:
    found = small(kv_heads=kv_heads)
    held = ranks * found.kv_bytes_per_token(2.0, ranks)
    assert held == found.kv_bytes_per_token(2.0) * max(1, ranks // kv_heads)


@pytest.mark.parametrize(
    ("id", "elements"),
    [
        ("llama-3.1-70b", 80 * 2 * 8 * 128),
        ("llama-2-7b", 32 * 2 * 32 * 128),
        ("falcon-7b", 32 * 2 * 1 * 64),
        ("deepseek-r1", 61 * (512 + 64)),
        ("qwen3.5-397b-a17b", 15 * 2 * 2 * 256),
        ("whisper-large-v3", 32 * 2 * 20 * 64),
    ],
)
def test_kv_of_a_token(id: str, elements: int) -> None:
    assert model(id).kv_bytes_per_token(1.0) == elements


def test_latent_caches_are_on_every_rank() -> None:
    found = model("deepseek-r1")
    assert found.kv_bytes_per_token(1.0, 8) == found.kv_bytes_per_token(1.0)


def test_the_sparse_indexer_caches_keys_of_its_own() -> None:
    """128 fp8 bytes and an fp32 scale per token and layer, whatever the KV dtype."""
    found = model("glm-5")
    assert found.kv_bytes_per_token(2.0) - found.kv_bytes_per_token(1.0) == 78 * 576
    assert found.kv_bytes_per_token(1.0) == 78 * (576 + 132)


def test_windows_fill_up() -> None:
    found = model("gpt-oss-120b")
    each = 2 * 8 * 64 * 2.0
    assert [(g.window, g.layers) for g in found.kv_groups()] == [(0, 18), (128, 18)]
    assert found.kv_bytes_of(100) == 36 * 100 * each
    assert found.kv_bytes_of(10_000) == 18 * each * (10_000 + 128)
    assert found.full_share() == 0.5
    assert model("gemma-3-27b").full_share() == pytest.approx(10 / 62)
    assert model("llama-3.1-8b").full_share() == 1.0
    assert model("mistral-7b").full_share() == 0.0


def test_recurrent_state_does_not_grow() -> None:
    found = model("qwen3.5-397b-a17b")
    each = 64 * 128 * 128 * 4 + (2 * 16 * 128 + 64 * 128) * 3 * 2
    assert found.state_bytes() == 45 * each
    assert found.kv_bytes_of(0) == found.state_bytes()
    assert found.state_bytes(8) == pytest.approx(found.state_bytes() / 8)


def test_encoder_decoders_cache_what_the_encoder_said() -> None:
    found = model("whisper-large-v3")
    assert found.encoder_decoder and found.encoder_context == 1500
    assert found.cross_kv_bytes() == 32 * 2 * 1280 * 2.0
    assert found.layers == 64
    assert not model("gpt2").encoder_decoder
    assert model("gpt2").cross_kv_bytes() == 0


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d not in ("auto", "fp32")])
def test_fewer_bits_take_fewer_bytes(dtype: str) -> None:
    found = model("llama-3.1-70b")
    size, plain = found.weight_bytes(dtype=dtype), 2 * found.params()
    kept = 2 * (found.embedding_params() + found.parts["norm"])
    bits = BITS[dtype.removesuffix("-weights")]
    least = kept + (found.parts["attention"] + found.parts["ffn"]) * bits / 8
    if bits < 16:
        assert least <= size <= min(plain, 1.15 * least), "embeddings, head, norms stay in 16 bits"
    else:
        assert size == found.params() * bits / 8


def test_scales_weigh_what_they_weigh() -> None:
    bare, table = model("llama-3.1-8b").precision, {}
    for dtype in ("mxfp4", "nvfp4", "int4", "fp8"):
        table[dtype] = as_engine(dtype, bare).bytes_per_weight("ffn")
    assert table == {
        "mxfp4": 0.5 + 1 / 32,
        "nvfp4": 0.5 + 1 / 16,
        "int4": 0.5 + 2.5 / 128,
        "fp8": 1.0,
    }
    assert model("deepseek-r1").precision.bytes_per_weight("experts") == 1 + 4 / 128**2
    assert model("deepseek-r1").precision.bytes_per_weight("router") == 2.0


def test_a_checkpoint_keeps_its_own_format() -> None:
    oss = model("gpt-oss-120b").precision
    assert as_engine("auto", oss) == as_engine("mxfp4", oss) == oss
    assert oss.stored("experts") == "mxfp4" and oss.stored("attention") == "bf16"
    weights_only = as_engine("fp8-weights", model("deepseek-r1").precision)
    assert weights_only.multiplied("ffn") == "bf16" and weights_only.group == 128 * 128
    assert as_engine("auto", model("gpt2").precision).weights == "fp16", "fp32 is served in 16 bits"
    assert as_engine("fp8", model("gpt2").precision).multiplied("ffn") == "fp8"
    assert as_engine("int4", model("gpt2").precision).multiplied("ffn") == "fp16"


def test_engines_cannot_add_bits() -> None:
    with pytest.raises(SpecError, match=r"plan\.dtype: is wider than the checkpoint.*mxfp4"):
        model("gpt-oss-120b").weight_bytes(dtype="fp8")
    with pytest.raises(SpecError, match=r"Did you mean 'nvfp4'\?"):
        model("gpt2").weight_bytes(dtype="nvpf4")


@pytest.mark.parametrize(
    ("id", "layout", "constraint"),
    [
        ("llama-3.1-70b", Layout(tensor_parallel=3), "attention heads"),
        ("llama-3.1-70b", Layout(tensor_parallel=128), "attention heads"),
        ("llama-3.1-70b", Layout(pipeline_parallel=81), "pipeline stages"),
        ("llama-3.1-70b", Layout(tensor_parallel=2, expert_parallel=2), "expert parallelism"),
        ("falcon-7b", Layout(tensor_parallel=2), "attention heads"),
        ("deepseek-r1", Layout(tensor_parallel=8, expert_parallel=3), "expert parallelism"),
        ("mixtral-8x7b", Layout(tensor_parallel=16, expert_parallel=16), "experts"),
        ("qwen3-next-80b-a3b", Layout(tensor_parallel=32), "linear-attention heads"),
    ],
)
def test_layouts_that_no_engine_has(id: str, layout: Layout, constraint: str) -> None:
    misfit = model(id).misfit(layout)
    assert misfit is not None
    assert misfit.constraint == constraint
    assert misfit.need > 0


@pytest.mark.parametrize(
    ("id", "layout"),
    [
        ("llama-3.1-70b", Layout(tensor_parallel=8, pipeline_parallel=3)),
        ("llama-3.1-70b", Layout(tensor_parallel=16)),
        ("deepseek-r1", Layout(attention_dp=8, expert_parallel=8)),
        ("gpt-oss-120b", Layout(tensor_parallel=4, expert_parallel=2)),
        ("whisper-large-v3", Layout(tensor_parallel=2)),
    ],
)
def test_layouts_that_engines_have(id: str, layout: Layout) -> None:
    assert model(id).misfit(layout) is None


@pytest.mark.parametrize(
    ("id", "layout", "constraint", "need", "have"),
    [
        ("minimax-m2", Layout(tensor_parallel=8), "expert width in blocks of 128", 256, 192),
        ("minimax-m2", Layout(tensor_parallel=2, attention_dp=4), "expert width in blocks of 128", 256, 192),
        ("minimax-m2", Layout(tensor_parallel=4), "", 0, 0),
        ("minimax-m2", Layout(tensor_parallel=8, expert_parallel=8), "", 0, 0),
        ("deepseek-r1", Layout(tensor_parallel=16), "", 0, 0),
        ("deepseek-r1", Layout(tensor_parallel=32, expert_parallel=32), "width of 'ffn.gate' in blocks of 128",
         640, 576),
        ("deepseek-r1", Layout(attention_dp=32, expert_parallel=32), "", 0, 0),
    ],
)  # fmt: skip
def test_ranks_hold_whole_blocks_of_weights_with_one_scale(
    id: str, layout: Layout, constraint: str, need: int, have: int
) -> None:
    found = model(id)
    assert found.precision.block == (128, 128)
    misfit = found.misfit(layout, found.precision)
    assert (misfit is not None) == bool(constraint)
    if misfit is not None:
        assert (misfit.constraint, misfit.need, misfit.have) == (constraint, need, have)
        assert "one scale per 128 weights" in str(misfit)
    # quantised otherwise, or by the engine tensor by tensor, nothing stands in the way
    assert found.misfit(layout, as_engine("int4", found.precision)) is None
    assert found.misfit(layout) is None


def test_models_are_values() -> None:
    assert model("gpt2") == model("openai-community/gpt2")
    assert hash(model("gpt2")) == hash(model("gpt2"))
    with pytest.raises((AttributeError, dataclasses.FrozenInstanceError)):
        model("gpt2").hidden = 1
