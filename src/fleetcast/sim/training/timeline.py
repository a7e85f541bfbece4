"""An iteration's pipeline as an event record: which stage works on which micro-batch when, for people to look at.

The passes are those of `orders`, run by `pipeline`; a micro-batch takes as long on a stage as the forecast says, shared
between forward and backward passes as their own terms are; the last stage has the head besides. What follows the
pipeline, gradients and optimizer, is one span of each stage. The bubble is counted here and a closed form there: what
is left between the two, a percent or a few, is evened out so that the record ends when the forecast does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.record import Record
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.plans import SCHEDULES, Plans
from fleetcast.cost.training.step import parts, settle
from fleetcast.cost.training.work import TERMS as LAYER_TERMS
from fleetcast.scenario.training_plan import TrainingPlan
from fleetcast.sim.training import orders, pipeline
from fleetcast.sim.training.completing import columns
from fleetcast.sim.training.setting import Setting
from fleetcast.sim.training.world import across

Array = NDArray[np.float64]
WHATS = ("forward", "backward", "weights", "forward and backward", "gradients and optimizer")
AFTER = ("data_comm", "weight_gather", "optimizer")
"""Terms that follow the last pass."""
MOST = 16_000
"""Passes of a record; of longer iterations there is none."""


def timeline(state: Setting, plan: TrainingPlan) -> Record | None:
    """Returns the record of a complete plan's iteration, None where there is one stage, or too much to look at.

    Args:
        state: the scenario, resolved.
        plan: complete.
    """
    rows = columns(plan)
    if len(state.tree.groups) > 1:
        return _over_groups(state, plan, rows)
    stages, micro = int(rows.pipeline[0]), int(rows.micro_batches(state.workload.batch)[0])
    if stages == 1:
        return None
    pieces = int(rows.interleave[0])
    if stages * micro * pieces > MOST:
        return None
    spent = _seconds(state, state.job(str(plan.dtype)), rows, micro)
    made = {
        "gpipe": lambda: orders.gpipe(stages, micro), "1f1b": lambda: orders.one_forward_one_backward(stages, micro),
        "interleaved": lambda: orders.interleaved(stages, micro, pieces),
        "zero-bubble": lambda: orders.zero_bubble(stages, micro), "dualpipe": lambda: orders.dual(stages, micro),
    }[SCHEDULES[rows.schedule[0]]]()  # fmt: skip
    inner, outer = (
        pipeline.Stage(
            each * spent.forward / pieces, each * (1.0 - spent.forward) / pieces, each * spent.weights / pieces
        )
        for each in (spent.inner, spent.last)
    )
    happened = pipeline.run(made, [inner] * (stages - 1) + [outer])
    events = happened.events
    last = [max((e.end for e in events if e.stage == i), default=0.0) for i in range(stages)]
    kinds = [_kind(e.passes) for e in events] + [4] * stages
    even = spent.total / (happened.time + spent.tail)
    return Record(
        time=even * np.array([e.start for e in events] + last),
        duration=even * np.array([e.end - e.start for e in events] + [happened.time + spent.tail - t for t in last]),
        resource=np.array([e.stage for e in events] + list(range(stages)), dtype=np.int32),
        what=np.array(kinds, dtype=np.int32), count=np.ones(len(kinds), dtype=np.int64),
        items=np.array([e.passes[0].micro for e in events] + [0] * stages, dtype=np.int64),
        level=_levels(events, stages, happened.held), resources=tuple(f"stage {i}" for i in range(stages)), whats=WHATS,
    )  # fmt: skip


def _over_groups(state: Setting, plan: TrainingPlan, rows: Plans) -> Record | None:
    """Returns the record of a pipeline whose stages lie each on one group, as its world ran it."""
    mixed = across(state, plan, rows, state.job(str(plan.dtype)))
    if mixed is None or mixed.events is None or len(mixed.events.events) > 2 * MOST:
        return None
    events, stages = mixed.events.events, len(mixed.stages)
    last = [max(e.end for e in events if e.stage == i) for i in range(stages)]
    names = [state.tree.groups[group].name for group in mixed.placement.groups]
    return Record(
        time=np.array([e.start for e in events] + last),
        duration=np.array([e.end - e.start for e in events] + [mixed.time - t for t in last]),
        resource=np.array([e.stage for e in events] + list(range(stages)), dtype=np.int32),
        what=np.array([_kind(e.passes) for e in events] + [4] * stages, dtype=np.int32),
        count=np.ones(len(events) + stages, dtype=np.int64),
        items=np.array([e.passes[0].micro for e in events] + [0] * stages, dtype=np.int64),
        level=_levels(events, stages, mixed.events.held),
        resources=tuple(f"stage {i}, {name}" for i, name in enumerate(names)), whats=WHATS,
    )  # fmt: skip


@dataclass(frozen=True)
class _Spent:
    """S of a micro-batch on any stage but the last, and on that; shares of its passes; s after the pipeline; in all."""

    inner: float
    last: float
    forward: float
    weights: float
    tail: float
    total: float


def _seconds(state: Setting, job: Job, rows: Plans, micro: int) -> _Spent:
    p, practice = parts(state.network, job, rows, state.system), state.system.practice
    times = {name: float(column[0]) for name, column in settle(p, rows, practice).items()}
    slow = times["total"] / (times["total"] - times["straggler"])  # all wait for the slowest, all the time
    tail = slow * sum(times[name] for name in AFTER)
    last = slow * (times["total"] - times["straggler"] - times["bubble"]) / micro - tail / micro
    ahead = sum(float(p.forward[name][0]) for name in LAYER_TERMS)
    back = sum(float(p.backward[name][0] + p.again[name][0]) for name in LAYER_TERMS)
    forward, weights = ahead / (ahead + back), float(p.weights[0]) / (ahead + back)
    return _Spent(last - slow * times["head"] / micro, last, forward, min(weights, 1.0 - forward), tail, times["total"])


def _kind(passes: tuple[orders.Pass, ...]) -> int:
    return 3 if len(passes) > 1 else "FBW".index(passes[0].kind)


def _levels(events: tuple[pipeline.Event, ...], stages: int, most: tuple[int, ...]) -> Array:
    """Share of the activations that a stage holds at most, at the end of each event."""
    held = [0] * stages
    found = []
    for event in events:
        for one in event.passes:
            held[event.stage] += {"F": 1, "B": -1}.get(one.kind, 0)
        found.append(held[event.stage] / max(1, max(most)))
    return np.asarray(np.clip(np.array(found + [0.0] * stages), 0.0, 1.0))
