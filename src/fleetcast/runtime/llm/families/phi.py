"""Phi (1, 1.5, 2) and Phi 3: the first with LayerNorm and parallel parts, the second a Llama with fused tensors.

Source: the configuration and modelling files of Hugging Face transformers 5.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fleetcast.base.errors import Unsupported
from fleetcast.runtime.llm.families.decoder import Shape, head_dim, shaped
from fleetcast.runtime.llm.families.llama import NORMS, TABLES
from fleetcast.runtime.llm.naming import Naming
from fleetcast.runtime.llm.rope import read_rope, theta_table
from fleetcast.scenario.workload.architectures.fields import Fields
from fleetcast.scenario.workload.models import Model

PHI: Final = Naming(
    {"embedding": "model.embed_tokens", "norm": "model.final_layernorm", "head": "lm_head"},
    "model.layers.{}.",
    {
        "attention_norm": "input_layernorm", "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
        "o": "self_attn.dense", "q_norm": "self_attn.q_layernorm", "k_norm": "self_attn.k_layernorm",
        "up": "mlp.fc1", "down": "mlp.fc2",
    },
)  # fmt: skip
PHI3: Final = Naming(
    TABLES,
    "model.layers.{}.",
    NORMS
    | {
        "q k v": "self_attn.qkv_proj", "o": "self_attn.o_proj",
        "gate up": "mlp.gate_up_proj", "down": "mlp.down_proj",
    },
)  # fmt: skip


def phi(fields: Fields, model: Model) -> Shape:
    """PhiForCausalLM: half of each head turns where the config is silent."""
    rope = read_rope(fields, head_dim(model), theta_table(fields), share=0.5)
    found = shaped(
        model, fields, PHI, activation=fields.text("hidden_act", "gelu_new"), epsilon=("layer_norm_eps", 1e-5),
        ropes=[rope] * model.layers,
    )  # fmt: skip
    return replace(found, norm="layer", parallel=True, head_bias=True)


def phi3(fields: Fields, model: Model) -> Shape:
    """Phi3ForCausalLM. "su" and, in this class, "yarn" are LongRoPE, whose angles change with a sequence's length."""
    table = theta_table(fields)
    kind = table.table.get("rope_type", table.table.get("type", "default"))
    if kind in ("longrope", "su", "yarn"):
        raise Unsupported(
            f"{table.path}: the engine does not scale positions by {kind!r} (LongRoPE) in Phi 3",
            "Take a checkpoint without it, such as a 4k one",
        )
    rope = read_rope(fields, head_dim(model), table, share=1.0)
    return shaped(model, fields, PHI3, epsilon=("rms_norm_eps", 1e-5), ropes=[rope] * model.layers)
