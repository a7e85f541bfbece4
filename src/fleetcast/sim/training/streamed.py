"""An iteration whose model streams through one device: `cost.training.streams` instead of offloading's terms."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleetcast.cost.training import streams
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.step import TERMS
from fleetcast.scenario.training_plan import TrainingPlan
from fleetcast.sim.training.setting import Setting

Columns = dict[str, NDArray[np.float64]]
_PASSES = ("gemm", "attention", "vector", "host")


def streamed(
    state: Setting, plan: TrainingPlan, rows: Plans, job: Job, taken: Columns
) -> tuple[Columns, dict[str, float], TrainingPlan, float]:
    """Returns a streaming plan's seconds and bytes by term, the plan with its share, and what is computed again.

    ``offload`` is what an iteration is longer than the device works: its waits for links, disks and the optimizer.
    The last is the share of a full recompute's FLOP.

    Args:
        state: the scenario, resolved.
        plan: complete.
        rows: the same as a column of one.
        job: the batch.
        taken: its seconds by term, of which the passes are kept.
    """
    flow = streams.stream(state.network, job, rows, state.system, overlapped="optimizer" in (plan.overlap or ()))
    swap = streams.best(flow) if plan.swap == "auto" else float(plan.swap or 0.0)
    again = float(flow.again(swap)) * flow.layers
    total = float(streams.time(flow, swap)[0])
    passes = flow.layers * (flow.forward + flow.backward)
    times = {name: np.zeros(1) for name in TERMS}
    known = sum(float(taken[name][0]) for name in _PASSES)
    for name in _PASSES:
        times[name] = taken[name] * (passes / known)
    times["head"], times["recompute"] = taken["head"], np.asarray([again])
    times["offload"] = np.asarray([total - passes - again]) - taken["head"]
    slow = float(state.system.practice.slowest(1.0))
    times["straggler"] = np.asarray([slow * total])
    times["total"] = np.asarray(sum(times[name] for name in TERMS))
    return times, streams.room(flow, swap), msgspec.structs.replace(plan, swap=swap), _products(flow, swap)


def _products(flow: streams.Stream, swap: float) -> float:
    """Returns the share of products and attention that is computed again."""
    room, done, every = swap * flow.swappable, 0.0, 0.0
    for piece in flow.pieces:
        if piece.name != "element-wise":
            every += piece.seconds
            done += piece.seconds * min(1.0, max(0.0, room / piece.size))
        room -= piece.size
    return 1.0 - done / every if every else 0.0
