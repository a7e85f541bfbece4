"""A config.json, read field by field: every value is checked before it becomes a shape.

A config file may come from anywhere. It is parsed as data only, its size is capped, and each field
must be a whole number within a limit that no real model reaches, so that a broken or hostile file
ends in one sentence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fleetcast.base.errors import SpecError
from fleetcast.base.files import read_text

SIZE_LIMIT: Final = 8 << 20
"""Largest config.json that is read, bytes; real ones are below 1 MB."""

DEPTH_LIMIT: Final = 32
"""Deepest nesting that is read; real ones are below 8."""

LAYERS_LIMIT: Final = 4096
WIDTH_LIMIT: Final = 1 << 24
VOCAB_LIMIT: Final = 1 << 28
CONTEXT_LIMIT: Final = 1 << 34
HINT: Final = "Take config.json from the model's own repository"


def read_config(path: str | Path) -> dict[str, Any]:
    """Returns the table in a config.json, or in the one inside a model folder.

    Raises:
        SpecError: absent, too large, not UTF-8, not JSON, not a table, or it has NaN or infinite
            numbers.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "config.json"
    text = read_text(path, limit=SIZE_LIMIT)
    try:
        found = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise SpecError(str(path), "is nested too deeply", hint=HINT) from None
    except ValueError as error:
        raise SpecError(str(path), f"is not JSON: {error}", hint=HINT) from None
    if not isinstance(found, dict):
        raise SpecError(str(path), "must hold a table", value=type(found).__name__, hint=HINT)
    return found


def check_depth(table: object, path: str) -> None:
    """Refuses a value nested deeper than `DEPTH_LIMIT`, which later steps could not even print.

    Raises:
        SpecError: nested too deeply, or containing itself.
    """
    level = [table]
    for _ in range(DEPTH_LIMIT):
        inner: list[object] = []
        for value in level:
            if isinstance(value, Mapping):
                inner.extend(value.values())
            elif isinstance(value, list | tuple):
                inner.extend(value)
        if not inner:
            return
        level = inner
    raise SpecError(path, "is nested too deeply", limit=f"at most {DEPTH_LIMIT} levels", hint=HINT)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


class Fields:
    """One table of a config, with the table around it for what is said only there.

    Args:
        table: the fields.
        path: where the table stands, for errors.
        outer: the enclosing table, searched for a field that is absent here.
    """

    def __init__(self, table: Mapping[str, Any], path: str, outer: Fields | None = None) -> None:
        self.table, self.path, self.outer = table, path, outer

    def has(self, name: str) -> bool:
        """Whether the field is written, even as null."""
        return name in self.table

    def get(self, *names: str) -> Any:
        """Returns the first of these fields that is written and not null; else None.

        Looks here, then further out.
        """
        for name in names:
            if self.table.get(name) is not None:
                return self.table[name]
        return self.outer.get(*names) if self.outer else None

    def inner(self, name: str) -> Fields:
        """Returns the table under ``name``; absent = empty.

        Raises:
            SpecError: it is there and not a table.
        """
        value = self.table.get(name)
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise SpecError(f"{self.path}.{name}", "must be a table", value=value, hint=HINT)
        return Fields(value, f"{self.path}.{name}", self)

    def count(self, *names: str, default: int | None = None, low: int = 1, high: int = WIDTH_LIMIT) -> int:
        """Returns a whole number.

        Args:
            names: the field and its older names.
            default: what the model class assumes where it is absent or null; None = it must be
                there.
            low: least value.
            high: greatest value.

        Raises:
            SpecError: absent, not a whole number, or out of range.
        """
        value = self.get(*names)
        where = f"{self.path}.{next((n for n in names if self.table.get(n) is not None), names[0])}"
        limit = f"a whole number from {low} to {high}"
        if value is None:
            if default is None:
                raise SpecError(where, "is missing", limit=limit, hint=HINT)
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise SpecError(where, "cannot be", value=value, limit=limit, hint=HINT)
        return value

    def number(self, *names: str, default: float | None = None, low: float = 0.0, high: float = 1e12) -> float:
        """Returns a number, whole or not.

        Args:
            names: the field and its older names.
            default: what the model class assumes where it is absent or null; None = it must be there.
            low: least value.
            high: greatest value.

        Raises:
            SpecError: absent, not a number, or out of range.
        """
        value = self.get(*names)
        where = f"{self.path}.{next((n for n in names if self.table.get(n) is not None), names[0])}"
        limit = f"a number from {low:g} to {high:g}"
        if value is None:
            if default is None:
                raise SpecError(where, "is missing", limit=limit, hint=HINT)
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise SpecError(where, "cannot be", value=value, limit=limit, hint=HINT)
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """Returns a boolean.

        Raises:
            SpecError: neither true nor false.
        """
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise SpecError(f"{self.path}.{name}", "cannot be", value=value, limit="true or false", hint=HINT)
        return value

    def text(self, name: str, default: str = "") -> str:
        """Returns a text.

        Raises:
            SpecError: not a text.
        """
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise SpecError(f"{self.path}.{name}", "cannot be", value=value, limit="a text", hint=HINT)
        return value

    def kinds(self, name: str, layers: int, known: tuple[str, ...]) -> tuple[str, ...] | None:
        """Returns one word per layer, or None where the field is absent.

        Raises:
            SpecError: not a list, not as long as there are layers, or an unknown word.
        """
        value = self.get(name)
        if value is None:
            return None
        where = f"{self.path}.{name}"
        if not isinstance(value, list | tuple) or len(value) != layers:
            size = len(value) if isinstance(value, list | tuple) else value
            raise SpecError(where, "must name each layer", value=size, limit=f"{layers} entries", hint=HINT)
        for i, word in enumerate(value):
            if word not in known:
                raise SpecError(
                    f"{where}[{i}]",
                    "is unknown",
                    value=word,
                    limit=f"one of {', '.join(known)}",
                    hint=HINT,
                )
        return tuple(value)

    def numbers(self, name: str) -> tuple[int, ...]:
        """Returns a list of whole numbers; absent = empty.

        Raises:
            SpecError: anything else.
        """
        value = self.get(name)
        if value is None:
            return ()
        if not isinstance(value, list | tuple) or not all(
            isinstance(i, int) and not isinstance(i, bool) for i in value
        ):
            raise SpecError(f"{self.path}.{name}", "must list whole numbers", value=value, hint=HINT)
        return tuple(value)

    def layers(self, *names: str) -> int:
        """Returns a number of layers."""
        return self.count(*(names or ("num_hidden_layers",)), high=LAYERS_LIMIT)

    def heads(self, *, kv_default: int = 0, dim_default: int = 0, hidden: int = 0) -> tuple[int, int, int]:
        """Returns (query heads, KV heads, head dimension) of a Llama-like config.

        Args:
            kv_default: KV heads that the class assumes; 0 = as many as query heads.
            dim_default: head dimension that the class assumes; 0 = hidden / heads.
            hidden: elements of the residual stream; 0 = ``hidden_size``.

        Raises:
            SpecError: heads that do not divide, besides what `count` refuses.
        """
        hidden = hidden or self.count("hidden_size", "n_embed", "n_embd")
        heads = self.count("num_attention_heads", "n_head", high=1 << 16)
        kv = self.count("num_key_value_heads", default=kv_default or heads, high=1 << 16)
        dim = self.count("head_dim", default=dim_default or -1)
        if dim == -1:
            dim = self.divided(hidden, heads)
        if heads % kv:
            raise SpecError(
                f"{self.path}.num_key_value_heads",
                "must divide num_attention_heads",
                value=kv,
                limit=f"a divisor of {heads}",
                hint=HINT,
            )
        return heads, kv, dim

    def divided(self, hidden: int, heads: int) -> int:
        """Returns elements per head.

        Raises:
            SpecError: the heads do not divide the hidden size.
        """
        if hidden % heads:
            raise SpecError(
                f"{self.path}.num_attention_heads",
                "must divide the hidden size",
                value=heads,
                limit=f"a divisor of {hidden}",
                hint=HINT,
            )
        return hidden // heads
