"""What jobs with parameter servers under one share policy come to, as an Outcome."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.base.spec import build, describe
from fleetcast.kernels.slots import Slots
from fleetcast.policy import share
from fleetcast.policy.share import Dl2
from fleetcast.policy.share.dl2 import SHIPPED
from fleetcast.scenario.kinds.server_jobs import ServerJobsScenario
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.workload.server_jobs import ServerJobs
from fleetcast.sim.cluster.slot_board import deal
from fleetcast.sim.cluster.slots import RULES, Errors, begin, nodes_of

LIMIT = 100_000
"""Slots after which jobs that are left are said to starve."""


@dataclass(frozen=True)
class Setting:
    """A scenario of jobs with parameter servers, resolved.

    Attributes:
        scenario: as read.
        jobs: the list.
        nodes: i4[N, 2].
        errors: what goes otherwise than estimated.
        notes: what was taken as given, in sentences.
    """

    scenario: ServerJobsScenario
    jobs: ServerJobs
    nodes: Any
    errors: Errors
    notes: tuple[str, ...]

    def share(self, choice: Any) -> share.Policy:
        """Returns a share policy by name, table or object; weights of a file beside the scenario.

        Raises:
            SpecError: unknown policy or parameter.
        """
        made: share.Policy = build(share, choice, "plan.share", methods=("share",))
        if type(made).__module__.startswith("fleetcast.") and made.kind not in (*RULES, "dl2"):
            raise SpecError("plan.share.kind", "deals no slots with servers", value=made.kind,
                            limit=", ".join((*RULES, "dl2")), hint="Or name your own: module:Class")  # fmt: skip
        if isinstance(made, Dl2):
            if made.weights:
                made = Dl2(weights=str(Path(self.scenario.folder) / made.weights), guard=made.guard)
            if made.guard and made.guard not in RULES:
                raise SpecError(
                    "plan.share.guard", "is no policy to fall back to", value=made.guard, limit=", ".join(RULES)
                )
        return made

    def begin(self, discount: float = 0.0, window: int = 20) -> Slots:
        """Returns a run at its first slot."""
        seed = self.scenario.seed
        return begin(self.jobs, self.nodes, errors=self.errors, seed=seed, discount=discount, window=window)


def setting(scenario: ServerJobsScenario) -> Setting:
    """Returns a scenario with its files read.

    Raises:
        SpecError: a file says what cannot be.
        Infeasible: one worker and one server of a job fit on no node.
    """
    said, jobs = scenario.workload, scenario.jobs()
    takes = jobs.kinds.takes[jobs.kind]
    for column, name, have in ((0, "cpu", said.cpu), (1, "gpu", said.gpu)):
        need = takes[:, column] + takes[:, column + 2]
        if need.max() > have:
            first = int(need.argmax())
            raise Infeasible(
                f"job {first} ({jobs.kinds.models[jobs.kind[first]]}): a worker beside a server",
                need=float(need.max()), have=float(have), unit=f"slots of {name} a node",
                hint=f"Give nodes more: workload.{name}",
            )  # fmt: skip
    notes = [f"the list: {len(jobs):,} jobs, {jobs.source}", f"speeds: {jobs.kinds.source}"]
    errors = Errors(speed=said.error.speed, epochs=said.error.epochs, looks=said.error.looks)
    return Setting(scenario, jobs, nodes_of(said.nodes, said.cpu, said.gpu), errors, tuple(notes))


@dataclass
class Played:
    """A run of slots.

    Attributes:
        run: at its end.
        slots: how many passed with jobs there.
        cpu, gpu: sums of the shares used.
        waited: i8[n], slots in which each job had no worker or no server.
        fired: slots that the guard dealt.
    """

    run: Slots
    slots: int
    cpu: float
    gpu: float
    waited: Any
    fired: int


def play(run: Slots, jobs: ServerJobs, nodes: Any, policy: share.Policy) -> Played:
    """Plays a run to its end by any share policy, slot by slot.

    Raises:
        Infeasible: jobs are left that get nothing.
    """
    plain, guard = type(policy).__module__.startswith("fleetcast."), getattr(policy, "guard", "")
    code = RULES.get(policy.kind) if plain else None
    played = Played(run, 0, 0.0, 0.0, np.zeros(len(jobs), np.int64), 0)
    while not run.over():
        run.begin()
        there = run.there()
        if len(there):
            if code is None:
                deal(run, jobs, nodes, policy)
            else:
                run.deal(code)
            if guard:
                played.fired += _guarded(run, RULES[guard])
            _, _, workers, servers = run.columns()
            played.waited[there] += (workers[there] == 0) | (servers[there] == 0)
            cpu, gpu = run.used()
            played.slots, played.cpu, played.gpu = played.slots + 1, played.cpu + cpu, played.gpu + gpu
        if run.now() > LIMIT:
            raise Infeasible(f"job {there[0]} gets nothing under '{policy.kind}', or trains nothing:", need=1.0,
                             have=0.0, unit="epochs a slot", hint="Try another share policy")  # fmt: skip
        run.finish()
    return played


def _guarded(run: Slots, code: int) -> bool:
    """Deals a dealt slot anew by a rule if that is worth more; returns whether it was."""
    worth, units = run.worth(), run.decisions()
    run.begin()
    run.deal(code)
    if run.worth() > worth:
        return True
    run.begin()
    for job, workers, servers in units.tolist():
        run.place(job, workers, servers)
    return False


def simulate(state: Setting, choice: Any = None) -> Outcome:
    """Returns what happens when a policy deals the slots out.

    Args:
        state: the scenario, resolved.
        choice: name, table or object; None = the plan's first, or "fifo".

    Raises:
        SpecError: an unknown policy, or weights that do not know a model.
        PolicyError: one that decides what cannot be.
        Infeasible: jobs that never end.
    """
    plan, jobs = state.scenario.plan, state.jobs
    policy = state.share(choice if choice is not None else plan.shares[0] if plan.shares else "fifo")
    guard = bool(getattr(policy, "guard", ""))
    played = play(state.begin(discount=0.99 if guard else 0.0), jobs, state.nodes, policy)
    second, end = jobs.seconds, played.run.columns()[1]
    jct = (end - jobs.arrival) * second
    provenance: dict[str, Any] = {"seed": state.scenario.seed}
    if isinstance(policy, Dl2):
        path = Path(policy.weights) if policy.weights else SHIPPED
        provenance["weights"] = hashlib.sha256(path.read_bytes()).hexdigest()
    metrics: dict[str, Any] = {
        "jct": _summary(jct), "makespan": float(end.max() - jobs.arrival[0]) * second,
        "waits": _summary(played.waited * second), "utilisation": played.gpu / max(1, played.slots),
        "jobs": len(jobs), "finished": int(np.isfinite(end).sum()), "decisions": played.slots,
    }  # fmt: skip
    if guard:
        metrics["fallbacks"] = played.fired
    said = describe(policy)
    named = choice if choice is not None else plan.shares[0] if plan.shares else ""
    if isinstance(policy, Dl2) and isinstance(named, dict):
        said["weights"] = named.get("weights", "")
    rows = (
        {"name": "cpu", "slots": int(state.nodes[:, 0].sum()), "busy": played.cpu / max(1, played.slots)},
        {"name": "gpu", "slots": int(state.nodes[:, 1].sum()), "busy": played.gpu / max(1, played.slots)},
    )  # fmt: skip
    return Outcome(
        source="simulated", metrics=metrics, intervals={}, slo={"met": True, "checks": []}, plan={"share": said},
        breakdown={}, resources=rows, notes=state.notes, provenance=provenance, record=None,
    )  # fmt: skip


def _summary(values: Any) -> dict[str, float]:
    return {
        "mean": float(values.mean()), "p50": float(np.percentile(values, 50)), "p99": float(np.percentile(values, 99)),
    }  # fmt: skip
