"""Jobs of workers and parameter servers in slots of time, and what is already decided of how they share the nodes."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.files import read_text
from fleetcast.base.spec import Spec, convert
from fleetcast.base.units import Quantity
from fleetcast.scenario.jobs_plan import JobsPlan, read_jobs_plan
from fleetcast.scenario.kinds.scenario import Parts, Scenario
from fleetcast.scenario.workload.server_jobs import Kinds, ServerJobs, dl2, synthetic

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
        known, path = dl2(), self.workload.speeds
        return known if not path else read_speeds(Path(self.folder) / path, known, path)

    def jobs(self, number: int | None = None) -> ServerJobs:
        """Returns the list of jobs; of a generator the one of a number, None = the scenario's seed.

        Raises:
            SpecError: no such file, or a row that cannot be.
        """
        said, kinds = self.workload.servers, self.kinds()
        if isinstance(said, str):
            found = read_jobs(Path(self.folder) / said, kinds, said)
        else:
            seed = self.seed if number is None else number
            found = synthetic(seed, kinds=kinds, jobs=said.jobs, most=said.most)
        return replace(found, seconds=self.workload.slot)


def read_speeds(path: Path, kinds: Kinds, called: str) -> Kinds:
    """Returns kinds with the speeds of a table; what it leaves out keeps its fitted speed.

    Raises:
        SpecError: no such file, an unknown model, or no number.
    """
    speed = kinds.speed.copy()
    for i, row in enumerate(_rows(path, ("model", "servers", "workers", "steps_per_s"))):
        at = f"{called}, row {i + 1}"
        if row["model"] not in kinds.models:
            raise SpecError(at, "names an unknown model", value=row["model"], limit=", ".join(kinds.models),
                            hint=closest(row["model"], kinds.models))  # fmt: skip
        servers, workers = _number(row, "servers", at), _number(row, "workers", at)
        if min(servers, workers) < 1:
            raise SpecError(
                at, "needs a server and a worker", value=dict(row), limit="1 and 1", hint="Leave the row out"
            )
        if max(servers, workers) <= kinds.most + 1:
            speed[kinds.models.index(row["model"]), int(servers), int(workers)] = _number(row, "steps_per_s", at)
    return replace(kinds, speed=speed, source=called)


def read_jobs(path: Path, kinds: Kinds, called: str) -> ServerJobs:
    """Returns a list of jobs, by slot of arrival.

    Raises:
        SpecError: no such file, an unknown model, no number, or no jobs.
    """
    found = []
    for i, row in enumerate(_rows(path, ("slot", "model"))):
        at = f"{called}, row {i + 1}"
        if row["model"] not in kinds.models:
            raise SpecError(at, "names an unknown model", value=row["model"], limit=", ".join(kinds.models),
                            hint=closest(row["model"], kinds.models))  # fmt: skip
        kind, slot = kinds.models.index(row["model"]), _number(row, "slot", at)
        epochs = _number(row, "epochs", at) if row.get("epochs") else float(kinds.epochs[kind])
        if slot < 0 or slot != int(slot) or epochs <= 0:
            raise SpecError(
                at, "arrives at no slot, or has no work", value=dict(row), limit="a slot from 0, epochs above 0"
            )
        found.append((int(slot), kind, epochs))
    if not found:
        raise SpecError("workload.servers", "holds no jobs", value=called, limit="at least one", hint="slot,model")
    found.sort(key=lambda row: row[0])
    slot_, kind_, epochs_ = zip(*found, strict=True)
    work = np.array(epochs_, float)
    return ServerJobs(kinds, np.array(slot_, np.int32), np.array(kind_, np.int32), work, work, source=called)


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    lines = [line for line in read_text(path).splitlines() if line.strip() and not line.startswith("#")]
    table = csv.DictReader(lines)
    missing = [name for name in columns if name not in (table.fieldnames or ())]
    if missing:
        raise SpecError(str(path), f"has no column '{missing[0]}'", value=list(table.fieldnames or ()),
                        limit=", ".join(columns), hint="The first line names the columns")  # fmt: skip
    return list(table)


def _number(row: dict[str, str], name: str, at: str) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = float("nan")
    if not abs(value) < 1e15:
        raise SpecError(f"{at}, {name}", "is no number", value=row[name], limit="a finite number")
    return value


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
