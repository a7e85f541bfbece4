"""The commands that hold forecasts against runs: compare and calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from fleetcast.view import terminal
from fleetcast.view.terminal import DEFAULTS, Common


def compare(forecast: Path, measured: Path, /, *, plot: Path | None = None, common: Common = DEFAULTS) -> int:
    """Say how far a forecast was off, and in which term: two outcome.json files, of simulate and of run.

    Parameters
    ----------
    plot:
        Write the busy time by term to this file, an SVG picture.
    """
    from fleetcast.view import compare as apart

    before, after = apart.read_outcome(forecast), apart.read_outcome(measured)
    found = apart.compare(before, after)
    told = apart.remarks(before, after, found)
    terms = apart.by_term(before, after)
    table = {"differences": [r.table() for r in found], "terms": [t.table() for t in terms], "remarks": told}
    written = []
    if plot is not None:
        from fleetcast.view.picture import write_terms

        written = [write_terms(plot, terms, before, after)]

    def view(_: int) -> Any:
        from fleetcast.view.measured import compare_view

        return compare_view(before, after, found, told)

    terminal.answer(common, table, view)
    if not common.json:
        terminal.say_written(terminal.screen(), written)
    return 0


def calibrate(
    runs: Annotated[list[Path], Parameter(name="RUN", help="Folders of fleetcast run FILE --out FOLDER.")], /, *,
    device: Path | None = None, engine: str = "", common: Common = DEFAULTS,
) -> int:  # fmt: skip
    """Refit a device profile's constants on measured runs; --out writes the profile, which scenarios name.

    Parameters
    ----------
    device:
        Profile to start from; default the device of the runs.
    engine:
        Whose host constants they are; default the engine of the runs.
    """
    from fleetcast.base.files import check_writable, write_atomic
    from fleetcast.view import calibrating

    if common.out is not None:
        check_writable(common.out)
    found = calibrating.refit(runs, device=device, engine=engine)
    written = [write_atomic(common.out, found.toml())] if common.out is not None else []
    if common.json:
        terminal.print_json(found.table())
    else:
        console = terminal.screen()
        console.print(calibrating.calibrated_view(found))
        terminal.say_written(console, written)
    return 0
