"""Mixtures of experts over grouped-query attention.

Each builder states what its config.json leaves to the class. Sources: the configuration and
modelling files of Hugging Face transformers 4.57-5.x and the model cards named in the catalogue.
"""

from __future__ import annotations

from fleetcast.base.errors import SpecError
from fleetcast.scenario.workload.architectures.assemble import assemble
from fleetcast.scenario.workload.architectures.fields import CONTEXT_LIMIT, Fields
from fleetcast.scenario.workload.architectures.llama import FULL, SLIDING, qwen_windows
from fleetcast.scenario.workload.blocks import block_tensors
from fleetcast.scenario.workload.models import Attention, Block, Ffn, Model


def mixtral(fields: Fields) -> Model:
    """MixtralForCausalLM: 8 KV heads, 8 experts of which 2 assumed.

    A window only where written and not null.
    """
    hidden = fields.count("hidden_size")
    heads, kv, dim = fields.heads(kv_default=8)
    window = fields.count("sliding_window", default=0, low=0, high=CONTEXT_LIMIT)
    attention = Attention(heads=heads, kv_heads=kv, head_dim=dim, window=window)
    experts, top_k = routed(fields, "num_local_experts", default=8, top=2)
    ffn = Ffn(width=fields.count("intermediate_size"), experts=experts, top_k=top_k)
    layers = [Block(attention=attention, ffn=ffn)] * fields.layers()
    return assemble(fields, layers, hidden=hidden, tied=False)


def qwen2_moe(fields: Fields) -> Model:
    """Qwen2MoeForCausalLM. A gated shared expert; q, k, v biased unless ``qkv_bias`` is false."""
    bias = "qkv" if fields.flag("qkv_bias", True) else ""
    shared = fields.count("shared_expert_intermediate_size", default=5632, low=0)
    return _qwen_moe(fields, bias=bias, shared=shared, qk_norm=False, experts=60, top=4, width=1408)


def qwen3_moe(fields: Fields) -> Model:
    """Qwen3MoeForCausalLM: no shared expert, q and k normed per head.

    Checkpoints write ``head_dim`` 128; it is not hidden / heads.
    """
    bias = "qkvo" if fields.flag("attention_bias") else ""
    return _qwen_moe(fields, bias=bias, shared=0, qk_norm=True, experts=128, top=8, width=768)


def _qwen_moe(fields: Fields, *, bias: str, shared: int, qk_norm: bool, experts: int, top: int, width: int) -> Model:
    hidden, layers = fields.count("hidden_size"), fields.layers()
    heads, kv, dim = fields.heads(kv_default=4 if qk_norm else 16)
    count, top_k = routed(fields, "num_experts", "num_local_experts", default=experts, top=top)
    sparse = Ffn(
        width=fields.count("moe_intermediate_size", default=width),
        experts=count,
        top_k=top_k,
        shared_width=shared,
        shared_gate=shared > 0,
    )
    dense = Ffn(width=fields.count("intermediate_size"))
    pattern = sparse_layers(fields, layers)
    blocks = [
        Block(
            attention=Attention(
                heads=heads,
                kv_heads=kv,
                head_dim=dim,
                bias=bias,
                window=window,
                qk_norm="head" if qk_norm else "",
            ),
            ffn=sparse if is_sparse else dense,
        )
        for is_sparse, window in zip(pattern, qwen_windows(fields, layers), strict=True)
    ]
    return assemble(fields, blocks, hidden=hidden, tied=False)


def sparse_layers(fields: Fields, layers: int) -> list[bool]:
    """Returns which layers of a Qwen MoE have experts.

    Every ``decoder_sparse_step``-th, less ``mlp_only_layers``.
    """
    step = fields.count("decoder_sparse_step", default=1)
    dense = set(fields.numbers("mlp_only_layers"))
    return [i not in dense and (i + 1) % step == 0 for i in range(layers)]


def gpt_oss(fields: Fields) -> Model:
    """GptOssForCausalLM: biases on every projection, router and expert; a sink per head.

    Assumed where absent: 64 heads of 64, 8 KV heads, window 128 from the first layer on.
    """
    hidden, layers = fields.count("hidden_size", default=2880), fields.layers()
    heads, kv, dim = fields.heads(kv_default=8, dim_default=64, hidden=hidden)
    window = fields.count("sliding_window", default=128, high=CONTEXT_LIMIT)
    kinds = fields.kinds("layer_types", layers, (SLIDING, FULL))
    if kinds is None:
        kinds = tuple(FULL if i % 2 else SLIDING for i in range(layers))
    experts, top_k = routed(fields, "num_local_experts", default=128, top=4)
    ffn = Ffn(
        width=fields.count("intermediate_size", default=2880),
        bias=True,
        experts=experts,
        top_k=top_k,
        router_bias=True,
    )
    blocks = [
        Block(
            attention=Attention(
                heads=heads,
                kv_heads=kv,
                head_dim=dim,
                window=window if kind == SLIDING else 0,
                sinks=True,
                bias="qkvo" if fields.flag("attention_bias", True) else "",
            ),
            ffn=ffn,
        )
        for kind in kinds
    ]
    return assemble(fields, blocks, hidden=hidden, tied=False, context=131072)


def minimax_m2(fields: Fields) -> Model:
    """MiniMaxM2ForCausalLM (M2, M2.1, M2.5).

    Norms as wide as q and k, a routing bias, no shared expert.

    ``use_mtp`` is true in config.json, but the published checkpoints hold no MTP weights.
    """
    hidden = fields.count("hidden_size")
    heads, kv, dim = fields.heads(kv_default=8, dim_default=128)
    attention = Attention(
        heads=heads,
        kv_heads=kv,
        head_dim=dim,
        qk_norm="all" if fields.flag("use_qk_norm", True) else "",
    )
    experts, top_k = routed(fields, "num_local_experts", default=256, top=8)
    ffn = Ffn(
        width=fields.count("intermediate_size"),
        experts=experts,
        top_k=top_k,
        router_bias=fields.flag("use_routing_bias", True),
    )
    layers = [Block(attention=attention, ffn=ffn)] * fields.layers()
    return assemble(fields, layers, hidden=hidden, tied=False)


def glm4_moe(fields: Fields) -> Model:
    """Glm4MoeForCausalLM (GLM-4.5 to 4.7).

    The first layers dense, one shared expert, a routing bias.

    Head dimension 128; q, k, v biased where ``attention_bias``, never the output; q, k normed where
    ``use_qk_norm``.
    """
    hidden, layers = fields.count("hidden_size"), fields.layers()
    heads, kv, dim = fields.heads(kv_default=8, dim_default=128)
    attention = Attention(
        heads=heads,
        kv_heads=kv,
        head_dim=dim,
        bias="qkv" if fields.flag("attention_bias") else "",
        qk_norm="head" if fields.flag("use_qk_norm") else "",
    )
    width = fields.count("moe_intermediate_size", default=1408)
    experts, top_k = routed(fields, "n_routed_experts", default=128, top=8)
    sparse = Ffn(
        width=width,
        experts=experts,
        top_k=top_k,
        router_bias=True,
        shared_width=width * fields.count("n_shared_experts", default=1, low=0, high=1024),
    )
    dense = Ffn(width=fields.count("intermediate_size"))
    first = fields.count("first_k_dense_replace", default=1, low=0)
    last = Block(attention=attention, ffn=sparse)
    blocks = [Block(attention=attention, ffn=dense) if i < first else last for i in range(layers)]
    return assemble(fields, blocks, hidden=hidden, tied=False, mtp=mtp_layers(fields, last, hidden, 1))


def routed(fields: Fields, *names: str, default: int, top: int) -> tuple[int, int]:
    """Returns (experts, experts per token); ``names`` are the field's, of which one is written.

    Raises:
        SpecError: a token would visit more experts than there are.
    """
    experts = fields.count(*names, default=default, high=1 << 16)
    top_k = fields.count("num_experts_per_tok", default=top, high=1 << 16)
    if top_k > experts:
        raise SpecError(
            f"{fields.path}.num_experts_per_tok",
            "exceeds the experts",
            value=top_k,
            limit=f"at most {experts}",
        )
    return experts, top_k


def mtp_layers(fields: Fields, block: Block, hidden: int, default: int = 0) -> int:
    """Returns the parameters of the multi-token-prediction layers.

    Each is a block, three norms and a 2h x h projection. Their embedding and head are the main
    model's.

    Their embedding and head are the main model's.
    """
    layers = fields.count("num_nextn_predict_layers", "num_mtp_layers", default=default, low=0, high=64)
    return layers * (sum(t.elements for t in block_tensors(block, hidden)) + 3 * hidden + 2 * hidden * hidden)
