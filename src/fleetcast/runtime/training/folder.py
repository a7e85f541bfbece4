"""Writes a model as a Hugging Face folder: config.json, model.safetensors, and a tokenizer beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.base.files import write_atomic
from fleetcast.runtime.llm.shape import read_shape
from fleetcast.runtime.training.tokens import BYTES, SPECIALS, TEMPLATE

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None
try:
    from safetensors.torch import save as serialise
except ImportError:
    raise MissingExtra("safetensors", "torch") from None

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_LONG: Final = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def config(
    *,
    hidden: int,
    layers: int,
    heads: int,
    kv_heads: int = 0,
    width: int = 0,
    vocab: int = BYTES,
    context: int = 1024,
    tied: bool = False,
    theta: float = 10_000.0,
    begin: int = 256,
    end: int = 257,
) -> dict[str, Any]:
    """Returns the config.json of a Llama.

    Args:
        hidden: elements of the residual stream.
        layers: of the model.
        heads: query heads.
        kv_heads: key and value heads; 0 = as many as query heads.
        width: inner elements of the feed-forward part; 0 = 8/3 of hidden, to a multiple of 32.
        vocab: of the tokenizer.
        context: most positions of a sequence.
        tied: the LM head is the embedding.
        theta: base of the rotary frequencies.
        begin: id of the token that begins a text.
        end: id of the token that ends one.
    """
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads or heads,
        "intermediate_size": width or -(-8 * hidden // 96) * 32, "vocab_size": vocab,
        "max_position_embeddings": context, "rms_norm_eps": 1e-5, "rope_theta": theta, "tie_word_embeddings": tied,
        "attention_bias": False, "mlp_bias": False, "bos_token_id": begin, "eos_token_id": end,
        "torch_dtype": "float32",
    }  # fmt: skip


def save(
    folder: str | Path,
    table: Mapping[str, Any],
    weights: Mapping[str, Any],
    *,
    dtype: str = "fp32",
    tokenizer: str = "",
) -> Path:
    """Writes a folder that `fleetcast.runtime.llm.open_engine` opens; each file whole or not at all, the weights last.

    Args:
        folder: made where it is not there; its files of the same names are replaced.
        table: the config.json.
        weights: every tensor that the config implies, by name.
        dtype: they are stored in: "fp32", "bf16" or "fp16".
        tokenizer: content of a tokenizer.json with the special tokens of `tokens`; "" writes none.

    Raises:
        SpecError: a dtype that is not one; a tensor that is missing, one too many, or of another shape.
    """
    if dtype not in DTYPES:
        raise SpecError("dtype", "cannot be written", value=dtype, limit=f"one of {', '.join(DTYPES)}")
    table = dict(table) | {"torch_dtype": _LONG[dtype]}
    wanted = dict(read_shape(table).tensors())
    for name in sorted(wanted.keys() | weights.keys()):
        size = tuple(weights[name].shape) if name in weights else None
        if size != wanted.get(name):
            limit = f"{wanted.get(name, 'no such tensor')} as the config implies"
            raise SpecError(f"tensor {name}", "does not fit the config", value=size or "none", limit=limit)
    stored = {name: value.detach().to(DTYPES[dtype]).contiguous().clone() for name, value in weights.items()}
    folder = Path(folder)
    write_atomic(folder / "config.json", json.dumps(table, indent=2) + "\n")
    if tokenizer:
        write_atomic(folder / "tokenizer.json", tokenizer)
        said = {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIALS[0], "eos_token": SPECIALS[1],
            "chat_template": TEMPLATE, "clean_up_tokenization_spaces": False,
        }  # fmt: skip
        write_atomic(folder / "tokenizer_config.json", json.dumps(said, indent=2) + "\n")
    write_atomic(folder / "model.safetensors", serialise(stored, metadata={"format": "pt"}))
    return folder
