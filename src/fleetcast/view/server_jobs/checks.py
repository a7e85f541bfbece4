"""What is wrong or doubtful about a scenario of jobs with parameter servers."""

from __future__ import annotations

from fleetcast.base.errors import FleetcastError
from fleetcast.policy.share import Dl2
from fleetcast.scenario.load import ServerJobsScenario
from fleetcast.sim.cluster.slots_outcome import Setting, setting
from fleetcast.view.checks import Remark


def remarks(scenario: ServerJobsScenario) -> list[Remark]:
    """Returns what is found, errors first."""
    try:
        state = setting(scenario)
    except FleetcastError as error:
        return [Remark("error", getattr(error, "path", "workload.servers"), str(error))]
    found = []
    for choice in scenario.plan.shares:
        try:
            policy = state.share(choice)
            if isinstance(policy, Dl2):
                found += _known(state, policy)
        except FleetcastError as error:
            found.append(Remark("error", getattr(error, "path", "plan.share"), str(error)))
    return sorted(found, key=lambda r: r.level != "error")


def _known(state: Setting, policy: Dl2) -> list[Remark]:
    missing = sorted(set(state.jobs.kinds.models) - set(policy.network["models"]))
    if missing:
        return [Remark("error", "plan.share.weights", f"do not know {', '.join(missing)}", "fleetcast learn")]
    if not policy.weights and state.jobs.seconds != 1200.0:
        return [Remark("warning", "plan.share.weights", "the shipped ones were trained on slots of 20 minutes",
                       "fleetcast learn trains on slots like yours")]  # fmt: skip
    return []
