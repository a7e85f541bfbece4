"""Shows a process that was moved while it wrote its memory: measured beside the formula."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from fleetcast.base.errors import SpecError
from fleetcast.base.show import show
from fleetcast.cost.migration import PAGE, Writes, geometric, migration
from fleetcast.view.tables import rows_table

_MOST = 2.0**32


def migrated(
    memory: float, bandwidth: float, rate: float, hot: float, stop: float, *, seed: int = 0
) -> dict[str, Any]:  # fmt: skip
    """Returns what was measured and what the formula says, see `fleetcast measure migration`.

    Raises:
        SpecError: out of range; names the option.
    """
    from fleetcast.runtime.measure.migration import move

    for name, value, low, high, unit in (
        ("--memory", memory, PAGE, _MOST, "B"), ("--bandwidth", bandwidth, 1e6, 1e11, "B/s"),
        ("--rate", rate, 0.0, 1e6, ""), ("--hot", hot, 1e-6, 1.0, ""), ("--stop", stop, 0.0, memory, "B"),
    ):  # fmt: skip
        if not low <= value <= high:
            raise SpecError(name, "is out of range", value=value, limit=f"{show(low, unit)} to {show(high, unit)}")
    pages = int(memory // PAGE)
    written = max(1, int(pages * hot))
    found = move(pages, rate, written, bandwidth, stop=int(stop // PAGE), seed=seed)
    writes = (Writes(rate, written),)
    said = migration(pages * PAGE, writes, bandwidth, stop=stop, overhead=found.overhead)
    return {
        "settings": {"memory": pages * PAGE, "bandwidth": bandwidth, "rate": rate, "hot": hot, "stop": stop},
        "measured": found.taken._asdict() | {"writes": found.writes, "overhead": found.overhead, "equal": found.equal},
        "forecast": said._asdict(),
        "error": said.sent / found.taken.sent - 1,
        "geometric": geometric(pages * PAGE, writes, bandwidth),
    }


def migration_view(table: Mapping[str, Any]) -> RenderableType:
    """Returns the report of `migrated`."""
    measured, said, asked = table["measured"], table["forecast"], table["settings"]
    rows = [
        ("sent", show(measured["sent"], "B"), show(said["sent"], "B"), f"{table['error']:+.1%}"),
        ("rounds", str(len(measured["rounds"])), str(len(said["rounds"])), ""),
        ("time", show(measured["seconds"], "s"), show(said["seconds"], "s"), ""),
        ("stopped", show(measured["downtime"], "s"), show(said["downtime"], "s"), ""),
    ]
    series = table["geometric"] / measured["sent"] - 1
    notes = (
        f"{show(measured['writes'], '/s')} writes of 4 KiB over {asked['hot']:.0%} of {show(asked['memory'], 'B')}",
        f"the geometric series, in which no page is written twice, is {series:+.0%} off",
        "the copy is what the process had when it stopped" if measured["equal"] else "THE COPY DIFFERS",
    )
    return Group(
        Text("A process moved while it writes its memory", style="bold"), Text(),
        rows_table(("", "Measured", "Forecast", ""), rows, right=(1, 2, 3)), Text(),
        *(Text(note, style="dim") for note in notes),
    )  # fmt: skip
