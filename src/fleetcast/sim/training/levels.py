"""An iteration whose states are shared out by level of the fleet: `cost.training.sharding` instead of ZeRO's terms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.cost.training.memory import TERMS as MEMORY
from fleetcast.cost.training.memory import stage_params
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.sharding import Sharding, states, traffic
from fleetcast.cost.training.step import TERMS, parts, settle
from fleetcast.scenario.training_plan import Shards
from fleetcast.sim.training.setting import Setting

Columns = dict[str, NDArray[np.float64]]


def shared(
    state: Setting, asked: Shards | str, rows: Plans, job: Job, room: dict[str, float]
) -> tuple[Columns, dict[str, float], Shards]:
    """Returns seconds by term and bytes by term of one plan, its states shared out as asked, and how they are.

    Args:
        state: the scenario, resolved.
        asked: how many devices share what; "auto" = the quickest of `candidates` that fits.
        rows: the plan, as a column of one that shares nothing.
        job: the batch.
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
        return (*_with(state, asked, rows, job, room), asked)
    tried = [(*_with(state, shards, rows, job, room), shards) for shards in candidates(copies, state.group.node)]
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
    state: Setting, asked: Shards, rows: Plans, job: Job, room: dict[str, float]
) -> tuple[Columns, dict[str, float]]:
    copies = int(rows.data[0] * rows.context[0])
    whole = asked.optimizer or copies
    shards = Sharding(asked.weights, asked.gradients, whole, asked.second, asked.weight_format, asked.gradient_format)
    ends, experts = stage_params(state.network, rows)
    params = float(ends[0][0] + experts[0])
    micro = int(rows.micro_batches(job.batch)[0])
    cost = traffic(params, shards, copies, micro, state.system)
    practice = state.system.practice
    sharded = asked.weights > 1 or asked.gradients > 1  # as PyTorch's FSDP does: its kernels
    kernels = replace(rows, zero=np.full_like(rows.zero, 3)) if sharded else rows
    own = parts(state.network, job, kernels, state.system)

    def with_messages(zero: int, reduce: float, gather: float, share: float) -> Columns:
        """An iteration with these messages; under ZeRO 3 they hide behind all micro-batches, else the last."""
        told = replace(own, reduce=np.asarray([reduce]), gather=np.asarray([gather]), optimizer=own.optimizer * share)
        return settle(told, replace(rows, zero=np.full_like(rows.zero, zero)), practice)

    times = with_messages(1, cost.settle, cost.renew, 1.0 / whole)
    each = with_messages(3, cost.reduce, cost.gather, 0.0)
    times["data_comm"] = times["data_comm"] + each["data_comm"] + cost.codec
    times["weight_gather"] = times["weight_gather"] + each["weight_gather"]
    others = [times[name] for name in TERMS if name != "straggler"]
    times["straggler"] = own.slowest * np.asarray(sum(others))
    times["total"] = np.asarray(sum(times[name] for name in TERMS))
    kept = dict(room) | states(params, shards, weight=job.wide, gradient=job.gradient, optimizer=job.optimizer)
    if asked.weights > 1:
        largest = max(layer.params for layer in state.network.layers)
        kept["buffers"] += 2.0 * largest * job.wide  # a layer's weights, gathered, and the next one's
    kept["total"] = sum(kept[name] for name in MEMORY)
    return times, kept
