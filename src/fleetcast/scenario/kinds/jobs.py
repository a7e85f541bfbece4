"""Many jobs on one fleet, and what is already decided of who gets how much of it."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import convert
from fleetcast.scenario.jobs_plan import JobsPlan, read_jobs_plan
from fleetcast.scenario.kinds.pods import PodsScenario
from fleetcast.scenario.kinds.pods import read as read_pods
from fleetcast.scenario.kinds.scenario import Parts, Scenario
from fleetcast.scenario.kinds.server_jobs import ServerJobsScenario
from fleetcast.scenario.kinds.server_jobs import read as read_server_jobs
from fleetcast.scenario.workload.job_list import JobList

GOALS = {
    "jct": "jct.mean", "jct_p50": "jct.p50", "jct_p99": "jct.p99", "makespan": "makespan", "wait": "waits.mean",
    "energy": "energy", "carbon": "carbon", "work_carbon": "work_carbon",
    "cost": "cost",
}  # fmt: skip
"""What a plan of many jobs may minimise; the mean completion time unless said otherwise."""
RAISED = {"utilisation": "utilisation"}
"""What it may maximise."""


class JobsScenario(Scenario, kw_only=True):
    """Many jobs over time, and what is already decided of how they share the fleet.

    Attributes:
        workload: the jobs and how fast they go.
        plan: what is already decided; a list means: search these.
    """

    workload: JobList
    plan: JobsPlan = JobsPlan()

    kind: ClassVar[str] = "jobs"
    about: ClassVar[str] = "many jobs"
    parts: ClassVar[tuple[str, ...]] = ("fleet", "workload", "objective", "plan")

    def with_plan(self, plan: JobsPlan) -> JobsScenario:
        """Returns the scenario with another plan."""
        return msgspec.structs.replace(self, plan=plan)


def read(parts: Parts) -> JobsScenario | PodsScenario | ServerJobsScenario:
    """Returns the scenario of a file's parts: of pods or jobs with servers where it has any, else of jobs.

    Raises:
        SpecError: unknown key, wrong unit, out of range, contradictory.
    """
    if "pods" in parts.workload:
        return read_pods(parts)
    if "servers" in parts.workload:
        return read_server_jobs(parts)
    parts.refuse_slo("a list of jobs", '[objective] minimize = "jct"')
    if "trace" not in parts.workload and set(parts.workload) <= set(JobList.__struct_fields__):
        raise SpecError(
            "workload.trace", "is missing", limit="a trace or a generator",
            hint='Write e.g. trace = "philly.csv" or trace = { kind = "synthetic", jobs = 200 }',
        )  # fmt: skip
    workload = convert(parts.workload, JobList, "workload")
    parts.objective.goals(GOALS, RAISED)
    return JobsScenario(workload=workload, plan=read_jobs_plan(parts.plan), **parts.shared)
