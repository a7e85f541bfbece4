"""The commands that set outcomes side by side: compare, calibrate, whatif."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from fleetcast.base.errors import SpecError
from fleetcast.scenario.load import TrainingScenario
from fleetcast.view import terminal
from fleetcast.view.terminal import DEFAULTS, Common, File


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


NOTHING: list[str] = []
"""No change named: the usual upgrades."""


def whatif(
    file: File, /, *,
    set: Annotated[
        list[str], Parameter(name="--set", negative=(), help="path=value, a key of the file; repeatable.")
    ] = NOTHING,
    how: Literal["auto", "plan", "simulate"] = "auto", common: Common = DEFAULTS,
) -> int:  # fmt: skip
    """Change keys of a scenario and say what that does, term by term: --set fleet.links.inter=100Gb/s.

    Without --set: which upgrade would pay, links twice as fast and newer devices.

    Parameters
    ----------
    how:
        "plan" searches the best plan on both sides, "simulate" keeps the plan, "auto" searches where it is open.
    """
    from fleetcast.view.whatif import whatif as ask

    with terminal.progress("variants", common) as step:
        found = ask(terminal.load(file, common), set, how=how, progress=step)

    def view(width: int) -> Any:
        from fleetcast.view.changes import whatif_view

        return whatif_view(found, width)

    terminal.answer(common, found.table(), view)
    return 0 if all(variant.fits for variant in found.after) else 1


def calibrate(
    runs: Annotated[list[Path], Parameter(name="RUN", help="Folders of run FILE --out FOLDER, or iterations.csv.")], /,
    *, device: Path | None = None, engine: str = "", scenario: str = "", common: Common = DEFAULTS,
) -> int:  # fmt: skip
    """Refit constants on measured runs; --out writes the profile, or the practice of training, which scenarios name.

    Parameters
    ----------
    scenario:
        Of measured iterations of training (.csv, .json): the scenario that says what their rows do not.
    device:
        Profile to start from; default the device of the runs.
    engine:
        Whose host constants they are; default the engine of the runs.
    """
    from fleetcast.base.files import check_writable, write_atomic
    from fleetcast.view import calibrating

    if scenario or any(run.suffix in (".csv", ".json") for run in runs):
        return _practice(runs, scenario, device, engine, common)
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


def _practice(runs: list[Path], file: str, device: Path | None, engine: str, common: Common) -> int:
    """Fits what training adds to kernels on measured iterations."""
    from fleetcast.base.files import check_writable, write_atomic
    from fleetcast.view.training import measurements

    if not file:
        raise SpecError(
            "--scenario", "is missing: rows of iterations do not say everything", limit="a training scenario",
            hint="Write e.g. --scenario training-plan, with the devices that were measured",
        )  # fmt: skip
    if device is not None or engine:
        raise SpecError(
            "--device" if device is not None else "--engine", "is for runs of requests", value=str(device or engine),
            hint="Leave it out: the scenario's fleet says on what iterations were measured",
        )  # fmt: skip
    scenario = terminal.load(file, common)
    if not isinstance(scenario, TrainingScenario):
        raise SpecError("--scenario", "serves requests", value=file, limit='workload.kind = "training"')
    if common.out is not None:
        check_writable(common.out)
    found = measurements.fitted(runs, scenario, seed=scenario.seed)
    written = [write_atomic(common.out, measurements.toml(found))] if common.out is not None else []
    if common.json:
        terminal.print_json(measurements.table(found))
    else:
        console = terminal.screen()
        console.print(measurements.fitted_view(found, common.out))
        terminal.say_written(console, written)
    return 0
