"""Text as ids: one per byte, or byte-level BPE learnt from text; both also as a tokenizer.json.

The byte tokenizer's ids are the bytes themselves, so text becomes ids without any library.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import MissingExtra, SpecError

NAMED: Final = ("<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
SPECIALS: Final = (*NAMED, *(f"<|spare{i}|>" for i in range(32 - len(NAMED))))
"""Tokens that are no text: 32, so that a byte vocabulary is a multiple of the 32 rows that packed matrices have."""
BYTES: Final = 256 + len(SPECIALS)
"""Vocabulary of the byte tokenizer; special i is id 256 + i."""
TEMPLATE: Final = (
    "{{ '<|begin|>' }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""Chat template (Jinja) over the special tokens."""


def as_bytes(text: str) -> NDArray[np.int64]:
    """Returns the ids of the byte tokenizer: the text's UTF-8."""
    return np.frombuffer(text.encode(), np.uint8).astype(np.int64)


def byte_tokenizer() -> str:
    """Returns the byte tokenizer as a tokenizer.json."""
    vocabulary = {character: byte for byte, character in enumerate(_alphabet())}
    table = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(256 + i, content) for i, content in enumerate(SPECIALS)],
        "normalizer": None,
        "pre_tokenizer": _LEVEL,
        "post_processor": None,
        "decoder": _LEVEL,
        "model": {"type": "BPE", "vocab": vocabulary | {s: 256 + i for i, s in enumerate(SPECIALS)}, "merges": []},
    }
    return json.dumps(table, ensure_ascii=False)


def train_tokenizer(texts: Iterable[str], vocab: int) -> str:
    """Returns a byte-level BPE tokenizer.json of at most ``vocab`` tokens, the specials first.

    Raises:
        SpecError: ``vocab`` cannot hold the bytes and the specials.
        MissingExtra: the tokenizers library is not installed.
    """
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError:
        raise MissingExtra("tokenizers", "torch") from None
    if vocab < BYTES:
        raise SpecError("vocab", "is too small", value=vocab, limit=f"at least {BYTES}: bytes and special tokens")
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    found.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
        ),
    )
    return str(found.to_str())


def encode(tokenizer: str, text: str) -> NDArray[np.int64]:
    """Returns the ids that a tokenizer.json's content gives a text.

    Raises:
        MissingExtra: the tokenizers library is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtra("tokenizers", "torch") from None
    return np.array(Tokenizer.from_str(tokenizer).encode(text).ids, np.int64)


_LEVEL: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def _special(number: int, content: str) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **plain, "special": True}


def _alphabet() -> list[str]:
    """Returns the character that byte-level BPE writes for each byte: itself where it prints, else from 256 on.

    Radford et al., GPT-2, 2019: 188 bytes print in Latin-1; the others follow in order.
    """
    prints = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in prints else chr(next(others)) for byte in range(256)]
