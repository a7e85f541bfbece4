"""GPT-2: learned positions, LayerNorm, matrices stored the other way round.

Source: the configuration and modelling files of Hugging Face transformers 5.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fleetcast.base.errors import Unsupported
from fleetcast.runtime.llm.families.decoder import Shape, shaped
from fleetcast.runtime.llm.naming import Naming
from fleetcast.runtime.llm.rope import Rope
from fleetcast.scenario.workload.architectures.fields import Fields
from fleetcast.scenario.workload.models import Model

NAMING: Final = Naming(
    {"embedding": "wte", "positions": "wpe", "norm": "ln_f", "head": "lm_head"},
    "h.{}.",
    {
        "attention_norm": "ln_1", "q k v": "attn.c_attn", "o": "attn.c_proj",
        "ffn_norm": "ln_2", "up": "mlp.c_fc", "down": "mlp.c_proj",
    },
    transposed=True,
    prefix="transformer.",
    spare=r".*\.attn\.(masked_)?bias",
)  # fmt: skip


def gpt2(fields: Fields, model: Model) -> Shape:
    """GPT2LMHeadModel."""
    for name, usual in (
        ("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False), ("add_cross_attention", False),
    ):  # fmt: skip
        if fields.flag(name, usual) is not usual:
            raise Unsupported(
                f"{fields.path}.{name}: the engine does not run {str(not usual).lower()}",
                f"It runs {str(usual).lower()}, as the published models have it",
            )
    found = shaped(
        model, fields, NAMING, activation=fields.text("activation_function", "gelu_new"),
        epsilon=("layer_norm_epsilon", 1e-5), ropes=[Rope()] * model.layers,
    )  # fmt: skip
    rows = next(table.inputs for table in model.extras if table.part == "position")
    return replace(found, norm="layer", positions=rows, context=min(found.context, rows))
