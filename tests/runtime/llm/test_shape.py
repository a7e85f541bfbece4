"""What a config.json means for the arithmetic."""

import importlib
import math
import sys

import pytest

from fleetcast.base.errors import FleetcastError, MissingExtra, SpecError, Unsupported
from fleetcast.runtime.llm.shape import FAMILIES, read_shape
from fleetcast.scenario.workload import catalog
from fleetcast.scenario.workload.architectures import from_config

TINY = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "num_hidden_layers": 3, "vocab_size": 61, "max_position_embeddings": 512,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("more", [{}, {"tie_word_embeddings": True}, {"attention_bias": True, "mlp_bias": True}])
def test_the_tensors_add_up_to_the_catalogue_readers_parameters(family, more):
    config = TINY | {"architectures": [family]} | more
    shape = read_shape(config)
    listed, parts = list(shape.checkpoint()), list(shape.parts())
    assert len({stored.name for stored in listed}) == len(listed)
    assert len({name for name, _ in parts}) == len(parts)
    assert sorted(part for stored in listed for part, _ in stored.parts) == sorted(name for name, _ in parts)
    counted = from_config(config).params()
    assert sum(math.prod(size) for _, size in shape.tensors()) == counted
    assert sum(math.prod(size) for _, size in parts) == counted


@pytest.mark.parametrize("id", [id for id, m in catalog.models().items() if m.architecture in FAMILIES])
def test_catalogue_models_have_their_parameters(id):
    model = catalog.model(id)
    if model.precision.parts:
        with pytest.raises(Unsupported, match="Take the unquantised"):
            read_shape(catalog.config(id))
        return
    shape = read_shape(catalog.config(id))
    assert sum(math.prod(size) for _, size in shape.parts()) == model.params()
    assert sum(math.prod(size) for _, size in shape.tensors()) == model.params()
    assert shape.layers == model.layers


def frequencies(config):
    (rope,) = set(read_shape(config).ropes)
    assert rope.gain == 1.0
    return rope.frequencies


def test_plain_frequencies_are_powers_of_theta():
    found = frequencies(TINY | {"rope_theta": 500_000.0})
    assert found == pytest.approx([500_000.0 ** (-i / 4) for i in range(4)])
    assert frequencies(TINY | {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}}) == found
    halved = frequencies(TINY | {"rope_theta": 500_000.0, "rope_scaling": {"type": "linear", "factor": 2.0}})
    assert halved == pytest.approx([f / 2 for f in found])


def test_llama3_scaling_keeps_the_fast_stretches_the_slow_and_joins_them():
    config = TINY | {"head_dim": 128, "rope_theta": 500_000.0}
    plain, scaled = frequencies(config), frequencies(config | {"rope_scaling": LLAMA3})
    ratio = [s / p for s, p in zip(scaled, plain, strict=True)]
    for p, r in zip(plain, ratio, strict=True):
        wavelength = 2 * math.pi / p
        if wavelength < 8192 / 4:
            assert r == 1.0
        elif wavelength > 8192:
            assert r == pytest.approx(1 / 8)
        else:  # the release's own formula
            smooth = (8192 / wavelength - 1) / 3
            assert r == pytest.approx((1 - smooth) / 8 + smooth)
    assert ratio == sorted(ratio, reverse=True)
    assert len({round(r, 6) for r in ratio}) > 5


def test_windows_are_read_by_layer():
    assert read_shape(TINY | {"architectures": ["MistralForCausalLM"], "sliding_window": 40}).windows == (40,) * 3
    qwen = {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True, "sliding_window": 9}
    assert read_shape(TINY | qwen | {"max_window_layers": 2}).windows == (0, 0, 9)


@pytest.mark.parametrize(
    ("more", "kind", "said"),
    [
        ({"architectures": ["OPTForCausalLM"], "ffn_dim": 48},
         Unsupported, "does not run OPTForCausalLM. It runs LlamaForCausalLM, Mistral"),
        ({"architectures": ["LlamaForCausaLM"]}, Unsupported, "'LlamaForCausaLM' has no builder"),
        ({"hidden_act": "quick_gelu"}, Unsupported, "hidden_act 'quick_gelu'. It runs silu, swish, gelu"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, Unsupported, "scale positions by 'dynamic'"),
        ({"rope_scaling": {"rope_type": "yarn"}}, SpecError, r"rope_scaling\.factor: is missing"),
        ({"architectures": ["Phi3ForCausalLM"], "rope_scaling": {"type": "longrope"}}, Unsupported,
         r"'longrope' \(LongRoPE\) in Phi 3"),
        ({"architectures": ["PhiForCausalLM"], "partial_rotary_factor": 0.7}, SpecError,
         r"head_dim: must be even \(got 5\)"),
        ({"architectures": ["PhiForCausalLM"], "partial_rotary_factor": 2}, SpecError,
         r"partial_rotary_factor: cannot be \(got 2\); a number from 0 to 1"),
        ({"architectures": ["GemmaForCausalLM"], "use_bidirectional_attention": True}, Unsupported, "look ahead"),
        ({"architectures": ["Gemma2ForCausalLM"], "attn_logit_softcapping": -1}, SpecError, "attn_logit_softcapping"),
        ({"architectures": ["GPT2LMHeadModel"], "scale_attn_by_inverse_layer_idx": True}, Unsupported,
         "scale_attn_by_inverse_layer_idx: the engine does not run true. It runs false"),
        ({"rope_scaling": {"type": "linear"}}, SpecError, r"rope_scaling\.factor: is missing"),
        ({"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}}, SpecError, "high_freq_factor: must exceed"),
        ({"partial_rotary_factor": 0.5}, Unsupported, "a part of a head"),
        ({"rope_theta": "much"}, SpecError, r"rope_theta: cannot be \(got 'much'\)"),
        ({"rms_norm_eps": -1}, SpecError, "rms_norm_eps"),
        ({"head_dim": 7}, SpecError, "head_dim: must be even"),
        ({"num_key_value_heads": 3}, SpecError, "num_key_value_heads"),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, Unsupported, "fp8 weights"),
    ],
)  # fmt: skip
def test_what_is_not_run_is_refused_with_the_reason(more, kind, said):
    with pytest.raises(FleetcastError, match=said) as caught:
        read_shape(TINY | more)
    assert isinstance(caught.value, kind)


@pytest.mark.parametrize("module", ["model", "weights"])
def test_without_torch_there_is_one_helpful_error(module, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, f"fleetcast.runtime.llm.{module}", raising=False)
    with pytest.raises(MissingExtra, match=r"fleetcast\[torch\]"):
        importlib.import_module(f"fleetcast.runtime.llm.{module}")
