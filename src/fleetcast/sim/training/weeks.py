"""The whole of a scenario's job: its iterations, and what failures, checkpoints and slow machines add to them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from fleetcast.base.errors import SpecError
from fleetcast.base.show import show
from fleetcast.base.spec import build, describe
from fleetcast.cost.training.checkpoints import Checkpoint, checkpoint
from fleetcast.policy import recover
from fleetcast.scenario.fleet.failures import Outages, duration
from fleetcast.scenario.plan import one
from fleetcast.scenario.training_plan import TrainingPlan
from fleetcast.sim.training.run import Cause, LongJob, LongRun, long_run
from fleetcast.sim.training.setting import Setting
from fleetcast.sim.training.striking import Failure

STORE = 100e9
"""B/s of a shared store where the scenario names none."""
DETECT, RESTART = 600.0, 300.0
"""Seconds until a failure is known, and until all are up again, where the scenario does not say: of the order of
MegaScale's bounds (Jiang and others, NSDI 2024: known and diagnosed within 10 minutes, caught up within 15)."""


def policy_of(plan: TrainingPlan, family: ModuleType = recover) -> recover.Policy:
    """Returns the plan's recover policy; none where it names none.

    Raises:
        SpecError: an unknown kind, or a class that is no such policy.
    """
    asked = plan.recover if plan.recover is not None else "none"
    made: recover.Policy = build(family, asked, "plan.recover", methods=("recover",))
    return made


def weeks(
    state: Setting, plan: TrainingPlan, total: float, straggling: float, iterations: int
) -> tuple[dict[str, Any], list[str]]:  # fmt: skip
    """Returns what a job takes that may fail, as metrics, and what was taken as given.

    Nothing where no group has failures and the plan names no recover policy.

    Args:
        state: the scenario, resolved.
        plan: complete.
        total: s of an iteration.
        straggling: s of it that wait for slow machines.
        iterations: of the whole job.
    """
    failing = [g.outages for g in state.tree.groups if g.outages is not None]
    if not failing and plan.recover is None:
        return {}, []
    policy = policy_of(plan)
    job, notes = job_of(state, plan, total, straggling, iterations, failing)
    try:
        run = long_run(job, policy, seed=state.scenario.seed, striking=_striking(state, failing))
    except SpecError as error:
        kind = describe(policy)["kind"]
        lost = f"the job fails every {duration(job.between)} and takes {duration(iterations * total)} without failures"
        if plan.recover is None:
            return {}, [*notes, f'without checkpoints {lost}: it never ends; write e.g. plan.recover = "two_stage"']
        raise SpecError(
            "plan.recover", "writes checkpoints so seldom that the job never ends", value=kind, limit=lost,
            hint='Write e.g. recover = "two_stage"',
        ) from error  # fmt: skip
    view = recover.View(
        iteration=job.iteration, direct=job.checkpoint.direct, stall=job.checkpoint.stall, drain=job.checkpoint.drain,
        restart=job.detect + job.restart + job.checkpoint.read, mtbf=job.between,
        remaining=iterations * job.iteration,
    )  # fmt: skip
    said = policy.recover(view)
    every = "no checkpoint before the end" if math.isinf(said.interval) else (
        f"a checkpoint after each {duration(said.interval)} of work{', in two stages' if said.staged else ''}"
    )  # fmt: skip
    notes.append(f"recover {describe(policy)['kind']}: {every}")
    return metrics_of(run) | {"checkpoint_interval": said.interval if math.isfinite(said.interval) else None}, notes


def metrics_of(run: LongRun) -> dict[str, Any]:
    """Returns a run's metrics."""
    return {
        "effective": run.effective, "total_time": run.total, "failures": sum(run.failures.values()),
        "lost": run.terms["lost"], "restarts": run.restarts, "evicted": run.evicted, "spent": dict(run.terms),
    }  # fmt: skip


def job_of(
    state: Setting, plan: TrainingPlan, total: float, straggling: float, iterations: int, failing: list[Outages]
) -> tuple[LongJob, list[str]]:  # fmt: skip
    """Returns the job as the world of weeks sees it, and in sentences what the scenario does not say."""
    first, notes = next(iter(failing), None), []
    machines = max(1, -(-state.group.count // state.system.node))
    rate = sum(o.units / o.mtbf for o in failing if o.mtbf)
    listed = [o for o in failing if o.listed is not None]
    if listed:
        horizon = max(end for o in listed for rows in (o.listed or {}).values() for _, end in rows)
        rate += sum(len(rows) for o in listed for rows in (o.listed or {}).values()) / horizon
    detect = DETECT if first is None or first.detect is None else first.detect
    restart = RESTART if first is None or first.restart is None else first.restart
    spares = 0 if first is None else sum(o.spares or 0 for o in failing)
    write = checkpoint_of(state, plan)
    job = LongJob(
        iterations=iterations, iteration=max(total - straggling, 1e-9), machines=machines, checkpoint=write,
        mtbf=machines / rate if rate else math.inf, spares=spares, restart=restart, swap=restart, notice=detect,
        causes=(Cause("failure", 1.0, detect),), slow=state.system.practice.slow if straggling else 0.0,
        slower=state.system.practice.slower if straggling else 0.0,
    )  # fmt: skip
    where = "" if state.tree.store is not None else " (fleet.store is not given)"
    notes.append(
        f"checkpoints of {show(write.size, 'B')}: {show(write.stall, 's')} to the hosts' memory, "
        f"{show(write.drain, 's')} to a store of {show(state.tree.store or STORE, 'B/s')}{where}, "
        f"{show(write.read, 's')} to read"
    )
    if rate:
        notes.append(
            f"the job fails every {duration(1.0 / rate)} on average; a failure is known after {duration(detect)}, "
            f"all are up {duration(restart)} later, {spares} spare nodes"
        )
    return job, notes


def checkpoint_of(state: Setting, plan: TrainingPlan) -> Checkpoint:
    """Returns what a checkpoint of a complete plan takes."""
    copies = one(plan.data_parallel)
    split = max(1, state.group.count // copies)
    return checkpoint(
        state.network.params, store=state.tree.store or STORE, host_link=state.system.host_link,
        network=state.group.network.bandwidth, split=split, copies=copies, shared=bool(plan.zero),
    )  # fmt: skip


def _striking(state: Setting, failing: list[Outages]) -> Iterator[Failure]:
    """Yields the fleet's failures in order of time, machines numbered through its groups."""
    streams, before = [], 0
    for group in state.tree.groups:
        outages = group.outages
        if outages is not None:
            for unit in range(outages.units):
                machine = before + unit * outages.unit // group.node
                streams.append(_of(outages, unit, machine, state.scenario.seed))
        before += group.nodes
    return heapq.merge(*streams)


def _of(outages: Outages, unit: int, machine: int, seed: int) -> Iterator[Failure]:
    for start, end in outages.times(unit, seed):
        yield Failure(start, machine, end - start)
