"""What `fleetcast data where` shows: every way to bring data and compute together, quickest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fleetcast.base.show import show
from fleetcast.view import terminal

if TYPE_CHECKING:
    from fleetcast.search.where import Question, Way

SAID = {
    "there": "compute where the data lies", "mount": "read the data where it lies", "copy": "copy the data first",
}  # fmt: skip


def where_view(question: Question, found: Sequence[Way], width: int) -> Any:
    """Returns the best way in a sentence, and the table of all."""
    from rich.console import Group
    from rich.text import Text

    best = found[0]
    text = f"{best.group}: {SAID[best.how]}, {show(best.seconds, 's')}"
    other = next((way for way in found if (way.how == "there") != (best.how == "there")), None)
    if other is not None:
        text += f"; {SAID[other.how]} ({other.group}) takes {other.seconds / best.seconds:.2f} times as long"
    data = question.data
    about = f"{show(data.size, 'B')} at {data.at}, {data.read:.3g} of it read" + (
        f" {data.passes} times" if data.passes > 1 else ""
    )
    heads = ("Compute at", "How", "Total", "Data", "Compute", "Result", "Moved", "Cost")
    rows = [
        (
            way.group, way.how, show(way.seconds, "s"), show(max(way.data, way.environment), "s"),
            show(way.compute, "s"), show(way.result, "s"), show(way.moved, "B"),
            "–" if way.money is None else show(way.money, "$"),
        )
        for way in found
    ]  # fmt: skip
    table = terminal.tables().rows_table(heads, rows, right=range(2, 8), width=width, drop=1)
    return Group(Text(about, style="dim"), Text(text + "."), Text(), table)
