"""Shows a trial of the application: each model on each tier as forecast and as measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.view.tables import rows_table

HEADS = ("Tier", "Model", "Right", "Median", "90 %", "Forecast", "Memory", "CPU held by")


def trial_view(table: Mapping[str, Any], kept: Path | None) -> RenderableType:
    """Returns the report of `search.tiers.trial.Trial.table`."""
    rows = [_row(row) for row in table["cells"]]
    models = ", ".join(
        f"{m['name']} {m['parameters'] / 1e6:.2f}M ({show(m['seconds'], 's')} at full speed)" for m in table["models"]
    )
    tiers = "; ".join(
        f"{t['name']}: {t['share']:.0%} of a core, {show(t['room'], 'B')} for the model"
        + (f", behind {' and '.join(t['links'])}" if t["links"] else "")
        for t in table["tiers"]
    )
    notes = [
        f"models: {models}", tiers,
        f"logs are synthetic; always telling the most common context would be right in {table['most_common']:.0%}",
        "tiers are emulated on this machine; forecasts were made from full speed and a quota that no tier has, before "
        "anything ran on a tier",
    ]  # fmt: skip
    if kept is None:
        notes.append("keep it with --out trial.json")
    return Group(
        Text(f"{table['logs']} sensor logs told as contexts", style="bold"), Text(),
        rows_table(HEADS, rows, right=(2, 3, 4, 5, 6)), Text(), *(Text(note, style="dim") for note in notes),
    )  # fmt: skip


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    if not row["fits"]:
        told = "" if row["forecast_fits"] else "as forecast"
        return row["tier"], row["model"], "-", "does not fit", "-", told, show(row["forecast_mapped"], "B"), ""
    forecast = show(row["forecast"], "s") if row["forecast"] is not None else "does not fit"
    return (
        row["tier"], row["model"], f"{row['quality']:.0%}", show(row["p50"], "s"), show(row["p90"], "s"), forecast,
        show(row["memory"]["mapped"], "B"), row["cpu_held_by"],
    )  # fmt: skip
