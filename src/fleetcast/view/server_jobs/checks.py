"""What is wrong or doubtful about a scenario of jobs with parameter servers."""

from __future__ import annotations

from collections.abc import Iterator

from fleetcast.base.errors import FleetcastError
from fleetcast.policy.share import Dl2
from fleetcast.scenario.load import ServerJobsScenario
from fleetcast.sim.cluster.slots_outcome import Setting, setting
from fleetcast.view.checking import checked, unknown
from fleetcast.view.checks import Remark


def remarks(scenario: ServerJobsScenario) -> list[Remark]:
    """Returns what is found, errors first."""
    return checked(lambda: setting(scenario), (check_plan, check_learned), "workload.servers")


def check_plan(state: Setting) -> Iterator[Remark]:
    """Every policy of the plan is known."""
    return unknown(state.scenario.plan.shares, state.share, "plan.share")


def check_learned(state: Setting) -> Iterator[Remark]:
    """Learned weights know the models of the jobs, and slots like theirs."""
    for choice in state.scenario.plan.shares:
        try:
            policy = state.share(choice)
        except FleetcastError:  # check_plan has said so
            continue
        if not isinstance(policy, Dl2):
            continue
        missing = sorted(set(state.jobs.kinds.models) - set(policy.network["models"]))
        if missing:
            yield Remark("error", "plan.share.weights", f"do not know {', '.join(missing)}", "fleetcast learn")
        elif not policy.weights and state.jobs.seconds != 1200.0:
            yield Remark("warning", "plan.share.weights", "the shipped ones were trained on slots of 20 minutes",
                         "fleetcast learn trains on slots like yours")  # fmt: skip
