"""What `fleetcast plan`, `fleetcast simulate` and `fleetcast run` print and write of pods on nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleetcast.base.errors import SpecError
from fleetcast.base.files import write_atomic
from fleetcast.scenario.load import PodsScenario
from fleetcast.scenario.pods_plan import read_pods_plan
from fleetcast.view import outputs, terminal, verbs
from fleetcast.view.played import Played
from fleetcast.view.terminal import Common

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fleetcast.view.scheduling import Cluster

_PODS = Played("pods", "placing pods", "fleetcast.view.pods.screens", read_pods_plan, files=("pods", "nodes"))
simulate, plan = _PODS.simulate, _PODS.plan


def schedule(scenario: PodsScenario, common: Common, cluster: Cluster) -> int:
    """Prints what the plan's policy did on a cluster; returns 0, or 1 where pods still wait.

    Raises:
        SpecError: no cluster is asked for.
    """
    if cluster.on is None:
        raise SpecError(
            "--on", "is missing", limit="kubernetes", hint="Say --on kubernetes, or to try it: --on kubernetes --double"
        )
    outcome = verbs.run(scenario, cluster=cluster)
    written = [write_atomic(common.out / "outcome.json", outputs.to_json(outcome.table()))] if common.out else []

    def view(width: int) -> RenderableType:
        from fleetcast.view.scheduling import scheduled_view

        return scheduled_view(outcome, width)

    terminal.show(common, outcome.table(), view, written)
    return 1 if outcome.metrics["unplaced"] else 0
