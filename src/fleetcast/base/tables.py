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
