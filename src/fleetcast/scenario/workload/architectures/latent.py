"""Multi-head latent attention: DeepSeek V2, V3, V3.2, Kimi K2 and GLM-5.

Each builder states what its config.json leaves to the class. Sources: DeepSeek-V2 (arXiv
2405.04434) and V3 (arXiv 2412.19437) reports, the configuration and modelling files of Hugging Face
transformers 4.57-5.x, the model cards named in the catalogue.
"""

from __future__ import annotations

import msgspec

from fleetcast.scenario.workload.architectures.assemble import assemble
from fleetcast.scenario.workload.architectures.experts import mtp_layers, routed
from fleetcast.scenario.workload.architectures.fields import Fields
from fleetcast.scenario.workload.architectures.vision import moonvit
from fleetcast.scenario.workload.models import Attention, Block, Ffn, Model


def deepseek_v2(fields: Fields) -> Model:
    """DeepseekV2ForCausalLM: no routing bias.

    ``q_lora_rank`` null = queries uncompressed (V2-Lite).
    """
    return _deepseek(fields, first_dense=0, biased=False)


def deepseek_v3(fields: Fields) -> Model:
    """DeepseekV3ForCausalLM (V3, R1, Kimi K2).

    Three dense layers assumed, a routing bias, one MTP layer if named.
    """
    return _deepseek(fields, first_dense=3, biased=True)


def deepseek_v32(fields: Fields) -> Model:
    """DeepseekV32ForCausalLM and GlmMoeDsaForCausalLM (GLM-5).

    V3 with an indexer that picks 2,048 tokens.

    Assumed where absent: indexer heads of 128, 2,048 tokens, three dense layers. Layers whose
    ``indexer_types`` is "shared" use the choice of the layer before.
    """
    return _deepseek(fields, first_dense=3, biased=True, sparse=True)


def kimi_k25(fields: Fields) -> Model:
    """KimiK25ForConditionalGeneration.

    Kimi K2 under ``text_config`` (or flat), a MoonViT tower beside it.
    """
    text = fields.inner("text_config")
    model = deepseek_v3(text)
    vision = moonvit(Fields(fields.inner("vision_config").table, f"{fields.path}.vision_config"), model.hidden)
    return msgspec.structs.replace(model, vision_params=vision)


def _deepseek(fields: Fields, *, first_dense: int, biased: bool, sparse: bool = False) -> Model:
    hidden, layers = fields.count("hidden_size"), fields.layers()
    nope = fields.count("qk_nope_head_dim", default=128)
    rope = fields.count("qk_rope_head_dim", default=64)
    attention = Attention(
        kind="mla",
        heads=fields.count("num_attention_heads", high=1 << 16),
        head_dim=nope + rope,
        v_head_dim=fields.count("v_head_dim", default=128),
        nope_dim=nope,
        rope_dim=rope,
        kv_lora=fields.count("kv_lora_rank", default=512),
        q_lora=fields.count("q_lora_rank", default=0, low=0),
        bias="aco" if fields.flag("attention_bias") else "",
        index_heads=fields.count("index_n_heads", default=64, high=1 << 16) if sparse else 0,
        index_dim=fields.count("index_head_dim", default=128) if sparse else 0,
        index_top_k=fields.count("index_topk", default=2048) if sparse else 0,
    )
    borrowed = msgspec.structs.replace(attention, index_heads=0, index_dim=0)
    dense = Ffn(width=fields.count("intermediate_size"))
    moe = _experts(fields, biased) or dense
    first = fields.count("first_k_dense_replace", default=first_dense, low=0)
    step = fields.count("moe_layer_freq", default=1)
    shared = fields.kinds("indexer_types", layers, ("full", "shared")) or ("full",) * layers
    blocks = [
        Block(
            attention=borrowed if shared[i] == "shared" else attention,
            ffn=moe if i >= first and i % step == 0 else dense,
        )
        for i in range(layers)
    ]
    mtp = mtp_layers(fields, Block(attention=attention, ffn=moe), hidden)
    return assemble(fields, blocks, hidden=hidden, tied=False, mtp=mtp)


def _experts(fields: Fields, biased: bool) -> Ffn | None:
    """Returns the sparse feed-forward part; none where ``n_routed_experts`` is null."""
    if fields.get("n_routed_experts") is None:
        return None
    width = fields.count("moe_intermediate_size")
    experts, top_k = routed(fields, "n_routed_experts", default=1, top=1)
    return Ffn(
        width=width,
        experts=experts,
        top_k=top_k,
        router_bias=biased,
        shared_width=width * fields.count("n_shared_experts", default=0, low=0, high=1024),
    )
