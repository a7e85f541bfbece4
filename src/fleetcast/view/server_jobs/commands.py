"""What `fleetcast plan` and `fleetcast simulate` print and write of jobs with parameter servers."""

from __future__ import annotations

from fleetcast.scenario.jobs_plan import read_jobs_plan
from fleetcast.view.played import Played

_JOBS = Played(
    "jobs", "playing jobs", "fleetcast.view.server_jobs.screens", read_jobs_plan,
    files=("servers", "speeds", "weights"),
)  # fmt: skip
simulate, plan = _JOBS.simulate, _JOBS.plan
