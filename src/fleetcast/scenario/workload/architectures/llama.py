"""Llama and its kin: pre-norm, RMSNorm, rotary positions, gated feed-forward.

Each builder states what its config.json leaves to the class. Sources: the configuration and
modelling files of Hugging Face transformers 4.57-5.x and the model cards named in the catalogue.
"""

from __future__ import annotations

from fleetcast.scenario.workload.architectures.assemble import assemble
from fleetcast.scenario.workload.architectures.fields import CONTEXT_LIMIT, Fields
from fleetcast.scenario.workload.architectures.vision import siglip
from fleetcast.scenario.workload.models import Attention, Block, Ffn, Model

SLIDING, FULL = "sliding_attention", "full_attention"


def llama(fields: Fields) -> Model:
    """LlamaForCausalLM: biases only where flags say so.

    KV heads default to all heads (Llama 1, Llama 2 7B).
    """
    hidden = fields.count("hidden_size")
    heads, kv, dim = fields.heads()
    attention = Attention(heads=heads, kv_heads=kv, head_dim=dim, bias="qkvo" if fields.flag("attention_bias") else "")
    ffn = Ffn(width=fields.count("intermediate_size"), bias=fields.flag("mlp_bias"))
    layers = [Block(attention=attention, ffn=ffn)] * fields.layers()
    return assemble(fields, layers, hidden=hidden, tied=False)


def mistral(fields: Fields) -> Model:
    """MistralForCausalLM: 8 KV heads assumed.

    Where ``sliding_window`` is not written, the class assumes 4,096 tokens.

    Written as null it means full attention (v0.2 and later).
    """
    hidden = fields.count("hidden_size")
    heads, kv, dim = fields.heads(kv_default=8)
    window = 0
    if fields.get("sliding_window") is not None or not fields.has("sliding_window"):
        window = fields.count("sliding_window", default=4096, high=CONTEXT_LIMIT)
    attention = Attention(heads=heads, kv_heads=kv, head_dim=dim, window=window)
    layers = [Block(attention=attention, ffn=Ffn(width=fields.count("intermediate_size")))]
    return assemble(fields, layers * fields.layers(), hidden=hidden, tied=False)


def qwen2(fields: Fields) -> Model:
    """Qwen2ForCausalLM (Qwen 1.5 to 2.5). Always biased q, k, v; 32 KV heads assumed.

    ``sliding_window`` counts only with ``use_sliding_window``, and then from layer
    ``max_window_layers`` on.
    """
    return _qwen(fields, bias="qkv", qk_norm=False)


def qwen3(fields: Fields) -> Model:
    """Qwen3ForCausalLM: q and k normed per head.

    Head dimension 128 assumed; it is not hidden / heads.
    """
    return _qwen(fields, bias="qkvo" if fields.flag("attention_bias") else "", qk_norm=True)


def _qwen(fields: Fields, *, bias: str, qk_norm: bool) -> Model:
    hidden, layers = fields.count("hidden_size"), fields.layers()
    heads, kv, dim = fields.heads(kv_default=32, dim_default=128 if qk_norm else 0)
    ffn = Ffn(width=fields.count("intermediate_size"))
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
            ffn=ffn,
        )
        for window in qwen_windows(fields, layers)
    ]
    return assemble(fields, blocks, hidden=hidden, tied=False)


def qwen_windows(fields: Fields, layers: int) -> list[int]:
    """Returns the window of each layer of a Qwen config.

    0 unless ``use_sliding_window`` is true.
    """
    if not fields.flag("use_sliding_window"):
        return [0] * layers
    window = fields.count("sliding_window", default=4096, high=CONTEXT_LIMIT)
    kinds = fields.kinds("layer_types", layers, (SLIDING, FULL))
    if kinds is not None:
        return [window if kind == SLIDING else 0 for kind in kinds]
    first = fields.count("max_window_layers", default=28, low=0)
    return [window if i >= first else 0 for i in range(layers)]


def phi3(fields: Fields) -> Model:
    """Phi3ForCausalLM (Phi-3, Phi-4).

    ``sliding_window`` holds for all layers (2,047 in Phi-3-mini-4k).
    """
    hidden = fields.count("hidden_size")
    heads, kv, dim = fields.heads()
    window = fields.count("sliding_window", default=0, low=0, high=CONTEXT_LIMIT)
    attention = Attention(heads=heads, kv_heads=kv, head_dim=dim, window=window)
    layers = [Block(attention=attention, ffn=Ffn(width=fields.count("intermediate_size")))]
    return assemble(fields, layers * fields.layers(), hidden=hidden, tied=False)


def gemma(fields: Fields) -> Model:
    """GemmaForCausalLM. Head dimension 256 and 16 KV heads assumed; embedding and head tied."""
    hidden = fields.count("hidden_size")
    heads, kv, dim = fields.heads(kv_default=16, dim_default=256)
    attention = Attention(heads=heads, kv_heads=kv, head_dim=dim, bias="qkvo" if fields.flag("attention_bias") else "")
    layers = [Block(attention=attention, ffn=Ffn(width=fields.count("intermediate_size")))]
    return assemble(fields, layers * fields.layers(), hidden=hidden, tied=True)


def gemma2(fields: Fields) -> Model:
    """Gemma2ForCausalLM: four norms a layer; tied.

    Every other layer, from the first on, sees 4,096 tokens.
    """
    layers = fields.layers()
    kinds = fields.kinds("layer_types", layers, (SLIDING, FULL))
    if kinds is None:
        kinds = tuple(FULL if i % 2 else SLIDING for i in range(layers))
    return _gemma_blocks(fields, kinds, qk_norm=False)


def gemma3(fields: Fields) -> Model:
    """Gemma3ForCausalLM: five windowed layers before each full one; tied.

    (``sliding_window_pattern`` 6.)

    Assumed where absent: 8 heads, 4 KV heads of 256, vocabulary 262,208, window 4,096, context
    131,072.
    """
    layers = fields.layers()
    kinds = fields.kinds("layer_types", layers, (SLIDING, FULL))
    if kinds is None:
        every = fields.count("sliding_window_pattern", "_sliding_window_pattern", default=6)
        kinds = tuple(SLIDING if (i + 1) % every else FULL for i in range(layers))
    return _gemma_blocks(fields, kinds, qk_norm=True)


def gemma3_multimodal(fields: Fields) -> Model:
    """Gemma3ForConditionalGeneration: Gemma 3 under ``text_config``, a SigLIP tower beside it."""
    text = fields.inner("text_config")
    model = gemma3(text)
    return _with_vision(model, siglip(fields.inner("vision_config"), model.hidden))


def _with_vision(model: Model, params: int) -> Model:
    import msgspec

    return msgspec.structs.replace(model, vision_params=params)


def _gemma_blocks(fields: Fields, kinds: tuple[str, ...], *, qk_norm: bool) -> Model:
    hidden = fields.count("hidden_size", default=2304)
    wide = {"num_attention_heads": 8, "num_key_value_heads": 4}
    filled = Fields(wide | {k: v for k, v in fields.table.items() if v is not None}, fields.path, fields.outer)
    heads, kv, dim = filled.heads(dim_default=256, hidden=hidden)
    window = fields.count("sliding_window", default=4096, high=CONTEXT_LIMIT)
    ffn = Ffn(width=fields.count("intermediate_size", default=9216))
    blocks = [
        Block(
            attention=Attention(
                heads=heads,
                kv_heads=kv,
                head_dim=dim,
                window=window if kind == SLIDING else 0,
                bias="qkvo" if fields.flag("attention_bias") else "",
                qk_norm="head" if qk_norm else "",
            ),
            ffn=ffn,
            norms=4,
        )
        for kind in kinds
    ]
    vocab = fields.count("vocab_size", default=262208 if qk_norm else 256000, high=1 << 28)
    context = 131072 if qk_norm else 8192
    return assemble(fields, blocks, hidden=hidden, tied=True, vocab=vocab, context=context)
