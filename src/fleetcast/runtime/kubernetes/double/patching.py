"""Patches and selectors of queries, as far as schedulers and kubectl use them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["merged", "wanted"]

_BY_KEY = {"conditions": "type", "containers": "name", "taints": "key"}
"""Lists that a strategic merge patch merges, by the key of their rows; others are replaced."""


def merged(old: Any, patch: Any) -> Any:
    """Returns an object after a merge patch; None deletes, and rows of `_BY_KEY` are merged."""
    if not isinstance(patch, Mapping) or not isinstance(old, Mapping):
        return patch
    made = dict(old)
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        elif key in _BY_KEY and isinstance(value, list):
            rows = {row.get(_BY_KEY[key]): row for row in made.get(key) or ()}
            for row in value:
                rows[row.get(_BY_KEY[key])] = merged(rows.get(row.get(_BY_KEY[key])), row)
            made[key] = list(rows.values())
        else:
            made[key] = merged(made.get(key), value)
    return made


def wanted(query: Mapping[str, str]) -> Callable[[Mapping[str, Any]], bool] | None:
    """Returns whether an object meets a query's labelSelector and fieldSelector; None = all do."""
    tests: list[tuple[bool, str, str, bool]] = []
    for name, labels in (("labelSelector", True), ("fieldSelector", False)):
        for term in filter(None, query.get(name, "").split(",")):
            found = re.fullmatch(r"([^=!]+)(==|=|!=)(.*)", term)
            if found is not None:
                tests.append((labels, found[1], found[3], found[2] != "!="))
    if not tests:
        return None

    def meets(table: Mapping[str, Any]) -> bool:
        return all((_value(table, path, labels) == value) == equal for labels, path, value, equal in tests)

    return meets


def _value(table: Mapping[str, Any], path: str, labels: bool) -> str:
    if labels:
        return str(((table.get("metadata") or {}).get("labels") or {}).get(path, ""))
    found: Any = table
    for word in path.split("."):
        found = (found or {}).get(word)
    return str(found or "")
