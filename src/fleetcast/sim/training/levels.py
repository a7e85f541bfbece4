"""An iteration whose states are shared out by level of the fleet: `cost.training.sharding` instead of ZeRO's terms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.cost.training.memory import TERMS as MEMORY
from fleetcast.cost.training.memory import stage_params
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.sharding import Sharding, states, traffic
from fleetcast.cost.training.step import TERMS
from fleetcast.cost.training.work import behind
from fleetcast.scenario.training_plan import Shards
from fleetcast.sim.training.setting import Setting

Columns = dict[str, NDArray[np.float64]]
_WAITING = ("data_comm", "weight_gather", "bubble", "pipeline_comm", "tensor_comm", "optimizer", "straggler")
"""Terms behind which no message of this kind hides."""


def shared(
    state: Setting, asked: Shards | str, rows: Plans, job: Job, taken: Columns, room: dict[str, float]
) -> tuple[Columns, dict[str, float], Shards]:
    """Returns seconds by term and bytes by term of one plan, its states shared out as asked, and how they are.

    Args:
        state: the scenario, resolved.
        asked: how many devices share what; "auto" = the quickest of `candidates` that fits.
        rows: the plan, as a column of one that shares nothing.
        job: the batch.
        taken: its seconds by term and their ``total``.
        room: its bytes by term and their ``total``.

    Raises:
        SpecError: shares that the copies do not hold, or a model in several parts.
    """
    copies = int(rows.data[0] * rows.context[0])
    for name, degree in (("tensor_parallel", rows.tensor[0]), ("pipeline_parallel", rows.pipeline[0])):
        if degree > 1:
            raise SpecError(
                "plan.shards", f"shares out a whole model, and {name} cuts it", value=int(degree), limit=f"{name} = 1",
                hint=f"Leave {name} out, or write zero instead of shards",
            )  # fmt: skip
    if isinstance(asked, Shards):
        _check(asked, copies)
        return (*_with(state, asked, rows, job, taken, room), asked)
    tried = [(*_with(state, shards, rows, job, taken, room), shards) for shards in candidates(copies, state.group.node)]
    fitting = [one for one in tried if one[1]["total"] <= state.system.memory]
    return min(
        fitting or tried, key=lambda one: (float(one[0]["total"][0]) if fitting else one[1]["total"], one[2].weights)
    )


def candidates(copies: int, node: int) -> list[Shards]:
    """Returns every way to share states out over the levels of a fleet: one device, a pair, a node, all copies.

    Messages stay as wide as their states: narrower ones change what is trained, which is the user's to say.
    """
    levels = sorted({n for n in (1, 2, node, copies) if copies % n == 0 and n <= copies})
    return [
        Shards(weights=w, gradients=g, optimizer=o)
        for w in levels for g in levels for o in levels if g % w == 0 and o % g == 0
    ]  # fmt: skip


def _check(asked: Shards, copies: int) -> None:
    for name in ("weights", "gradients", "optimizer", "second"):
        count = getattr(asked, name)
        if count and copies % count:
            raise SpecError(
                f"plan.shards.{name}", f"does not divide the {copies} copies", value=count,
                limit=f"a divisor of {copies}", hint="Change it or data_parallel",
            )  # fmt: skip


def _with(
    state: Setting, asked: Shards, rows: Plans, job: Job, taken: Columns, room: dict[str, float]
) -> tuple[Columns, dict[str, float]]:
    copies = int(rows.data[0] * rows.context[0])
    whole = asked.optimizer or copies
    shards = Sharding(asked.weights, asked.gradients, whole, asked.second, asked.weight_format, asked.gradient_format)
    ends, experts = stage_params(state.network, rows)
    params = float(ends[0][0] + experts[0])
    micro = int(rows.micro_batches(job.batch)[0])
    cost = traffic(params, shards, copies, micro, state.system)
    scale = state.system.practice.data
    gather, reduce = scale * cost.gather, scale * cost.reduce
    if rows.overlaps("data")[0]:
        work = float(taken["total"][0]) - sum(float(taken[name][0]) for name in _WAITING)
        both = gather + reduce
        left = float(behind(np.asarray([both]), np.asarray([work]))[0]) if both else 0.0
        gather, reduce = (part * left / both if both else 0.0 for part in (gather, reduce))
    times = {name: taken[name].copy() for name in TERMS}
    times["weight_gather"][:], times["data_comm"][:] = gather, reduce + cost.codec
    times["optimizer"] = times["optimizer"] / whole
    times["total"] = np.asarray(sum(times[name] for name in TERMS))
    kept = dict(room) | states(params, shards, weight=job.element, gradient=job.gradient, optimizer=job.optimizer)
    if asked.weights > 1:
        largest = max(layer.params for layer in state.network.layers)
        kept["buffers"] += 2.0 * largest * job.element  # a layer's weights, gathered, and the next one's
    kept["total"] = sum(kept[name] for name in MEMORY)
    return times, kept
