"""What `fleetcast plan`, `fleetcast simulate` and `fleetcast run` print and write of a stream."""

from __future__ import annotations

from fleetcast.scenario.load import StreamScenario
from fleetcast.scenario.stream_plan import read_stream_plan
from fleetcast.view import verbs
from fleetcast.view.played import Played
from fleetcast.view.terminal import Common

_STREAM = Played(
    "streams", "simulating the stream", "fleetcast.view.stream.screens", lambda table: read_stream_plan(dict(table)),
    files=("system", "file"),
)  # fmt: skip
simulate, plan = _STREAM.simulate, _STREAM.plan


def run(scenario: StreamScenario, common: Common) -> int:
    """Runs the pipeline as processes here, and prints what was measured; returns 0."""
    return _STREAM.show(scenario, verbs.run(scenario), common)
