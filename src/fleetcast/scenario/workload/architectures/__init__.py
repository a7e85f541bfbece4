"""From a Hugging Face config.json to a `Model`: one builder per architecture.

A config.json names an architecture and leaves the rest to that class's defaults, so the same file
means different shapes to different classes. Each builder below states those defaults; an
architecture without a builder is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from fleetcast.base.errors import SpecError, Unsupported, closest
from fleetcast.scenario.workload.architectures import (
    classic,
    encoder_decoder,
    experts,
    hybrid,
    latent,
    llama,
)
from fleetcast.scenario.workload.architectures.fields import HINT, Fields, check_depth, read_config
from fleetcast.scenario.workload.models import Model

BUILDERS: Final[Mapping[str, Callable[[Fields], Model]]] = {
    "LlamaForCausalLM": llama.llama,
    "MistralForCausalLM": llama.mistral,
    "Qwen2ForCausalLM": llama.qwen2,
    "Qwen3ForCausalLM": llama.qwen3,
    "Phi3ForCausalLM": llama.phi3,
    "GemmaForCausalLM": llama.gemma,
    "Gemma2ForCausalLM": llama.gemma2,
    "Gemma3ForCausalLM": llama.gemma3,
    "Gemma3ForConditionalGeneration": llama.gemma3_multimodal,
    "GPT2LMHeadModel": classic.gpt2,
    "GPTJForCausalLM": classic.gpt_j,
    "GPTNeoXForCausalLM": classic.gpt_neox,
    "PhiForCausalLM": classic.phi,
    "OPTForCausalLM": classic.opt,
    "BloomForCausalLM": classic.bloom,
    "BloomModel": classic.bloom,
    "FalconForCausalLM": classic.falcon,
    "RWForCausalLM": classic.falcon,
    "MixtralForCausalLM": experts.mixtral,
    "Qwen2MoeForCausalLM": experts.qwen2_moe,
    "Qwen3MoeForCausalLM": experts.qwen3_moe,
    "GptOssForCausalLM": experts.gpt_oss,
    "MiniMaxM2ForCausalLM": experts.minimax_m2,
    "Glm4MoeForCausalLM": experts.glm4_moe,
    "DeepseekV2ForCausalLM": latent.deepseek_v2,
    "DeepseekV3ForCausalLM": latent.deepseek_v3,
    "DeepseekV32ForCausalLM": latent.deepseek_v32,
    "GlmMoeDsaForCausalLM": latent.deepseek_v32,
    "KimiK25ForConditionalGeneration": latent.kimi_k25,
    "Qwen3NextForCausalLM": hybrid.qwen3_next,
    "Qwen3_5ForConditionalGeneration": hybrid.qwen3_5,
    "Qwen3_5MoeForConditionalGeneration": hybrid.qwen3_5_moe,
    "T5ForConditionalGeneration": encoder_decoder.t5,
    "T5WithLMHeadModel": encoder_decoder.t5,
    "WhisperForConditionalGeneration": encoder_decoder.whisper,
}
"""Builder of each architecture, by the name that config.json gives in ``architectures``."""

_MODEL_TYPES: Final = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "gemma3": "Gemma3ForConditionalGeneration",
    "gpt2": "GPT2LMHeadModel",
    "gptj": "GPTJForCausalLM",
    "gpt_neox": "GPTNeoXForCausalLM",
    "phi": "PhiForCausalLM",
    "opt": "OPTForCausalLM",
    "bloom": "BloomForCausalLM",
    "falcon": "FalconForCausalLM",
    "RefinedWeb": "FalconForCausalLM",
    "RefinedWebModel": "FalconForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "minimax_m2": "MiniMaxM2ForCausalLM",
    "glm4_moe": "Glm4MoeForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "kimi_k2": "DeepseekV3ForCausalLM",
    "deepseek_v32": "DeepseekV32ForCausalLM",
    "glm_moe_dsa": "GlmMoeDsaForCausalLM",
    "kimi_k25": "KimiK25ForConditionalGeneration",
    "qwen3_next": "Qwen3NextForCausalLM",
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "qwen3_5_moe": "Qwen3_5MoeForConditionalGeneration",
    "t5": "T5ForConditionalGeneration",
    "whisper": "WhisperForConditionalGeneration",
}


def from_config(config: Mapping[str, Any] | str | Path, id: str = "", *, source: str = "") -> Model:
    """Returns the model that a Hugging Face config.json describes.

    Args:
        config: the parsed table, the path of a config.json, or of a folder that holds one.
        id: name in reports; default the file's or the table's ``_name_or_path``.
        source: where the config comes from; default its path.

    Raises:
        SpecError: not a config, or a field that cannot be; names field, value and limit.
        Unsupported: an architecture or quantisation without a builder; lists those that have one.
    """
    if isinstance(config, Mapping):
        table, path = config, id or "config"
    else:
        table, path = read_config(config), str(config)
    check_depth(table, path)
    architecture = _architecture(table, path)
    model = BUILDERS[architecture](Fields(table, path))
    named = table.get("_name_or_path")
    return msgspec.structs.replace(
        model,
        id=id or (named if isinstance(named, str) and isinstance(config, Mapping) else path),
        architecture=architecture,
        source=source or path,
    )


def _architecture(table: Mapping[str, Any], path: str) -> str:
    named, kind = table.get("architectures"), table.get("model_type")
    known = ", ".join(BUILDERS)
    if isinstance(named, list | tuple) and named and isinstance(named[0], str):
        if named[0] in BUILDERS:
            return named[0]
        hint = closest(named[0], BUILDERS)
        raise Unsupported(f"{path}: architecture {named[0][:80]!r} has no builder; known: {known}", hint)
    if named:
        raise SpecError(f"{path}.architectures", "must list names", value=named, hint=HINT)
    if isinstance(kind, str):
        if kind in _MODEL_TYPES:
            return _MODEL_TYPES[kind]
        raise Unsupported(f"{path}: model_type {kind[:80]!r} has no builder; known: {', '.join(_MODEL_TYPES)}")
    raise SpecError(
        f"{path}.architectures",
        "is missing",
        limit=f"one of {known}",
        hint="Is this a model's config.json? " + HINT,
    )
