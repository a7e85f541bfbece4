"""The answer to "how many more servers fit under this breaker", as a table for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.view import words
from fleetcast.view.tables import rows_table

if TYPE_CHECKING:
    from fleetcast.scenario.load import ServingScenario
    from fleetcast.search.power import Held
    from fleetcast.search.servers import Room

HEADS = ("Policy", "Servers", "Added", "Peak", "Low p99", "High p99", "Low mean", "High mean", "Thresholds")
"""The last column goes first where the terminal is narrow."""


def room_view(scenario: ServingScenario, room: Room, width: int) -> RenderableType:
    """Returns the servers each policy holds without a brake, and how much slower requests become."""
    best = max(room.held, key=lambda h: h.servers)
    if best.servers == 0:
        head = Text(f"No row fits under {show(room.budget, 'W')} without the brake.", style="bold red")
    else:
        head = Text.assemble(
            (f"{best.servers} servers", "bold"), f" of {room.devices} devices fit under {show(room.budget, 'W')} with ",
            (str(best.policy["kind"]), "bold"), f", {best.added:+d} ({best.added / room.servers:+.0%});"
            f" today's {room.servers} peak at {room.peak:.0%} of it.",
        )  # fmt: skip
    table = rows_table(HEADS, [_cells(h) for h in room.held], right=tuple(range(1, 8)), width=width, drop=3)
    told = "thresholds chosen on the first week, figures of the second" if room.chosen else "figures of the second week"
    said = [f"Low, High: time of a request over its time without caps, by priority; {told}"]
    if any(h.limited for h in room.held):
        said.append("longer rows than + 75 % were not tried")
    question = Text(words.question(scenario, goals=False), style="dim")
    given = Table.grid(padding=(0, 1, 0, 0))
    for line in (*said, *room.notes):
        given.add_row("  •", Text(line), style="dim")
    return Group(question, Text(), head, Text(), table, Text(), Text("Taken as given", style="dim"), given)


def _cells(held: Held) -> tuple[str, ...]:
    def slow(priority: str, statistic: str) -> str:
        found = held.slow.get(priority)
        return f"{found[statistic] - 1:+.1%}" if found else "–"

    settings = " ".join(f"{k} {v:g}" for k, v in held.policy.items() if k != "kind")
    count = f"≥ {held.servers}" if held.limited else str(held.servers)
    peak = f"{held.peak:.0%}" if held.servers else "–"
    return (
        str(held.policy["kind"]), count, f"{held.added / held.base:+.1%}", peak, slow("low", "p99"),
        slow("high", "p99"), slow("low", "mean"), slow("high", "mean"), settings or "–",
    )  # fmt: skip
