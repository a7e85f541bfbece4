"""The catalogue: names that resolve, sources, errors that help."""

import json
import re
from pathlib import Path

import pytest

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.scenario.workload.catalog import aliases, entries, model, models, simplified

MEASURED = {
    "MiniMaxAI/MiniMax-M2.5": ("minimax-m2", "fp8"),
    "Qwen/Qwen3-235B-A22B-FP8": ("qwen3-235b-a22b-fp8", "fp8"),
    "Qwen/Qwen3-32B": ("qwen3-32b", "bf16"),
    "Qwen/Qwen3.5-397B-A17B": ("qwen3.5-397b-a17b", "bf16"),
    "deepseek-ai/DeepSeek-R1": ("deepseek-r1", "fp8"),
    "deepseek-ai/DeepSeek-V3": ("deepseek-v3", "fp8"),
    "meta-llama/Llama-3.1-70B": ("llama-3.1-70b", "bf16"),
    "meta-llama/Llama-3.1-8B-Instruct": ("llama-3.1-8b", "bf16"),
    "moonshotai/Kimi-K2.5": ("kimi-k2.5", "int4"),
    "nvidia/Llama-3.1-8B-Instruct-FP8": ("llama-3.1-8b-fp8", "fp8"),
    "openai/gpt-oss-120b": ("gpt-oss-120b", "mxfp4"),
    "zhipuai/GLM-5": ("glm-5", "bf16"),
}
"""Every model that the measured serving rows name."""

UNPUBLISHED = (
    "https://arxiv.org/abs/2104.04473", "https://arxiv.org/abs/2205.05198",
    "https://github.com/mosaicml/llm-foundry/blob/main/scripts/train/yamls/pretrain/",
)  # fmt: skip
"""Where the shapes are stated that published training runs timed."""

REQUIRED = (
    "llama-2-7b llama-2-13b llama-2-70b llama-3.1-8b llama-3.1-70b llama-3.1-405b llama-3.2-1b "
    "llama-3.2-3b mistral-7b mistral-large-2407 mixtral-8x7b mixtral-8x22b qwen3-8b qwen3-32b "
    "qwen3-30b-a3b qwen3-235b-a22b gpt-oss-20b gpt-oss-120b deepseek-v3 deepseek-r1 minimax-m2 "
    "minimax-m2.5 kimi-k2 kimi-k2.5 opt-13b opt-66b bloom-176b whisper-large-v3 t5-11b gemma-2-9b "
    "gemma-3-27b phi-3-mini phi-4 gpt2 gpt-j-6b gpt-neox-20b falcon-7b falcon-40b glm-5 "
    "qwen3.5-397b-a17b "
)


@pytest.mark.parametrize(("name", "found"), MEASURED.items())
def test_measured_models_resolve_with_their_quantisation(name: str, found: tuple[str, str]) -> None:
    assert (model(name).id, model(name).dtype) == found


@pytest.mark.parametrize("name", REQUIRED.split())
def test_promised_models_are_there(name: str) -> None:
    assert model(name).params() > 1e8


@pytest.mark.parametrize(
    "name",
    [
        "LLAMA-3.1-70B",
        "llama_3.1_70b",
        "Llama-3.1-70B-Instruct",
        "meta-llama/Llama-3.1-70B",
        " llama-3.1-70b ",
    ],
)
def test_names_are_compared_as_people_write_them(name: str) -> None:
    assert model(name).id == "llama-3.1-70b"


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("gpt3", "gpt3-175b"), ("GPT-3-175B", "gpt3-175b"), ("mt-nlg-530b", "megatron-530b"),
        ("megatron-1008b", "megatron-1t"), ("gpt-22b", "megatron-22b"), ("MPT-7B", "mpt-7b"),
    ],
)  # fmt: skip
def test_trained_sizes_are_found_by_what_people_call_them(name: str, id: str) -> None:
    assert model(name).id == id


@pytest.mark.parametrize("id", entries())
def test_entries_have_sources_and_names_of_their_own(id: str) -> None:
    entry = entries()[id]
    if entry.config["architectures"] == ["GPT2LMHeadModel"] and id != "gpt2":
        assert entry.source.startswith(UNPUBLISHED), "a shape that was trained or timed, without a repository"
    else:
        assert entry.source.startswith("https://huggingface.co/" + entry.aliases[0])
    assert entry.name and entry.id == id == simplified(id)
    for variant in entry.variants:
        assert variant.id.startswith(id + "-")
        assert variant.source.startswith("https://huggingface.co/")
        assert model(variant.id).params() == model(id).params()
        assert model(variant.id).weight_bytes() < model(id).weight_bytes()


def test_no_name_means_two_models() -> None:
    owners: dict[str, set[str]] = {}
    for entry in entries().values():
        for owner in (entry, *entry.variants):
            for name in (owner.id, *owner.aliases):
                owners.setdefault(simplified(name), set()).add(owner.id)
    assert {name for name, ids in owners.items() if len(ids) > 1} == set()
    assert set(aliases().values()) == set(models())


def test_an_unknown_model_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SpecError, match=r"Did you mean 'llama-3\.1-70b'"):
        model("lama-3.1-70b")
    with pytest.raises(SpecError, match="fleetcast catalog models"):
        model("")
    with pytest.raises(SpecError):
        model("x" * 10_000)
    with pytest.raises(SpecError):
        model("a\0b")


def test_a_path_is_read(tmp_path: Path) -> None:
    config = entries()["gpt2"].config
    (tmp_path / "config.json").write_text(json.dumps(config))
    for path in (tmp_path, tmp_path / "config.json"):
        found = model(str(path))
        assert found.params() == model("gpt2").params()
        assert found.id == found.source == str(path)


def test_a_path_without_a_builder_lists_the_builders(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"architectures": ["MambaForCausalLM"]}')
    with pytest.raises(Unsupported, match=re.compile("MambaForCausalLM.*LlamaForCausalLM.*T5", re.S)):
        model(str(path))
    with pytest.raises(SpecError, match="is not a file"):
        model(str(tmp_path / "absent.json"))
