"""Models that every backend runs: the shapes of BERT, RoBERTa, XLM-R and Llama, with random weights.

Widths, activations and norms are those of the published base models, and of Llama 3.2 1B at 768 wide; layers and
vocabulary can be fewer, so that a grid is measured in minutes. Weights are random and synthetic: they say how long a
pass takes and whether backends agree, nothing about language.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import MissingExtra, SpecError, closest
from fleetcast.base.files import write_atomic
from fleetcast.base.rng import rng

Weights = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """An encoder or decoder.

    Attributes:
        name: "bert", "roberta", "xlm-r" or "llama".
        layers: of the trunk.
        hidden: elements of the residual stream.
        heads: query heads.
        kv_heads: key and value heads; as many as query heads in an encoder.
        width: inner elements of the feed-forward part.
        vocab: rows of the embedding.
        positions: longest sequence.
        offset: first row of the table of positions that is used; RoBERTa leaves out those up to its padding's.
        types: rows of the table of token types.
        epsilon: of the norms.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    width: int
    vocab: int
    positions: int
    offset: int = 0
    types: int = 0
    epsilon: float = 1e-5

    @property
    def decoder(self) -> bool:
        """Whether it predicts tokens (causal, with a head); else it encodes."""
        return self.name == "llama"

    @property
    def head_dim(self) -> int:
        """Elements of a head."""
        return self.hidden // self.heads

    @property
    def outputs(self) -> int:
        """Elements of an output row: the vocabulary of a decoder, the hidden size of an encoder."""
        return self.vocab if self.decoder else self.hidden

    def config(self) -> dict[str, Any]:
        """Returns the config.json that the Hugging Face classes read."""
        shared = {
            "num_hidden_layers": self.layers, "hidden_size": self.hidden, "num_attention_heads": self.heads,
            "intermediate_size": self.width, "vocab_size": self.vocab, "torch_dtype": "float32",
        }  # fmt: skip
        if self.decoder:
            return shared | {
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_key_value_heads": self.kv_heads,
                "max_position_embeddings": self.positions, "rms_norm_eps": self.epsilon, "hidden_act": "silu",
                "rope_theta": 10000.0, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
            }  # fmt: skip
        classes = {"bert": "BertModel", "roberta": "RobertaModel", "xlm-r": "XLMRobertaModel"}
        kinds = {"bert": "bert", "roberta": "roberta", "xlm-r": "xlm-roberta"}
        return shared | {
            "architectures": [classes[self.name]], "model_type": kinds[self.name], "hidden_act": "gelu",
            "max_position_embeddings": self.positions + self.offset, "type_vocab_size": self.types,
            "layer_norm_eps": self.epsilon, "pad_token_id": max(self.offset - 1, 0),
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "position_embedding_type": "absolute",
        }  # fmt: skip

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yields the name and shape of every tensor, as Hugging Face names them."""
        h, w = self.hidden, self.width
        if self.decoder:
            keys = self.kv_heads * self.head_dim
            yield "model.embed_tokens.weight", (self.vocab, h)
            for i in range(self.layers):
                at = f"model.layers.{i}."
                yield f"{at}input_layernorm.weight", (h,)
                yield f"{at}post_attention_layernorm.weight", (h,)
                for name, rows in (("q", h), ("k", keys), ("v", keys), ("o", h)):
                    yield f"{at}self_attn.{name}_proj.weight", (rows, h)
                for name, size in (("gate", (w, h)), ("up", (w, h)), ("down", (h, w))):
                    yield f"{at}mlp.{name}_proj.weight", size
            yield "model.norm.weight", (h,)
            yield "lm_head.weight", (self.vocab, h)
            return
        yield "embeddings.word_embeddings.weight", (self.vocab, h)
        yield "embeddings.position_embeddings.weight", (self.positions + self.offset, h)
        yield "embeddings.token_type_embeddings.weight", (self.types, h)
        yield "embeddings.LayerNorm.weight", (h,)
        yield "embeddings.LayerNorm.bias", (h,)
        for i in range(self.layers):
            at = f"encoder.layer.{i}."
            for name, rows, inputs in (
                ("attention.self.query", h, h), ("attention.self.key", h, h), ("attention.self.value", h, h),
                ("attention.output.dense", h, h), ("intermediate.dense", w, h), ("output.dense", h, w),
            ):  # fmt: skip
                yield f"{at}{name}.weight", (rows, inputs)
                yield f"{at}{name}.bias", (rows,)
            for name in ("attention.output.LayerNorm", "output.LayerNorm"):
                yield f"{at}{name}.weight", (h,)
                yield f"{at}{name}.bias", (h,)

    def flops(self, sequence: int, batch: int) -> tuple[float, float]:
        """Returns the floating-point operations of a pass: of its matrix products, of its attention.

        A decoder's attention counts the pairs that it sees, and its head every position.
        """
        tokens = float(sequence * batch)
        keys = self.kv_heads * self.head_dim
        feed = 3 if self.decoder else 2
        layer = self.hidden * (2 * self.hidden + 2 * keys) + feed * self.hidden * self.width
        products = 2 * tokens * (self.layers * layer + self.decoder * self.hidden * self.vocab)
        pairs = batch * (sequence * (sequence + 1) / 2 if self.decoder else float(sequence**2))
        return products, 4.0 * self.layers * self.hidden * pairs

    def read(self) -> float:
        """Returns the bytes of weights that a pass reads: all but the tables."""
        return 4.0 * sum(int(np.prod(size)) for name, size in self.tensors() if len(size) == 1 or "embed" not in name)


_BASE: Final = {"hidden": 768, "heads": 12, "kv_heads": 12, "width": 3072, "positions": 512}
SHAPES: Final = {
    "bert": Shape(name="bert", layers=12, vocab=30_522, types=2, epsilon=1e-12, **_BASE),
    "roberta": Shape(name="roberta", layers=12, vocab=50_265, offset=2, types=1, **_BASE),
    "xlm-r": Shape(name="xlm-r", layers=12, vocab=250_002, offset=2, types=1, **_BASE),
    "llama": Shape(
        name="llama",
        layers=12,
        hidden=768,
        heads=12,
        kv_heads=4,
        width=2048,
        vocab=32_000,
        positions=2048,
    ),
}
"""Devlin et al., "BERT", 2019; Liu et al., "RoBERTa", 2019; Conneau et al., "XLM-R", 2020; Touvron et al., 2023."""


def shape(name: str, *, layers: int = 0, vocab: int = 0) -> Shape:
    """Returns a shape by name, with fewer layers or a smaller vocabulary where these are given.

    Raises:
        SpecError: no such shape.
    """
    if name not in SHAPES:
        limit = f"one of {', '.join(SHAPES)}"
        raise SpecError("shape", "is not known", value=name, limit=limit, hint=closest(name, SHAPES))
    found = SHAPES[name]
    return replace(found, layers=layers or found.layers, vocab=vocab or found.vocab)


def weights(shape: Shape, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Returns random weights: matrices of variance 1 / inputs, norms near 1, biases near 0."""
    stream = rng(seed, "backends", shape.name)
    made = {}
    for name, size in shape.tensors():
        values = stream.standard_normal(size, dtype=np.float32)
        if name.endswith(("norm.weight", "LayerNorm.weight")):
            values = 1.0 + 0.1 * values
        elif len(size) == 1:
            values *= 0.05
        elif "embed" in name:
            values *= 0.5
        else:
            values *= size[1] ** -0.5
        made[name] = values.astype(np.float32)
    return made


def write(folder: Path, shape: Shape, seed: int = 0) -> None:
    """Writes ``config.json`` and ``model.safetensors``, as Hugging Face lays them out.

    Raises:
        MissingExtra: safetensors is not installed.
    """
    try:
        from safetensors.numpy import save
    except ImportError:
        raise MissingExtra("safetensors", "torch") from None
    write_config(folder, shape)
    write_atomic(folder / "model.safetensors", save(weights(shape, seed), {"format": "pt"}))


def write_config(folder: Path, shape: Shape) -> None:
    """Writes ``config.json`` alone, which is all that a forecast reads."""
    write_atomic(folder / "config.json", json.dumps(shape.config(), indent=1))
