"""`fleetcast watch`: telemetry in, findings out: of training, and of cold starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from fleetcast.view import terminal
from fleetcast.view.terminal import DEFAULTS, Common


def app() -> App:
    """Returns the command and what it watches."""
    made = App(name="watch", help="Telemetry in, findings out: what a job's or a fleet's logs say.")
    made.command(train)
    made.command(coldstart)
    return made


def train(
    record: Annotated[Path, Parameter(name="RECORD")], /, *, slower: float = 0.1, share: float = 0.005,
    sure: float = 0.25, common: Common = DEFAULTS,
) -> int:  # fmt: skip
    """Find the slow and the hanging ranks of a training job; with --out FOLDER, findings.json and heat.svg.

    Parameters
    ----------
    record:
        A .csv or .json file with a row per span: rank, duration_s, and host, stage, what, start_s where known.
    slower:
        The least slowness that is worth finding, as a share.
    share:
        Of machines that are slow, before anything is seen.
    sure:
        The least probability of a straggler that is reported.
    """
    from fleetcast.base.files import write_atomic
    from fleetcast.view.outputs import to_json
    from fleetcast.view.picture import alone
    from fleetcast.view.watched import draw_heat, watch_train, watch_view

    found = watch_train(record, slower=slower, share=share, sure=sure)
    written = []
    if common.out is not None:
        written.append(write_atomic(common.out / "findings.json", to_json(found.table())))
        if found.heat.size:
            written.append(write_atomic(common.out / "heat.svg", alone(draw_heat(found))))
    if common.json:
        terminal.print_json(found.table())
    else:
        console = terminal.screen()
        console.print(watch_view(found, console.width))
        terminal.say_written(console, written)
    return 1 if found.findings else 0


def coldstart(
    record: Annotated[Path, Parameter(name="RECORD")], /, *, kinds: Path | None = None, requests: Path | None = None,
    sure: float = 0.9, common: Common = DEFAULTS,
) -> int:  # fmt: skip
    """Find where cold starts come from; with --out FOLDER, findings.json and parts.svg.

    Parameters
    ----------
    record:
        A .csv or .csv.gz file with a row per start, in the schema of "Serverless Cold Starts and Where to Find Them":
        time, funcName, userID, podID, podAllocationCost, deployCodeCost, deployDependencyCost, schedulingCost, and
        region and totalCost_cold_start where known; or "coldstarts", a packaged synthetic log.
    kinds:
        The table of runtimes and triggers by funcID.
    requests:
        The table of requests, for how long pods were of use: podID, time_worker, totalCost_worker.
    sure:
        The least probability of a dominant part that is reported.
    """
    from fleetcast.base.files import write_atomic
    from fleetcast.view.outputs import to_json
    from fleetcast.view.picture import alone
    from fleetcast.view.starts import draw_parts, starts_view, watch_starts

    found = watch_starts(record, kinds=kinds, requests=requests, sure=sure)
    written = []
    if common.out is not None:
        written.append(write_atomic(common.out / "findings.json", to_json(found.table())))
        written.append(write_atomic(common.out / "parts.svg", alone(draw_parts(found))))
    if common.json:
        terminal.print_json(found.table())
    else:
        console = terminal.screen()
        console.print(starts_view(found, console.width))
        terminal.say_written(console, written)
    return 1 if found.findings else 0
