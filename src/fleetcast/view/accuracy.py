"""How far forecasts have been from measured servers: the packaged forecast-error records."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

_ENGINES = {"vllm": "vLLM", "trtllm": "TensorRT-LLM", "sglang": "SGLang"}
_DEVICES = {"h100-sxm": "H100", "h200-sxm": "H200"}
"""Devices of the servers that were measured, as the records call them."""
_RECORDS = Path(__file__).parent / "evidence" / "forecast_error.json"


@cache
def forecast_errors() -> tuple[dict[str, Any], ...]:
    """Returns the packaged records that hold a result (docs/evidence.md says what a record is)."""
    records = json.loads(_RECORDS.read_text(encoding="utf-8"))
    return tuple(r for r in records if r.get("skipped") is None)


def concerning(
    records: Sequence[dict[str, Any]], engines: Collection[str], devices: Collection[str], metrics: Collection[str]
) -> tuple[tuple[dict[str, Any], ...], str]:
    """Returns the records that say how far to trust a plan, and in a sentence how near their servers are to it.

    A record concerns a plan unless it names another engine, another measured device or another metric. Those that only
    count rows or compare with another tool concern none.

    Args:
        records: as `forecast_errors` returns them.
        engines: families of the plan's engines, e.g. "vllm".
        devices: catalogue ids of its devices.
        metrics: "ttft", "tpot"; those its limits are about.
    """
    mine = [_ENGINES[e] for e in engines if e in _ENGINES]
    here = [_DEVICES[d] for d in devices if d in _DEVICES]
    known = [r for r in records if any(_names(r["claim"], name) for name in mine)]
    found = []
    for record in records:
        claim, setting = record["claim"], str(record["ours"].get("setting", ""))
        named = [name for name in _ENGINES.values() if _names(claim, name)]
        at = [name for name in _DEVICES.values() if _names(setting, name)]
        of = [name for name in ("ttft", "tpot") if _names(claim, name.upper())]
        if len(named) > 1 or "aiconfigurator" in claim:
            continue
        other_engine = bool(known and named) and not set(named) & set(mine)
        other_device = bool(here and at) and not set(at) & set(here)
        other_metric = bool(of) and not set(of) & set(metrics)
        if not (other_engine or other_device or other_metric):
            found.append(record)
    said = []
    for names, measured, what in (
        ([_ENGINES.get(e, e) for e in engines], bool(known), "run by"),
        (list(devices), len(here) == len(devices), "with"),
    ):
        if not measured:
            said.append(f"{what} {' or '.join(names)}")
    gap = f"No server {' '.join(said)} was measured: expect more than these, of the nearest that were." if said else ""
    return tuple(found), gap


def _names(text: str, name: str) -> bool:
    """Whether a text names a thing, in any case, as a word of its own or before a hyphen."""
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w])", text, re.IGNORECASE) is not None


def accuracy_rows(records: Sequence[dict[str, Any]]) -> list[tuple[str, str, str, str, str]]:
    """Returns (claim, our figure with its setting, null, bar, "yes" or "no" for whether the bar holds)."""
    rows = []
    for record in records:
        ours, null = record["ours"], record.get("null", {})
        figure = _figure(ours.get("value"), ours.get("unit", ""))
        trivial = null.get("value")
        beside = f"{_figure(trivial, ours.get('unit', ''))} ({null.get('what', '')})" if trivial is not None else "–"
        claim, beside, bar = (text.replace(" %", "%") for text in (record["claim"], beside, record["bar"]))
        rows.append((claim, figure, beside, bar, "yes" if record["holds"] else "no"))
    return rows


def _figure(value: object, unit: str) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text + unit if unit == "%" else f"{text} {unit}".strip()
