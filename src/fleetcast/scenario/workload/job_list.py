"""The jobs of a scenario: a trace or a generator, how fast jobs go, and what stopping them costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import Spec, build
from fleetcast.base.units import Quantity, parse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fleetcast.scenario.workload.jobs import Jobs

Time = Annotated[float, Quantity("s", high=1e9)]
Factor = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Neighbour(Spec):
    """Somebody who lives on the fleet beside the jobs and takes devices before they do: another scenario.

    Attributes:
        scenario: path of its file, or a packaged example: of requests ("serving") or of functions.
        on: the fleet's group whose devices it takes.
        day: factors on a service's traffic over a day, at equal steps; its mean is the scenario's own.
        target: share of the most that a service's replica can serve for which replicas are planned.
    """

    scenario: str
    on: str
    day: tuple[Annotated[float, msgspec.Meta(ge=0, le=100)], ...] = (1.0,)
    target: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.7


class JobList(Spec):
    """Many jobs over time.

    Attributes:
        trace: path of a trace (.csv, .trace, also .gz), or a generator's table, such as
            ``{ kind = "synthetic", jobs = 200 }``.
        kind: "jobs".
        format: of the trace, where its columns do not say it: "philly", "easyscale", "sia", "alibaba", "plain" or
            "gavel".
        limit: how many jobs, the first ones.
        window: [from, to], s of the trace: jobs that arrive within; the first moment becomes 0.
        speed_up: how many times as fast jobs arrive.
        speeds: how fast jobs go on which devices: ``{ kind = "linear", factors = { a100 = 2 } }`` (the null),
            ``{ kind = "gavel" }``, ``{ kind = "profiles", path = "..." }``, ``{ kind = "virtual" }``; left out, linear.
        restart: what a job that was stopped or moved takes before it goes on.
        checkpoint: s of running between checkpoints; left out, a failure takes a job back to its last start.
        apart: factor on the speed of a gang that lies on more nodes than it must.
        racks: factor on the speed of a gang in several groups of the fleet.
        interference: factor on the speed of a job beside another on a node; or by model and the other's, "" = any.
        error: by how much policies misjudge speeds: each job's uniform within this share.
        slack: what each job can spare: a time, or a multiple of its own duration; it should have ended by its arrival,
            its duration and that. Left out, deadlines are the trace's, if it has any.
        grids: carbon intensity by group of the fleet, as a fleet's ``grid``; each group named is a kind of its own.
        forecast_error: standard deviation of the factors by which forecasts of carbon are off.
        neighbours: services and functions that share the fleet, and its breaker, with the jobs.
    """

    trace: str | dict[str, Any]
    kind: str = "jobs"
    format: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    window: tuple[Time, Time] | None = None
    speed_up: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1.0
    speeds: str | dict[str, Any] = "linear"
    restart: Time = 0.0
    checkpoint: Time | None = None
    apart: Factor = 1.0
    racks: Factor = 1.0
    interference: Factor | dict[str, dict[str, Factor]] = 1.0
    error: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    slack: str | Annotated[float, msgspec.Meta(ge=0, le=1e6)] | None = None
    grids: dict[str, str | float] = msgspec.field(default_factory=dict)
    forecast_error: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.0
    neighbours: tuple[Neighbour, ...] = ()

    @property
    def beside(self) -> dict[str, dict[str, float]]:
        """Factors by model and the other's."""
        if isinstance(self.interference, dict):
            return self.interference
        return {} if self.interference == 1.0 else {"": {"": self.interference}}

    def read(self, seed: int = 0, folder: str | Path = ".") -> Jobs:
        """Returns the jobs.

        Args:
            seed: of a generator.
            folder: where a relative path starts.

        Raises:
            SpecError: no such file or generator, or anything in it that cannot be.
        """
        from fleetcast.scenario.workload import job_traces
        from fleetcast.scenario.workload.job_traces import generators

        generated = {getattr(generators, name).kind for name in generators.__all__}
        if isinstance(self.trace, str) and self.trace not in generated:
            jobs = job_traces.read(Path(folder) / self.trace, self.format)
        else:
            jobs = build(generators, self.trace, "workload.trace").jobs(seed)
        if self.window is not None:
            start, end = self.window
            if end <= start:
                raise SpecError("workload.window", "ends before it begins", value=list(self.window), limit="[from, to]")
            jobs = jobs.rows((jobs.arrival >= start) & (jobs.arrival < end))
            jobs = _moved(jobs, jobs.arrival - start)
            if not len(jobs):
                raise SpecError("workload.window", "holds no jobs", value=list(self.window), hint="Widen it")
        if self.limit is not None:
            jobs = jobs.rows(slice(0, self.limit))
        if self.speed_up != 1.0:
            jobs = _moved(jobs, jobs.arrival / self.speed_up)
        return jobs if self.slack is None else replace(jobs, deadline=_deadlines(jobs, self.slack))


def _deadlines(jobs: Jobs, slack: str | float) -> NDArray[np.float64]:
    """Returns when each job should have ended: after its arrival, its duration and what it can spare."""
    if not (jobs.seconds > 0).all():
        raise SpecError("workload.slack", "needs durations, and the trace counts work in units", value=slack,
                        hint="Write deadlines into the trace")  # fmt: skip
    spare = parse(slack, "s", "workload.slack") if isinstance(slack, str) else slack * jobs.seconds
    if isinstance(slack, str) and not 0 <= float(spare) <= 1e9:
        raise SpecError("workload.slack", "is out of range", value=slack, limit="0 to 1,000,000,000 s")
    found: NDArray[np.float64] = jobs.arrival + jobs.seconds + spare
    return found


def _moved(jobs: Jobs, arrival: NDArray[np.float64]) -> Jobs:
    """Returns jobs that arrive at other times; deadlines move along."""
    late = None if jobs.deadline is None else jobs.deadline + (arrival - jobs.arrival)
    return replace(jobs, arrival=arrival, deadline=late)
