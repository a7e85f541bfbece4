"""Encoder-decoders.

T5 and Whisper. The encoder runs once a request; the decoder attends to it in every layer.

Each builder states what its config.json leaves to the class. Sources: T5 (Raffel et al., 2020),
Whisper (Radford et al., 2022), the configuration and modelling files of Hugging Face transformers
4.57-5.x.
"""

from __future__ import annotations

import msgspec

from fleetcast.scenario.workload.architectures.assemble import assemble
from fleetcast.scenario.workload.architectures.fields import CONTEXT_LIMIT, Fields
from fleetcast.scenario.workload.models import Attention, Block, Ffn, Model
from fleetcast.scenario.workload.tensors import linear, table, vector


def t5(fields: Fields) -> Model:
    """T5ForConditionalGeneration (T5, T5 v1.1, Flan-T5).

    Head size ``d_kv`` is not d_model / heads; tied by default.

    No position table: 32 relative buckets per head, learned once per stack. ``num_decoder_layers``
    null = as many as in the encoder. ``feed_forward_proj`` "gated-..." (v1.1) has a gate, "relu"
    none.
    """
    hidden = fields.count("d_model")
    heads, dim = fields.count("num_heads", high=1 << 16), fields.count("d_kv", default=64)
    attention = Attention(heads=heads, kv_heads=heads, head_dim=dim)
    gated = fields.text("feed_forward_proj", "relu").startswith("gated-")
    ffn = Ffn(width=fields.count("d_ff"), gated=gated)
    encoder = fields.layers("num_layers")
    decoder = fields.count("num_decoder_layers", default=encoder, high=4096)
    blocks = [Block(attention=attention, ffn=ffn, stack="encoder")] * encoder
    blocks += [Block(attention=attention, cross=attention, ffn=ffn, norms=3)] * decoder
    buckets = fields.count("relative_attention_num_buckets", default=32, high=1 << 20)
    extras = (
        table("encoder.relative", "position", buckets, heads),
        table("decoder.relative", "position", buckets, heads),
        vector("encoder.final_norm", "position", hidden),
    )
    return assemble(fields, blocks, hidden=hidden, tied=True, extras=extras)


def whisper(fields: Fields) -> Model:
    """WhisperForConditionalGeneration.

    Keys without bias; 1,500 audio positions (30 s), 448 text ones; always tied.

    Two convolutions of 3 taps turn mel frames into the encoder's input.
    """
    hidden = fields.count("d_model")
    encoder = _whisper_half(fields, "encoder", hidden)
    decoder = _whisper_half(fields, "decoder", hidden)
    blocks = [Block(attention=encoder[0], ffn=encoder[1], norms=4, stack="encoder")] * fields.layers("encoder_layers")
    blocks += [Block(attention=decoder[0], cross=decoder[0], ffn=decoder[1], norms=6)] * fields.layers("decoder_layers")
    mels = fields.count("num_mel_bins", default=80)
    heard = fields.count("max_source_positions", default=1500, high=CONTEXT_LIMIT)
    said = fields.count("max_target_positions", default=448, high=CONTEXT_LIMIT)
    extras = (
        linear("encoder.conv1", "position", 3 * mels, hidden, bias=True),
        linear("encoder.conv2", "position", 3 * hidden, hidden, bias=True),
        table("encoder.positions", "position", heard, hidden),
        table("decoder.positions", "position", said, hidden),
        vector("encoder.final_norm", "position", 2 * hidden),
    )
    model = assemble(
        fields,
        blocks,
        hidden=hidden,
        tied=True,
        norms=2,
        extras=extras,
        context=said,
        encoder_context=heard,
    )
    return msgspec.structs.replace(model, context=said, tied=True)


def _whisper_half(fields: Fields, half: str, hidden: int) -> tuple[Attention, Ffn]:
    heads = fields.count(f"{half}_attention_heads", high=1 << 16)
    dim = fields.divided(hidden, heads)
    attention = Attention(heads=heads, kv_heads=heads, head_dim=dim, bias="qvo")
    return attention, Ffn(width=fields.count(f"{half}_ffn_dim"), gated=False, bias=True)
