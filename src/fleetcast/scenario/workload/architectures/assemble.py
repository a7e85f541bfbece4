"""From layers to a Model: what all builders share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fleetcast.scenario.workload.architectures.fields import CONTEXT_LIMIT, VOCAB_LIMIT, Fields
from fleetcast.scenario.workload.models import Attention, Block, Ffn, Model, Tensor
from fleetcast.scenario.workload.precision import of_checkpoint, torch_dtype
from fleetcast.scenario.workload.tensors import vector


def assemble(
    fields: Fields,
    layers: Sequence[Block],
    *,
    hidden: int,
    tied: bool,
    norms: int = 1,
    vocab: int = 0,
    context: int = 0,
    encoder_context: int = 0,
    extras: Iterable[Tensor] = (),
    mtp: int = 0,
    vision: int = 0,
) -> Model:
    """Returns the model of these layers.

    Args:
        fields: the config: dtype, quantisation, vocabulary and context are read here.
        layers: one block per layer, first to last.
        hidden: elements of the residual stream.
        tied: the class's default of ``tie_word_embeddings``.
        norms: vectors of the final norm.
        vocab: rows of the embedding; 0 = ``vocab_size``.
        context: what the class assumes; 0 = it is in the config, or 0 where that is silent.
        encoder_context: positions of the encoder.
        extras: tables beside embedding, head and final norm.
        mtp: parameters of multi-token-prediction layers.
        vision: parameters of vision towers.
    """
    blocks = tuple(dict.fromkeys(layers))
    place = {block: i for i, block in enumerate(blocks)}
    quantised = fields.get("quantization_config", "compression_config")
    silent = "float32" if quantised is None else "bfloat16"
    rest = torch_dtype(fields.get("torch_dtype", "dtype") or silent, f"{fields.path}.torch_dtype")
    final = (vector("final_norm", "norm", norms * hidden),) if norms else ()
    return Model(
        architecture="",
        hidden=hidden,
        vocab=vocab or fields.count("vocab_size", high=VOCAB_LIMIT),
        blocks=blocks,
        pattern=tuple(place[block] for block in layers),
        tied=fields.flag("tie_word_embeddings", tied),
        extras=(*extras, *final),
        context=fields.count("max_position_embeddings", "n_positions", default=context, high=CONTEXT_LIMIT),
        encoder_context=encoder_context,
        precision=of_checkpoint(quantised, rest, len(layers), f"{fields.path}.quantization_config"),
        mtp_params=mtp,
        vision_params=vision,
    )


def plain(attention: Attention, ffn: Ffn, norms: int = 2) -> Block:
    """Returns a decoder layer of self-attention and feed-forward."""
    return Block(attention=attention, ffn=ffn, norms=norms)
