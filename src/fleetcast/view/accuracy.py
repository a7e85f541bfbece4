"""How far forecasts have been from measured servers: the packaged forecast-error records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

_RECORDS = Path(__file__).parent / "evidence" / "forecast_error.json"


@cache
def forecast_errors() -> tuple[dict[str, Any], ...]:
    """Returns the packaged records that hold a result (docs/evidence.md says what a record is)."""
    records = json.loads(_RECORDS.read_text(encoding="utf-8"))
    return tuple(r for r in records if r.get("skipped") is None)


def accuracy_rows(records: Sequence[dict[str, Any]]) -> list[tuple[str, str, str, str, str]]:
    """Returns (claim, our figure with its setting, null, bar, "yes" or "no" for whether the bar holds)."""
    rows = []
    for record in records:
        ours, null = record["ours"], record.get("null", {})
        figure = _figure(ours.get("value"), ours.get("unit", ""))
        trivial = null.get("value")
        beside = f"{_figure(trivial, ours.get('unit', ''))} ({null.get('what', '')})" if trivial is not None else "–"
        rows.append((record["claim"], figure, beside, record["bar"], "yes" if record["holds"] else "no"))
    return rows


def _figure(value: object, unit: str) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text + unit if unit == "%" else f"{text} {unit}".strip()
