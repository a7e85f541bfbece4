"""Mixtral: a Llama whose feed-forward part is one of several experts, two of them for each token.

Source: Jiang et al., "Mixtral of Experts", 2024; the configuration and modelling files of Hugging Face transformers 5.
"""

from __future__ import annotations

from typing import Final

from fleetcast.runtime.llm.families.decoder import Shape, head_dim, shaped
from fleetcast.runtime.llm.families.llama import ATTENTION, NORMS, TABLES
from fleetcast.runtime.llm.naming import Naming
from fleetcast.runtime.llm.rope import read_rope, theta_table
from fleetcast.scenario.workload.architectures.fields import Fields
from fleetcast.scenario.workload.models import Model

NAMING: Final = Naming(
    TABLES,
    "model.layers.{}.",
    ATTENTION
    | NORMS
    | {
        "router": "block_sparse_moe.gate", "experts.*.gate": "block_sparse_moe.experts.*.w1",
        "experts.*.up": "block_sparse_moe.experts.*.w3", "experts.*.down": "block_sparse_moe.experts.*.w2",
    },
)  # fmt: skip


def mixtral(fields: Fields, model: Model) -> Shape:
    """MixtralForCausalLM: theta 1,000,000 assumed; the weights of a token's experts add up to 1."""
    rope = read_rope(fields, head_dim(model), theta_table(fields), theta=1_000_000.0)
    return shaped(model, fields, NAMING, epsilon=("rms_norm_eps", 1e-5), ropes=[rope] * model.layers)
