"""Jobs of workers and parameter servers in slots of time, and what is already decided of how they share the nodes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import Spec, convert
from fleetcast.base.units import Quantity
from fleetcast.scenario.jobs_plan import JobsPlan, read_jobs_plan
from fleetcast.scenario.kinds.scenario import Parts, Scenario

if TYPE_CHECKING:
    from fleetcast.scenario.workload.server_jobs import Kinds, ServerJobs

GOALS = {"jct": "jct.mean", "jct_p50": "jct.p50", "jct_p99": "jct.p99", "makespan": "makespan", "wait": "waits.mean"}
"""What a plan of such jobs may minimise; the mean completion time unless said otherwise."""
RAISED = {"utilisation": "utilisation"}
"""What it may maximise."""
Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]


class DrawnJobs(Spec):
    """A synthetic list: models drawn evenly, ``most`` jobs a slot or, 10 times in 28, one fewer.

    Attributes:
        kind: "synthetic".
        jobs: in all.
        most: that come at one slot.
    """

    kind: str = "synthetic"
    jobs: Count = 60
    most: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 3


class Estimates(Spec):
    """What goes otherwise than estimated, as shares of the estimate; 0 = nothing.

    Attributes:
        speed: what a job trains in a slot, and every speed that Optimus weighs, up to that much less or more.
        epochs: how many epochs a job really takes, up to that much less or more.
        looks: speeds by which Optimus weighs a worker more, that much less or more besides.
    """

    speed: Share = 0.0
    epochs: Share = 0.0
    looks: Share = 0.0


class ServerJobList(Spec):
    """Jobs with parameter servers, and the nodes that they run on.

    Attributes:
        servers: path of a list of jobs (.csv: slot, model and, if not the model's own, epochs), or a generator's table,
            such as ``{ jobs = 60 }``.
        kind: "jobs".
        nodes: how many.
        cpu: slots of cpu that a node has.
        gpu: slots of gpu that a node has; DL2 counts four for a GPU.
        slot: time from one dealing to the next.
        speeds: path of measured speeds (.csv: model, servers, workers, steps_per_s); left out, our fit of DL2's.
        error: what goes otherwise than estimated.
    """

    servers: str | DrawnJobs
    kind: str = "jobs"
    nodes: Count = 96
    cpu: Count = 8
    gpu: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 8
    slot: Annotated[float, Quantity("s", low=1.0, high=1e7)] = 1200.0
    speeds: str = ""
    error: Estimates = Estimates()


class ServerJobsScenario(Scenario, kw_only=True):
    """Jobs with parameter servers, and what is already decided of who gets how much.

    Attributes:
        workload: jobs and nodes.
        plan: what is already decided; a list means: search these.
    """

    workload: ServerJobList
    plan: JobsPlan = JobsPlan()

    kind: ClassVar[str] = "jobs"
    about: ClassVar[str] = "jobs with parameter servers"
    parts: ClassVar[tuple[str, ...]] = ("fleet", "workload", "objective", "plan")

    def with_plan(self, plan: JobsPlan) -> ServerJobsScenario:
        """Returns the scenario with another plan."""
        return msgspec.structs.replace(self, plan=plan)

    def kinds(self) -> Kinds:
        """Returns the models, with the scenario's speeds.

        Raises:
            SpecError: no such file, or a row that cannot be.
        """
        from fleetcast.scenario.workload.server_job_lists import read_speeds
        from fleetcast.scenario.workload.server_jobs import dl2

        known, path = dl2(), self.workload.speeds
        return known if not path else read_speeds(Path(self.folder) / path, known, path)

    def jobs(self, number: int | None = None) -> ServerJobs:
        """Returns the list of jobs; of a generator the one of a number, None = the scenario's seed.

        Raises:
            SpecError: no such file, or a row that cannot be.
        """
        from dataclasses import replace

        from fleetcast.scenario.workload.server_job_lists import read_jobs
        from fleetcast.scenario.workload.server_jobs import synthetic

        said, kinds = self.workload.servers, self.kinds()
        if isinstance(said, str):
            found = read_jobs(Path(self.folder) / said, kinds, said)
        else:
            seed = self.seed if number is None else number
            found = synthetic(seed, kinds=kinds, jobs=said.jobs, most=said.most)
        return replace(found, seconds=self.workload.slot)


def read(parts: Parts) -> ServerJobsScenario:
    """Returns the scenario of a file's parts.

    Raises:
        SpecError: unknown key, wrong unit, out of range, contradictory.
    """
    parts.refuse_slo("a list of jobs", '[objective] minimize = "jct"')
    workload, plan = convert(parts.workload, ServerJobList, "workload"), read_jobs_plan(parts.plan)
    for name, said in (("place", plan.places), ("round", plan.round)):
        if said:
            raise SpecError(f"plan.{name}", "is not decided here: units go to the emptiest node, slot by slot",
                            value=said, hint="Leave it out; workload.slot says how long a slot is")  # fmt: skip
    parts.objective.goals(GOALS, RAISED)
    return ServerJobsScenario(workload=workload, plan=plan, **parts.shared)
