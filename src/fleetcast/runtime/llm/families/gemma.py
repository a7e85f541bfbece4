"""Gemma 1, 2 and 3 (text): norms about 1, scaled embeddings, soft caps, windows between full layers.

Sources: the configuration and modelling files of Hugging Face transformers 5; Gemma team, "Gemma 2", 2024 (sec. 2:
soft caps, norms on both sides), "Gemma 3", 2025 (sec. 2: normed queries and keys, two rotary bases).
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import Final

from fleetcast.base.errors import Unsupported
from fleetcast.runtime.llm.families.decoder import Shape, head_dim, shaped
from fleetcast.runtime.llm.families.llama import ATTENTION, FFN, NAMING, TABLES
from fleetcast.runtime.llm.naming import Naming
from fleetcast.runtime.llm.rope import read_rope, theta_table
from fleetcast.scenario.workload.architectures.fields import Fields
from fleetcast.scenario.workload.models import Model

SANDWICH: Final = Naming(
    TABLES,
    "model.layers.{}.",
    ATTENTION
    | FFN
    | {
        "attention_norm": "input_layernorm", "after_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm", "after_ffn_norm": "post_feedforward_layernorm",
    },
)  # fmt: skip

TEXT: Final = replace(SANDWICH, prefix="language_model.", spare=r"(vision_tower|multi_modal_projector)\..*")
"""Gemma 3 with eyes, which text does not need."""


def gemma(fields: Fields, model: Model) -> Shape:
    """GemmaForCausalLM.

    The first configs say ``hidden_act`` "gelu"; the models were trained with its approximation by a tanh, which later
    configs name in ``hidden_activation``. So "gelu" alone means the approximation.
    """
    named = fields.text("hidden_activation") or fields.text("hidden_act", "gelu")
    found = shaped(model, fields, NAMING, activation="gelu_pytorch_tanh" if named == "gelu" else named)
    return _scaled(fields, found)


def gemma2(fields: Fields, model: Model) -> Shape:
    """Gemma2ForCausalLM: caps of 50 and 30 assumed; a cap written as null is none."""
    return _capped(fields, shaped(model, fields, SANDWICH, activation=_activation(fields)), 50.0, 30.0)


def gemma3(fields: Fields, model: Model) -> Shape:
    """Gemma3ForCausalLM: theta 1,000,000 in full layers, scaled as the config says; 10,000 in windowed ones, plain."""
    table = theta_table(fields)
    if "full_attention" in table.table or "sliding_attention" in table.table:
        full, local = table.inner("full_attention"), table.inner("sliding_attention")
        local = Fields(local.table, local.path)  # what it leaves out is not to be found further out
    else:
        base = fields.number("rope_local_base_freq", default=10_000.0, low=1.0)
        full, local = table, Fields({"rope_theta": base}, f"{fields.path}.rope_local_base_freq")
    wide = read_rope(fields, head_dim(model), full, theta=1_000_000.0)
    near = read_rope(fields, head_dim(model), local)
    windows = [block.attention is not None and block.attention.window for block in model.blocks]
    ropes = [near if windows[i] else wide for i in model.pattern]
    found = shaped(model, fields, SANDWICH, activation=_activation(fields), ropes=ropes)
    return _capped(fields, found, 0.0, 0.0)


def gemma3_multimodal(fields: Fields, model: Model) -> Shape:
    """Gemma3ForConditionalGeneration: Gemma 3 under ``text_config``, for text; its vision tower is not read."""
    return replace(gemma3(fields.inner("text_config"), model), naming=TEXT)


def _scaled(fields: Fields, found: Shape) -> Shape:
    if fields.flag("use_bidirectional_attention"):
        raise Unsupported(
            f"{fields.path}.use_bidirectional_attention: the engine does not run models that look ahead",
            "It runs models that write one token after another",
        )
    return replace(found, norm="rms+1", embedding_scale=sqrt(found.hidden))


def _capped(fields: Fields, found: Shape, attention: float, logits: float) -> Shape:
    def cap(name: str, default: float) -> float:
        return 0.0 if fields.has(name) and fields.get(name) is None else fields.number(name, default=default)

    return replace(
        _scaled(fields, found), sandwich=True, attention_cap=cap("attn_logit_softcapping", attention),
        logit_cap=cap("final_logit_softcapping", logits),
        scale=1.0 / sqrt(fields.number("query_pre_attn_scalar", default=256.0, low=1e-6)),
    )  # fmt: skip


def _activation(fields: Fields) -> str:
    return fields.text("hidden_activation", "gelu_pytorch_tanh")
