"""Qwen2-MoE and Qwen3-MoE: a Qwen with many small experts, and in Qwen2 one more that every token visits.

Source: the configuration and modelling files of Hugging Face transformers 5.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fleetcast.runtime.llm.families.decoder import Shape, shaped
from fleetcast.runtime.llm.families.llama import ATTENTION, FFN, NORMS, TABLES
from fleetcast.runtime.llm.naming import Naming
from fleetcast.scenario.workload.architectures.fields import Fields
from fleetcast.scenario.workload.models import Model

NAMING: Final = Naming(
    TABLES,
    "model.layers.{}.",
    ATTENTION
    | NORMS
    | FFN
    | {"router": "mlp.gate", "shared_gate": "mlp.shared_expert_gate"}
    | {f"experts.*.{name}": f"mlp.experts.*.{name}_proj" for name in ("gate", "up", "down")}
    | {f"shared.{name}": f"mlp.shared_expert.{name}_proj" for name in ("gate", "up", "down")},
)


def qwen_moe(fields: Fields, model: Model) -> Shape:
    """Qwen2MoeForCausalLM, Qwen3MoeForCausalLM: experts' weights add up to 1 only where ``norm_topk_prob`` says so."""
    found = shaped(model, fields, NAMING)
    if found.experts is None:
        return found
    return replace(found, experts=replace(found.experts, renormalised=fields.flag("norm_topk_prob")))
