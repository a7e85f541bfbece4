"""config.json: what each class assumes, and files that are broken or hostile."""

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base.errors import FleetcastError, SpecError, Unsupported
from fleetcast.scenario.workload.architectures import BUILDERS, from_config
from fleetcast.scenario.workload.architectures.fields import SIZE_LIMIT
from fleetcast.scenario.workload.catalog import entries
from fleetcast.scenario.workload.models import Attention, Model

TINY: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "vocab_size": 100, "max_position_embeddings": 512, "torch_dtype": "bfloat16",
}  # fmt: skip


def tiny(architecture: str, **fields: object) -> Model:
    return from_config(TINY | {"architectures": [architecture]} | fields, "tiny")


def attention(model: Model, block: int = 0) -> Attention:
    found = model.blocks[block].attention
    assert found is not None
    return found


def windows(model: Model) -> list[int]:
    return [attention(model, i).window for i in model.pattern]


# What config.json leaves out. -----------------------------------------------------------------


def test_llama_has_as_many_kv_heads_as_heads_unless_told() -> None:
    assert attention(tiny("LlamaForCausalLM")).kv_heads == 4
    assert attention(tiny("LlamaForCausalLM", num_key_value_heads=None)).kv_heads == 4
    assert attention(tiny("LlamaForCausalLM", num_key_value_heads=2)).kv_heads == 2
    assert attention(tiny("LlamaForCausalLM", head_dim=32)).head_dim == 32


def test_mistral_assumes_a_window_only_where_none_is_written() -> None:
    heads = {"num_key_value_heads": 2}
    assert windows(tiny("MistralForCausalLM", **heads)) == [4096] * 4
    assert windows(tiny("MistralForCausalLM", sliding_window=None, **heads)) == [0] * 4
    assert windows(tiny("MistralForCausalLM", sliding_window=8, **heads)) == [8] * 4


@pytest.mark.parametrize("architecture", ["Qwen2ForCausalLM", "Qwen3ForCausalLM", "Qwen2MoeForCausalLM"])
def test_qwen_windows_need_their_switch(architecture: str) -> None:
    fields = {"num_key_value_heads": 2, "sliding_window": 16, "max_window_layers": 3}
    assert windows(tiny(architecture, **fields)) == [0] * 4
    assert windows(tiny(architecture, use_sliding_window=False, **fields)) == [0] * 4
    assert windows(tiny(architecture, use_sliding_window=True, **fields)) == [0, 0, 0, 16]


def test_qwen2_is_biased_and_qwen3_is_normed() -> None:
    assert attention(tiny("Qwen2ForCausalLM", num_key_value_heads=2)).bias == "qkv"
    third = attention(tiny("Qwen3ForCausalLM", num_key_value_heads=2))
    assert (third.bias, third.qk_norm, third.head_dim) == ("", "head", 128)


def test_gemma_heads_are_not_hidden_over_heads() -> None:
    first = attention(tiny("GemmaForCausalLM", num_key_value_heads=1))
    assert first.head_dim == 256
    second = tiny("Gemma2ForCausalLM", num_key_value_heads=2)
    assert windows(second) == [4096, 0, 4096, 0]
    assert second.tied and second.blocks[0].norms == 4
    third = tiny("Gemma3ForCausalLM", num_hidden_layers=13, sliding_window=512)
    assert [i for i, window in enumerate(windows(third)) if not window] == [5, 11]
    spelled = tiny("Gemma3ForCausalLM", layer_types=["full_attention"] * 4)
    assert windows(spelled) == [0] * 4


def test_gemma3_is_nested_and_leaves_out_what_the_class_knows() -> None:
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "sliding_window": 1024,
    }
    model = from_config(
        {
            "architectures": ["Gemma3ForConditionalGeneration"],
            "text_config": text,
            "vision_config": {},
        },
        "gemma-3-4b",
    )
    assert model.vocab == 262208
    assert (attention(model).heads, attention(model).kv_heads) == (8, 4)
    assert model.params() + model.vision_params == 4_300_079_472  # Hub, google/gemma-3-4b-it


@pytest.mark.parametrize(
    ("flags", "kv_heads", "norms"),
    [
        ({}, 1, 2),
        ({"multi_query": False}, 4, 2),
        ({"multi_query": True, "parallel_attn": False}, 1, 4),
        ({"new_decoder_architecture": True, "num_kv_heads": 2}, 2, 4),
        ({"new_decoder_architecture": True, "n_head_kv": 2, "multi_query": True}, 2, 4),
        ({"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}, 2, 2),
        ({"new_decoder_architecture": True}, 4, 4),
        ({"n_head_kv": 2}, 2, 4),
    ],
)
def test_falcon_has_three_flags(flags: dict[str, object], kv_heads: int, norms: int) -> None:
    model = tiny("FalconForCausalLM", **flags)
    assert (attention(model).kv_heads, model.blocks[0].norms) == (kv_heads, norms)


def test_gpt_oss_has_biases_and_sinks() -> None:
    model = tiny("GptOssForCausalLM", num_key_value_heads=2, num_local_experts=8)
    assert attention(model).sinks and attention(model).bias == "qkvo"
    assert model.blocks[0].ffn.bias and model.blocks[0].ffn.router_bias
    assert windows(model) == [128, 0, 128, 0]
    assert model.dtype == "bf16"


def test_deepseek_starts_dense() -> None:
    fields = {
        "n_routed_experts": 8,
        "moe_intermediate_size": 32,
        "num_experts_per_tok": 2,
        "v_head_dim": 128,
    }
    model = tiny("DeepseekV3ForCausalLM", **fields)
    assert [model.blocks[i].ffn.experts for i in model.pattern] == [0, 0, 0, 8]
    assert tiny("DeepseekV3ForCausalLM", first_k_dense_replace=0, **fields).counts == (4,)
    assert model.mtp_params == 0
    assert tiny("DeepseekV3ForCausalLM", num_nextn_predict_layers=1, **fields).mtp_params > 0
    lite = tiny("DeepseekV2ForCausalLM", q_lora_rank=None, **fields)
    assert attention(lite).q_lora == 0


def test_glm5_layers_may_share_an_indexer() -> None:
    model = tiny("GlmMoeDsaForCausalLM", indexer_types=["full", "shared", "shared", "full"])
    assert [attention(model, i).index_heads for i in model.pattern] == [64, 0, 0, 64]
    assert {attention(model, i).index_top_k for i in model.pattern} == {2048}


def test_qwen_moe_can_have_dense_layers() -> None:
    fields = {"num_experts": 8, "num_experts_per_tok": 2, "num_key_value_heads": 2}
    model = tiny("Qwen3MoeForCausalLM", mlp_only_layers=[0], decoder_sparse_step=1, **fields)
    assert [model.blocks[i].ffn.experts for i in model.pattern] == [0, 8, 8, 8]
    model = tiny("Qwen3MoeForCausalLM", decoder_sparse_step=2, **fields)
    assert [model.blocks[i].ffn.experts for i in model.pattern] == [0, 8, 0, 8]


def test_hybrids_mix_recurrence_and_attention() -> None:
    model = tiny("Qwen3NextForCausalLM", num_key_value_heads=2)
    assert [model.blocks[i].attention is None for i in model.pattern] == [True, True, True, False]


def test_older_files_use_older_names() -> None:
    old = {
        "architectures": ["BloomForCausalLM"],
        "n_embed": 64,
        "n_layer": 2,
        "n_head": 4,
        "vocab_size": 9,
    }
    new = {"architectures": ["BloomForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2} | {
        "num_attention_heads": 4, "vocab_size": 9,
    }  # fmt: skip
    assert from_config(old, "x") == from_config(new, "x")


def test_the_model_type_stands_in_for_a_missing_architecture() -> None:
    assert from_config(TINY | {"model_type": "llama"}, "x").architecture == "LlamaForCausalLM"


def test_tied_embeddings_are_the_class_s_default() -> None:
    assert not tiny("LlamaForCausalLM").tied
    assert tiny("LlamaForCausalLM", tie_word_embeddings=True).tied
    assert tiny("GemmaForCausalLM", num_key_value_heads=1).tied
    assert not tiny("GemmaForCausalLM", num_key_value_heads=1, tie_word_embeddings=False).tied


# How checkpoints are stored. ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantised", "weights", "activations", "bytes_each"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", "fp8", 1 + 4 / 16384),
        ({"quant_method": "fbgemm_fp8"}, "fp8", "fp8", 1.0),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "int4", "bf16", 0.5 + 2.5 / 128),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "int8", "bf16", 1.0),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", "nvfp4", 0.5 + 1 / 16),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8", "bf16", 1.0),
    ],
)
def test_quantisation_methods(quantised: dict[str, object], weights: str, activations: str, bytes_each: float) -> None:
    precision = tiny("LlamaForCausalLM", quantization_config=quantised).precision
    assert (precision.weights, precision.activations) == (weights, activations)
    assert precision.bytes_per_weight("ffn") == bytes_each
    assert precision.bytes_per_weight("embedding") == 2.0


def test_exempt_modules_stay_wide() -> None:
    listed = [f"model.layers.{i}.self_attn.q_proj" for i in range(4)] + [
        "lm_head",
        "model.layers.2.mlp.gate",
    ]
    quantised = {"quant_method": "fp8", "modules_to_not_convert": listed}
    assert "attention" not in tiny("LlamaForCausalLM", quantization_config=quantised).precision.parts
    assert "ffn" in tiny("LlamaForCausalLM", quantization_config=quantised).precision.parts
    first = {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0.self_attn"]}
    assert "attention" in tiny("LlamaForCausalLM", quantization_config=first).precision.parts


def test_unknown_quantisation_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"quantization_config: quantisation 'magic'"):
        tiny("LlamaForCausalLM", quantization_config={"quant_method": "magic"})
    with pytest.raises(SpecError, match="must be a table"):
        tiny("LlamaForCausalLM", quantization_config=7)
    with pytest.raises(SpecError, match="torch_dtype"):
        tiny("LlamaForCausalLM", torch_dtype="float4000")


# Broken and hostile files. --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", -1), ("hidden_size", 0), ("hidden_size", 1.5), ("hidden_size", "4096"),
        ("hidden_size", True), ("hidden_size", [1]), ("hidden_size", math.nan),
        ("hidden_size", 10**30),
        ("num_hidden_layers", 10**9), ("num_hidden_layers", 0), ("num_attention_heads", 7),
        ("num_attention_heads", 10**7), ("num_key_value_heads", 3), ("num_key_value_heads", {}),
        ("vocab_size", 10**12), ("max_position_embeddings", -5), ("head_dim", math.inf),
        ("attention_bias", "yes"), ("tie_word_embeddings", 1), ("intermediate_size", None),
    ],
)  # fmt: skip
def test_impossible_fields_are_named_with_value_and_limit(field: str, value: object) -> None:
    with pytest.raises(SpecError) as caught:
        tiny("LlamaForCausalLM", **{field: value})
    text = str(caught.value)
    assert f"tiny.{field}" in text
    assert "config.json from the model's own repository" in text
    assert caught.value.limit
    assert len(text) < 400


@pytest.mark.parametrize(
    "content",
    [
        b"", b"not json", b"[]", b"3", b"null", b'"text"', b"{", b'{"a": NaN}', b'{"a": Infinity}',
        b"[" * 100_000, b'{"a":' * 100_000,
        b"\xff\xfe\x00", b'{"hidden_size": ' + b"9" * 6000 + b"}",
        b"{}", b'{"architectures": []}', b'{"architectures": "LlamaForCausalLM"}',
        b'{"architectures": [7]}', b'{"architectures": ["LlamaForCausalLM"]}',
        b'{"architectures": ["Gemma3ForConditionalGeneration"], "text_config": []}',
        b'{"model_type": "' + b"x" * 100_000 + b'"}',
    ],
    ids=range(20),
)  # fmt: skip
def test_broken_files_end_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    started = time.process_time()
    with pytest.raises(FleetcastError) as caught:
        from_config(path)
    assert "config.json" in str(caught.value)
    assert len(str(caught.value)) < 3000
    assert time.process_time() - started < 2.0


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(SIZE_LIMIT + 1)
    with pytest.raises(SpecError, match=f"too large.*at most {SIZE_LIMIT}"):
        from_config(path)


def test_hostile_patterns_are_searched_not_run() -> None:
    ignore = ["re:" + "(a+)+" * 20 + "$", "layers." + "9" * 100_000] * 50
    started = time.process_time()
    tiny("LlamaForCausalLM", quantization_config={"quant_method": "fp8", "ignore": ignore})
    assert time.process_time() - started < 1.0


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-10, 10**12), st.floats(), st.text(max_size=5),
    st.lists(st.integers(-3, 300), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@given(st.data())
def test_any_field_may_be_anything(data: st.DataObject) -> None:
    """A published config with fields replaced by anything is a model or an error, never a crash."""
    entry = entries()[data.draw(st.sampled_from(sorted(entries())))]
    config = json.loads(json.dumps(entry.config))
    inner = config.get("text_config", config)
    for name in data.draw(st.lists(st.sampled_from(sorted(inner)), min_size=1, max_size=3)):
        inner[name] = data.draw(VALUES)
    try:
        model = from_config(config, "fuzzed")
    except FleetcastError as error:
        assert str(error)
    else:
        assert model.params() > 0 and model.weight_bytes() > 0
        assert model.kv_bytes_per_token() >= 0


QUANTISED = st.dictionaries(
    st.sampled_from(
        [
            "bits",
            "group_size",
            "weight_block_size",
            "quant_algo",
            "config_groups",
            "ignore",
            "w_bit",
        ]
    ),
    st.one_of(
        VALUES,
        st.just({"group_0": {"weights": {"num_bits": 4, "type": []}}}),
        st.just({"group_0": {"weights": {"num_bits": 4, "group_size": "x"}}}),
        st.just([128, -1]),
    ),
)


@given(st.sampled_from(["fp8", "gptq", "awq", "modelopt", "compressed-tensors", "mxfp4", 3]), QUANTISED)
def test_any_quantisation_may_be_anything(method: object, fields: dict[str, object]) -> None:
    try:
        model = tiny("LlamaForCausalLM", quantization_config=fields | {"quant_method": method})
    except FleetcastError as error:
        assert "quantization_config" in str(error)
    else:
        assert model.weight_bytes() > 0


@pytest.mark.parametrize("depth", [40, 300, 900])
def test_deep_nesting_is_refused_even_where_json_can_read_it(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"hidden_size": ' + "[" * depth + "]" * depth + "}")
    with pytest.raises(SpecError, match="nested too deeply"):
        from_config(path)
    loop: dict[str, Any] = dict(TINY)
    loop["head_dim"] = loop
    with pytest.raises(SpecError, match="nested too deeply"):
        from_config(loop, "loop")


@given(st.sampled_from(sorted(BUILDERS)), st.dictionaries(st.sampled_from(sorted(TINY)), VALUES))
def test_any_architecture_may_be_anything(architecture: str, fields: dict[str, object]) -> None:
    try:
        model = tiny(architecture, **fields)
    except FleetcastError as error:
        assert str(error)
    else:
        assert model.params() > 0


@given(st.dictionaries(st.text(max_size=20), VALUES, max_size=5))
def test_any_table_is_refused_or_read(table: dict[str, Any]) -> None:
    with pytest.raises(FleetcastError):
        from_config(table, "x")
