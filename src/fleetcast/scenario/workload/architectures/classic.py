"""The models before Llama: LayerNorm with bias, biased projections, feed-forward without a gate.

Each builder states what its config.json leaves to the class. Sources: the configuration and
modelling files of Hugging Face transformers 4.57-5.x and the model cards named in the catalogue.
"""

from __future__ import annotations

from fleetcast.base.errors import Unsupported
from fleetcast.scenario.workload.architectures.assemble import assemble
from fleetcast.scenario.workload.architectures.fields import CONTEXT_LIMIT, Fields
from fleetcast.scenario.workload.models import Attention, Block, Ffn, Model
from fleetcast.scenario.workload.tensors import table, vector


def gpt2(fields: Fields) -> Model:
    """GPT2LMHeadModel. ``n_inner`` null = four times hidden; learned positions; tied."""
    hidden = fields.count("n_embd", "hidden_size")
    heads = fields.count("n_head", "num_attention_heads")
    attention = Attention(heads=heads, kv_heads=heads, head_dim=fields.divided(hidden, heads), bias="qkvo")
    ffn = Ffn(width=fields.count("n_inner", default=4 * hidden), gated=False, bias=True)
    layers = [Block(attention=attention, ffn=ffn, norms=4)] * fields.layers("n_layer", "num_hidden_layers")
    rows = fields.count("n_positions", "n_ctx", default=1024, high=CONTEXT_LIMIT)
    extras = (table("positions", "position", rows, hidden),)
    return assemble(fields, layers, hidden=hidden, tied=True, norms=2, extras=extras, context=rows)


def gpt_j(fields: Fields) -> Model:
    """GPTJForCausalLM: the LM head has a bias.

    One norm a layer: attention and feed-forward are parallel.
    """
    hidden = fields.count("n_embd", "hidden_size")
    heads = fields.count("n_head", "num_attention_heads")
    attention = Attention(heads=heads, kv_heads=heads, head_dim=fields.divided(hidden, heads))
    ffn = Ffn(width=fields.count("n_inner", default=4 * hidden), gated=False, bias=True)
    layers = [Block(attention=attention, ffn=ffn, norms=2)] * fields.layers("n_layer", "num_hidden_layers")
    extras = (vector("head_bias", "head", fields.count("vocab_size"), split="out"),)
    return assemble(fields, layers, hidden=hidden, tied=False, norms=2, extras=extras, context=2048)


def gpt_neox(fields: Fields) -> Model:
    """GPTNeoXForCausalLM. Biases everywhere but in the LM head; ``attention_bias`` assumed true."""
    hidden = fields.count("hidden_size")
    heads = fields.count("num_attention_heads")
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=fields.divided(hidden, heads),
        bias="qkvo" if fields.flag("attention_bias", True) else "",
    )
    ffn = Ffn(width=fields.count("intermediate_size"), gated=False, bias=True)
    layers = [Block(attention=attention, ffn=ffn, norms=4)] * fields.layers()
    return assemble(fields, layers, hidden=hidden, tied=False, norms=2)


def phi(fields: Fields) -> Model:
    """PhiForCausalLM (Phi-1, Phi-2).

    One norm a layer, biases everywhere, the LM head's included.
    """
    hidden = fields.count("hidden_size")
    heads, kv, dim = fields.heads()
    attention = Attention(
        heads=heads,
        kv_heads=kv,
        head_dim=dim,
        bias="qkvo",
        qk_norm="affine" if fields.flag("qk_layernorm") else "",
    )
    ffn = Ffn(width=fields.count("intermediate_size"), gated=False, bias=True)
    layers = [Block(attention=attention, ffn=ffn, norms=2)] * fields.layers()
    extras = (vector("head_bias", "head", fields.count("vocab_size"), split="out"),)
    return assemble(fields, layers, hidden=hidden, tied=False, norms=2, extras=extras)


def opt(fields: Fields) -> Model:
    """OPTForCausalLM: two more position rows than positions; tied.

    ``enable_bias`` and ``layer_norm_elementwise_affine`` are assumed true.
    """
    hidden = fields.count("hidden_size")
    heads = fields.count("num_attention_heads")
    biased, affine = (
        fields.flag("enable_bias", True),
        fields.flag("layer_norm_elementwise_affine", True),
    )
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=fields.divided(hidden, heads),
        bias="qkvo" if biased else "",
    )
    ffn = Ffn(width=fields.count("ffn_dim"), gated=False, bias=biased)
    layers = [Block(attention=attention, ffn=ffn, norms=4 if affine else 0)] * fields.layers()
    words = fields.count("word_embed_proj_dim", default=hidden)
    if words != hidden:
        raise Unsupported(
            f"{fields.path}.word_embed_proj_dim: embeddings narrower than the model (OPT-350m) are not modelled",
            "Use another size of OPT",
        )
    rows = fields.count("max_position_embeddings", default=2048, high=CONTEXT_LIMIT) + 2
    before = fields.flag("do_layer_norm_before", True) and not fields.flag("_remove_final_layer_norm")
    return assemble(
        fields,
        layers,
        hidden=hidden,
        tied=True,
        norms=2 if before and affine else 0,
        extras=(table("positions", "position", rows, hidden),),
        context=rows - 2,
    )


def bloom(fields: Fields) -> Model:
    """BloomForCausalLM: ALiBi (no position table), a norm after the embedding, tied.

    Older files say ``n_embed`` for hidden_size.
    """
    hidden = fields.count("hidden_size", "n_embed")
    heads = fields.count("n_head", "num_attention_heads")
    attention = Attention(heads=heads, kv_heads=heads, head_dim=fields.divided(hidden, heads), bias="qkvo")
    ffn = Ffn(width=4 * hidden, gated=False, bias=True)
    layers = [Block(attention=attention, ffn=ffn, norms=4)] * fields.layers("n_layer", "num_hidden_layers")
    extras = (vector("embedding_norm", "position", 2 * hidden),)
    context = fields.count("seq_length", default=2048, high=CONTEXT_LIMIT)
    return assemble(fields, layers, hidden=hidden, tied=True, norms=2, extras=extras, context=context)


def falcon(fields: Fields) -> Model:
    """FalconForCausalLM: KV heads and norms follow from three flags; tied.

    Older files say n_head, n_head_kv, n_layer, and with n_head_kv mean the new architecture.
    ``new_decoder_architecture`` (40B, 180B): ``num_kv_heads`` and two norms in parallel (one if
    ``num_ln_in_parallel_attn`` is 1). Else ``multi_query`` (assumed true): one KV head, otherwise
    one per head; and ``parallel_attn`` (assumed true): one norm, otherwise two.
    """
    hidden = fields.count("hidden_size")
    heads = fields.count("num_attention_heads", "n_head")
    new = fields.flag("new_decoder_architecture", fields.get("n_head_kv") is not None)
    biased = fields.flag("bias")
    norms = 1 if fields.flag("parallel_attn", True) else 2
    kv = 1 if fields.flag("multi_query", True) else heads
    if new:
        kv = fields.count("num_kv_heads", "n_head_kv", default=heads)
        norms = fields.count("num_ln_in_parallel_attn", default=2, high=2)
    attention = Attention(
        heads=heads,
        kv_heads=kv,
        head_dim=fields.divided(hidden, heads),
        bias="qkvo" if biased else "",
    )
    ffn = Ffn(width=fields.count("ffn_hidden_size", default=4 * hidden), gated=False, bias=biased)
    layers = [Block(attention=attention, ffn=ffn, norms=2 * norms)]
    layers *= fields.layers("num_hidden_layers", "n_layer")
    return assemble(fields, layers, hidden=hidden, tied=True, norms=2, context=2048)
