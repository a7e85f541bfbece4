"""What `fleetcast plan` and `fleetcast simulate` print and write of functions."""

from __future__ import annotations

from fleetcast.scenario.functions_plan import read_functions_plan
from fleetcast.view.played import Played

_FUNCTIONS = Played(
    "functions", "playing invocations", "fleetcast.view.functions.screens", read_functions_plan,
    files=("invocations", "durations", "memories", "start", "grid", "solar"),
)  # fmt: skip
simulate, plan = _FUNCTIONS.simulate, _FUNCTIONS.plan
