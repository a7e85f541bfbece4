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
        asked: how many devices share what, decided; "auto" = the quickest of `candidates` that fits.
        rows: the plan, as a column of one that shares nothing.
        job: the batch.
        room: its bytes by term and their ``total``.

    Raises:
        SpecError: shares that the copies do not hold, or that are lists, or a model in several parts.
    """
    copies = int(rows.data[0] * rows.context[0])
    check_whole(int(rows.tensor[0]), int(rows.pipeline[0]))
    columns = {name: np.asarray([bytes_]) for name, bytes_ in room.items()}

    def one(shards: Shards) -> tuple[Columns, dict[str, float], Shards]:
        times, kept = costed(state, shards, rows, job, columns)
        return times, {name: float(column[0]) for name, column in kept.items()}, shards

    if isinstance(asked, Shards):
        if not asked.decided:
            raise SpecError(
                "plan.shards", "lists several ways to share", value=[list(_levels(w)) for w in asked.ways()],
                limit="one number for each state to simulate", hint="Search them with: fleetcast plan",
            )  # fmt: skip
        _check(asked, copies)
        return one(asked)
    tried = [one(shards) for shards in candidates(copies, *near_levels(state))]
    fitting = [one for one in tried if one[1]["total"] <= state.system.memory]
    return min(
        fitting or tried,
        key=lambda one: (float(one[0]["total"][0]) if fitting else one[1]["total"], _levels(one[2])[0]),
    )


def check_whole(tensor: int, pipeline: int) -> None:
    """Refuses to share out by level a model that is cut.

    Raises:
        SpecError: names the degree.
    """
    for name, degree in (("tensor_parallel", tensor), ("pipeline_parallel", pipeline)):
        if degree > 1:
            raise SpecError(
                "plan.shards", f"shares out a whole model, and {name} cuts it", value=degree, limit=f"{name} = 1",
                hint=f"Leave {name} out, or write zero instead of shards",
            )  # fmt: skip


def near_levels(state: Setting) -> tuple[int, ...]:
    """Returns how many devices each level of the fleet holds: a node, and a group where all are equal."""
    groups = state.tree.groups
    equal = {group.count for group in groups} if len(groups) > 1 else set()
    return (state.group.node, *(equal if len(equal) == 1 else ()))


def candidates(copies: int, *near: int) -> list[Shards]:
    """Returns every way to share states out over the levels of a fleet: one device, a pair, ``near``, all copies.

    Messages stay as wide as their states: narrower ones change what is trained, which is the user's to say.

    Args:
        copies: of the model, the highest level.
        near: devices of the levels between, from `near_levels`.
    """
    levels = sorted({n for n in (1, 2, *near, copies) if copies % n == 0 and n <= copies})
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


def _levels(asked: Shards) -> tuple[int, int, int | None]:
    """Returns how many devices share weights, gradients and the optimizer, of decided shards."""
    weights, gradients, optimizer = asked.weights, asked.gradients, asked.optimizer
    assert isinstance(weights, int) and isinstance(gradients, int) and not isinstance(optimizer, tuple)
    return weights, gradients, optimizer


def costed(state: Setting, asked: Shards, rows: Plans, job: Job, room: Columns) -> tuple[Columns, Columns]:
    """Returns seconds by term and bytes by term of plans whose states are shared out alike.

    Args:
        state: the scenario, resolved.
        asked: how many devices share what, decided.
        rows: columns of plans that share nothing, as many copies, micro-batches and experts of a rank each.
        job: the batch.
        room: their bytes by term.
    """
    copies = int(rows.data[0] * rows.context[0])
    weights, gradients, optimizer = _levels(asked)
    whole = optimizer or copies
    shards = Sharding(weights, gradients, whole, asked.second, asked.weight_format, asked.gradient_format)
    ends, experts = stage_params(state.network, rows)
    params = float(ends[0][0] + experts[0])
    micro = int(rows.micro_batches(job.batch)[0])
    cost = traffic(params, shards, copies, micro, state.system)
    practice = state.system.practice
    sharded = weights > 1 or gradients > 1  # as PyTorch's FSDP does: its kernels
    kernels = replace(rows, zero=np.full_like(rows.zero, 3)) if sharded else rows
    own = parts(state.network, job, kernels, state.system)

    def with_messages(zero: int, reduce: float, gather: float, share: float) -> Columns:
        """An iteration with these messages; under ZeRO 3 they hide behind all micro-batches, else the last."""
        each = np.ones(len(rows))
        told = replace(own, reduce=reduce * each, gather=gather * each, optimizer=own.optimizer * share)
        return settle(told, replace(rows, zero=np.full_like(rows.zero, zero)), practice)

    times = with_messages(1, cost.settle, cost.renew, 1.0 / whole)
    each = with_messages(3, cost.reduce, cost.gather, 0.0)
    times["data_comm"] = times["data_comm"] + each["data_comm"] + cost.codec
    times["weight_gather"] = times["weight_gather"] + each["weight_gather"]
    others = [times[name] for name in TERMS if name != "straggler"]
    times["straggler"] = own.slowest * np.asarray(sum(others))
    times["total"] = np.asarray(sum(times[name] for name in TERMS))
    held = states(params, shards, weight=job.wide, gradient=job.gradient, optimizer=job.optimizer)
    kept = dict(room) | {name: np.full(len(rows), bytes_) for name, bytes_ in held.items()}
    if weights > 1:
        largest = max(layer.params for layer in state.network.layers)
        kept["buffers"] = kept["buffers"] + 2.0 * largest * job.wide  # a layer's gathered weights, and the next one's
    kept["total"] = sum((kept[name] for name in MEMORY), np.zeros(len(rows)))
    return times, kept
