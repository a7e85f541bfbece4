"""Shows what a model answered: its score beside chance, what the order of the options did, what a question costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.view.tables import rows_table

SAID = {
    "cyclic": "each in 4 orders, every option once at every letter", "all": "each in all 24 orders",
    "given": "in the order of the file alone: position can help or harm",
}  # fmt: skip
SURE = 0.01
"""Below this p-value a score is said to be above chance."""


def quality_view(table: Mapping[str, Any], kept: Path | None) -> RenderableType:
    """Returns the report of `Quality.table`."""
    places, costs = table["positions"], table["costs"]
    dtype = f" in {table['dtype']}" if table["dtype"] else ""
    asked = SAID[table["orders"]] if table["by"] == "letters" else "by which option's text is likeliest, order aside"
    rows: list[tuple[str, ...]] = []
    if "accuracy" in table:
        low, high = table["interval"]
        above = table["p"] < SURE
        rows += [
            ("right answers", f"{table['accuracy']:.1%}", f"{low:.1%} to {high:.1%} (95 %)"),
            ("guessing", f"{table['chance']:.1%}", f"{'above it' if above else 'no better'}, p = {table['p']:.2g}"),
            ("right in every order", f"{table['consistent']:.1%}", _range(table["consistent_interval"])),
        ]
    else:
        rows.append(("right answers", "-", "the questions come without a key"))
    if table["by"] == "letters":
        letters = ", ".join(f"{letter} {share:.0%}" for letter, share in places["letters"].items())
        rows.append(("same answer in every order", f"{places['same_in_every_order']:.1%}", ""))
        rows.append(("letters picked", letters, f"{places['bias']:.1%} from even at most"))
    if places["unanswered"]:
        rows.append(("not answered", f"{places['unanswered']:.1%}", "counts as wrong"))
    rows.append(("a question, asked once", show(costs["seconds"], "s"), f"{costs['tokens']:.0f} tokens read"))
    if costs["joules"] is not None:
        rows.append(("", show(costs["joules"], "J"), "estimated"))
    if costs["weight_bytes"]:
        rows.append(("weights", show(costs["weight_bytes"], "B"), ""))
        rows.append(("cache of the longest question", show(costs["cache_bytes_longest"], "B"), ""))
        grown = f"{show(costs['rss_growth_bytes'], 'B')} of it since the model was opened"
        rows.append(("this process at its peak", show(costs["rss_bytes"], "B"), grown))
    fields = [
        (row["field"], str(row["items"]), "-" if row["accuracy"] is None else f"{row['accuracy']:.0%}")
        for row in table["fields"]
    ]
    blocks: list[RenderableType] = [
        Text(f"{table['model']}{dtype}: {table['items']} questions, {asked}", style="bold"), Text(),
        rows_table(("", "", ""), rows), Text(),
        rows_table(("Field", "Questions", "Right"), fields, right=(1, 2)), Text(),
        *(Text(note, style="dim") for note in (costs["method"], *table["notes"])),
    ]  # fmt: skip
    if kept is None and table["scores"]:
        blocks.append(
            Text('keep it with --out quality.json, then write workload.quality = "quality.json"', style="dim")
        )
    return Group(*blocks)


def _range(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%} (95 %)"
