"""What `fleetcast plan` and `fleetcast simulate` print and write of many jobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fleetcast.base.files import write_atomic
from fleetcast.scenario.jobs_plan import read_jobs_plan
from fleetcast.view.played import Played

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome


def _fleet(folder: Path, outcome: Outcome) -> list[Path]:
    """Writes fleet.svg, devices at work over time."""
    from fleetcast.view.jobs.figures import draw, fleet_info
    from fleetcast.view.picture import alone

    if outcome.record is None or not len(outcome.record):
        return []
    return [write_atomic(folder / "fleet.svg", alone(draw([fleet_info(outcome, "")])))]


_JOBS = Played(
    "jobs", "playing jobs", "fleetcast.view.jobs.screens", read_jobs_plan, files=("trace", "path", "grids", "scenario"),
    recorded=True, numbered=True, more=_fleet,
)  # fmt: skip
simulate, plan = _JOBS.simulate, _JOBS.plan
