"""Nested tables of numbers, read by dotted path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def lookup(table: Mapping[str, Any], path: str) -> float:
    """Returns ``table["ttft"]["p99"]`` for the path ``ttft.p99``.

    Raises:
        KeyError: no such entry.
    """
    value: Any = table
    for part in path.split("."):
        value = value[part]
    return float(value)


def known(table: Mapping[str, Any], path: str) -> float | None:
    """Returns the same, None where there is no such entry, it is no number, or nobody knows it (NaN)."""
    try:
        value = lookup(table, path)
    except (KeyError, TypeError):
        return None
    return value if value == value else None
