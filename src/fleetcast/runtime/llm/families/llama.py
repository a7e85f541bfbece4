"""Llama and what is built like it: Mistral, Qwen2, Qwen3."""

from __future__ import annotations

from typing import Final

from fleetcast.runtime.llm.families.decoder import Shape, shaped
from fleetcast.runtime.llm.naming import Naming
from fleetcast.scenario.workload.architectures.fields import Fields
from fleetcast.scenario.workload.models import Model

TABLES: Final = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
ATTENTION: Final = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
    "q_norm": "self_attn.q_norm", "k_norm": "self_attn.k_norm",
}  # fmt: skip
NORMS: Final = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
FFN: Final = {"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
NAMING: Final = Naming(TABLES, "model.layers.{}.", ATTENTION | NORMS | FFN)


def llama(fields: Fields, model: Model) -> Shape:
    """LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM."""
    return shaped(model, fields, NAMING)
