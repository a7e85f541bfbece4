"""`fleetcast measure migration`: a running process moved over a socket."""

from __future__ import annotations

from fleetcast.view import terminal
from fleetcast.view.terminal import DEFAULTS, Common


def migration(
    *, memory: str = "48 MiB", bandwidth: str = "96 MB/s", rate: float = 6000.0, hot: float = 0.4,
    stop: str = "256 KiB", common: Common = DEFAULTS,
) -> int:  # fmt: skip
    """Move a process that keeps writing its memory over a socket, and compare what that sends with the formula.

    Parameters
    ----------
    memory:
        Of the process.
    bandwidth:
        At which it is sent.
    rate:
        Pages of 4 KiB that it writes a second, drawn evenly among those that are hot.
    hot:
        Share of its memory that it writes, above 0, at most 1.
    stop:
        Once so little is left to send the process stops.
    """
    from fleetcast.base.files import check_writable, write_atomic
    from fleetcast.base.units import parse
    from fleetcast.view.migrated import migrated, migration_view
    from fleetcast.view.outputs import to_json

    if common.out is not None:
        check_writable(common.out)
    table = migrated(
        parse(memory, "B", "--memory"), parse(bandwidth, "B/s", "--bandwidth"), rate, hot, parse(stop, "B", "--stop"),
        seed=common.seed or 0,
    )  # fmt: skip
    written = [write_atomic(common.out, to_json(table))] if common.out is not None else []
    if common.json:
        terminal.print_json(table)
        return 0
    console = terminal.screen()
    console.print(migration_view(table))
    terminal.say_written(console, written)
    return 0
