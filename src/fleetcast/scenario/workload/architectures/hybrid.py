"""Hybrids: three gated delta-rule layers to one of full attention (Qwen3-Next, Qwen 3.5).

Each builder states what its config.json leaves to the class. Sources: Gated Delta Networks (arXiv
2412.06464), the configuration and modelling files of Hugging Face transformers 4.57-5.x.
"""

from __future__ import annotations

import msgspec

from fleetcast.scenario.workload.architectures import vision
from fleetcast.scenario.workload.architectures.assemble import assemble
from fleetcast.scenario.workload.architectures.experts import routed, sparse_layers
from fleetcast.scenario.workload.architectures.fields import Fields
from fleetcast.scenario.workload.blocks import block_tensors
from fleetcast.scenario.workload.models import Attention, Block, Ffn, Model, Recurrence

LINEAR, FULL = "linear_attention", "full_attention"


def qwen3_next(fields: Fields) -> Model:
    """Qwen3NextForCausalLM: every fourth layer full, a gated shared expert.

    Assumed where absent: head dimension 256, 512 experts of which 10, conv kernel 4, 16 key and 32
    value heads of 128.
    """
    return _hybrid(fields, sparse=True, experts=512, top=10)


def qwen3_5(fields: Fields) -> Model:
    """Qwen3_5ForConditionalGeneration: the dense hybrid under ``text_config``.

    A vision tower stands beside it.
    """
    return _multimodal(fields, sparse=False)


def qwen3_5_moe(fields: Fields) -> Model:
    """Qwen3_5MoeForConditionalGeneration.

    256 experts of which 8 assumed, a vision tower beside it.
    """
    return _multimodal(fields, sparse=True)


def _multimodal(fields: Fields, *, sparse: bool) -> Model:
    model = _hybrid(fields.inner("text_config"), sparse=sparse, experts=256, top=8)
    tower = Fields(fields.inner("vision_config").table, f"{fields.path}.vision_config")
    return msgspec.structs.replace(model, vision_params=vision.qwen(tower))


def _hybrid(fields: Fields, *, sparse: bool, experts: int, top: int) -> Model:
    hidden, layers = fields.count("hidden_size"), fields.layers()
    heads, kv, dim = fields.heads(kv_default=2 if sparse else 4, dim_default=256)
    attention = Attention(
        heads=heads,
        kv_heads=kv,
        head_dim=dim,
        gated=True,
        qk_norm="head",
        bias="qkvo" if fields.flag("attention_bias") else "",
    )
    recurrence = Recurrence(
        key_heads=fields.count("linear_num_key_heads", default=16, high=1 << 16),
        value_heads=fields.count("linear_num_value_heads", default=32, high=1 << 16),
        key_dim=fields.count("linear_key_head_dim", default=128),
        value_dim=fields.count("linear_value_head_dim", default=128),
        kernel=fields.count("linear_conv_kernel_dim", default=4, high=1024),
    )
    kinds = fields.kinds("layer_types", layers, (LINEAR, FULL))
    if kinds is None:
        every = fields.count("full_attention_interval", default=4)
        kinds = tuple(LINEAR if (i + 1) % every else FULL for i in range(layers))
    has_experts = sparse_layers(fields, layers) if sparse else [False] * layers
    ffns = [
        _experts(fields, experts, top) if has else Ffn(width=fields.count("intermediate_size")) for has in has_experts
    ]
    blocks = [
        Block(attention=attention, ffn=ffn) if kind == FULL else Block(recurrence=recurrence, ffn=ffn)
        for kind, ffn in zip(kinds, ffns, strict=True)
    ]
    mtp = fields.count("mtp_num_hidden_layers", default=0, low=0, high=64)
    own = sum(t.elements for t in block_tensors(Block(attention=attention, ffn=ffns[-1]), hidden))
    return assemble(
        fields,
        blocks,
        hidden=hidden,
        tied=False,
        mtp=mtp * own + (2 * hidden * hidden + 3 * hidden if mtp else 0),
    )


def _experts(fields: Fields, experts: int, top: int) -> Ffn:
    count, top_k = routed(fields, "num_experts", default=experts, top=top)
    shared = fields.count("shared_expert_intermediate_size", default=512, low=0)
    return Ffn(
        width=fields.count("moe_intermediate_size", default=512),
        experts=count,
        top_k=top_k,
        shared_width=shared,
        shared_gate=shared > 0,
    )
