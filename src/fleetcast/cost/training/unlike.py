"""Stages that differ: what a layer takes on each kind of device, and what a stage of so many layers holds.

`memory` and `step` know pipelines of equal stages. A stage of L layers, i-th of p, is part of such a pipeline too: of
one whose p - i stages hold L layers each and of which it is the first, for 1F1B keeps as many micro-batches in flight
on a stage as there are stages from it to the last. So nothing is counted twice, and a change of either holds here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost.training.memory import TERMS as MEMORY
from fleetcast.cost.training.memory import memory
from fleetcast.cost.training.network import Job, Network
from fleetcast.cost.training.plans import SCHEDULES, Plans
from fleetcast.cost.training.step import step
from fleetcast.cost.training.system import System

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
ONCE = ("data_comm", "weight_gather", "optimizer", "offload")
"""Terms of an iteration, not of a micro-batch."""
_OUTSIDE = ("bubble", "head", "pipeline_comm", "total", *ONCE)
_GRAIN = 2.0**20
"""Layers of several kinds are dealt in parts of this many, which add up without rounding."""


@dataclass(frozen=True, eq=False)
class Paces:
    """What a kind of device makes of one layer and of what surrounds them; arrays over plans.

    Attributes:
        forward, backward: s of a layer for one micro-batch.
        last: s that the last stage adds to a micro-batch.
        terms: s of one layer for one micro-batch by term; they sum to ``forward + backward``.
        once: s of an iteration for each layer, by term of `ONCE`.
    """

    forward: Array
    backward: Array
    last: Array
    terms: dict[str, Array]
    once: dict[str, Array]

    @property
    def seconds(self) -> Array:
        """S of a layer for one micro-batch, both passes."""
        return self.forward + self.backward

    @property
    def after(self) -> Array:
        """S of an iteration for each layer once the passes are done."""
        return sum(self.once.values(), np.zeros_like(self.forward))


def paces(network: Network, job: Job, plans: Plans, system: System) -> Paces:
    """Returns what one layer takes on a kind of device, from an iteration of equal stages of it."""
    one = np.ones_like(plans.interleave)
    alone = replace(plans, interleave=one, schedule=one)
    times = step(network, job, alone, system)
    micro, held = alone.micro_batches(job.batch).astype(np.float64), np.ceil(network.depth / alone.pipeline)
    terms = {name: seconds / micro / held for name, seconds in times.items() if name not in _OUTSIDE}
    total = sum(terms.values(), np.zeros(len(plans)))
    forward = (total - terms["recompute"]) / 3.0
    once = {name: times[name] / held for name in ONCE}
    return Paces(forward, total - forward, times["head"] / micro, terms, once)


def stage_memory(
    network: Network, job: Job, plans: Plans, system: System, position: int, layers: int
) -> dict[str, Array]:
    """Returns bytes as `memory` does, of one stage under 1F1B.

    Args:
        network: the model.
        job: the batch.
        plans: columns with as many stages each.
        system: its devices.
        position: of the stage, 0 = the first.
        layers: that it holds.
    """
    stages = int(plans.pipeline[0])
    if stages == 1:
        return memory(network, job, plans, system)
    if position == stages - 1:  # one micro-batch in flight, and the head; what the first stage alone has is left out
        behind, part, work = 2, replace(network, first_params=0), replace(job, batch=1)
    elif position == 0:
        behind, part, work = stages, replace(network, vocab=0, last_params=0), job
    else:
        behind, work = stages - position, job
        part = replace(network, vocab=0, table_params=0, first_params=0, last_params=0)
    column = np.full_like(plans.pipeline, behind)
    plain = np.full_like(plans.schedule, SCHEDULES.index("1f1b"))
    rows = replace(plans, pipeline=column, schedule=plain, interleave=np.ones_like(column))
    return memory(_deep(part, layers * behind), work, rows, system)


def _deep(network: Network, depth: int) -> Network:
    """Returns a network of so many layers, its kinds in the same proportions."""
    share = depth / network.depth
    counts = [round(layer.count * share * _GRAIN) / _GRAIN for layer in network.layers[:-1]]
    counts.append(depth - sum(counts))
    layers = tuple(
        replace(layer, count=count) for layer, count in zip(network.layers, counts, strict=True)
    )  # a mean stage has parts of layers
    return replace(network, layers=layers)


def share_filled(room: dict[str, Array], system: System) -> Array:
    """Returns the share that is filled of what is fullest: the device, its host's memory, its disks."""
    most = np.maximum(room["total"] / system.memory, room["host"] / system.host_memory)
    return np.asarray(np.maximum(most, room["ssd"] / system.ssd_memory))


def most_layers(network: Network, job: Job, plans: Plans, system: System, position: int) -> Counts:
    """Returns how many layers a stage at ``position`` holds at most on these devices, 0 = not even one."""
    low = np.zeros(len(plans), dtype=np.int64)
    high = np.full(len(plans), network.depth - int(plans.pipeline[0]) + 1, dtype=np.int64)
    while (open_ := low < high).any():
        middle = (low + high + 1) // 2
        for layers in np.unique(middle[open_]):
            at = np.flatnonzero(open_ & (middle == layers))
            room = stage_memory(network, job, plans.take(at), system, position, int(layers))
            fits = share_filled(room, system) <= 1.0
            low[at] = np.where(fits, layers, low[at])
            high[at] = np.where(fits, high[at], layers - 1)
    return low


def deal(
    seconds: Array, after: Array, first: Array, last: Array, most: Counts, layers: int, micro_batches: int
) -> tuple[Counts, Array]:
    """Returns layers dealt one by one to the stage with which an iteration then takes least, and what it takes (s).

    That is the sum of all stages, ``micro_batches - 1`` times the longest, and what follows the pipeline at most.

    Args:
        seconds: f8[plans, stages], s of a layer on each stage for one micro-batch.
        after: f8[plans, stages], s of a layer after the pipeline.
        first: f8[plans], s that the first stage takes besides.
        last: likewise, the last stage.
        most: i8[plans, stages], layers that a stage may hold; at least one is dealt to each all the same.
        layers: to deal. Where stages hold too few, the time is inf.
        micro_batches: that follow each other.
    """
    plans, stages = seconds.shape
    held, rows = np.ones((plans, stages), dtype=np.int64), np.arange(plans)
    time, late, more = np.zeros((plans, stages)), after.copy(), micro_batches - 1.0
    time[:, 0] += first
    time[:, -1] += last
    time += seconds
    full = (most < 1).any(axis=1) | (most.sum(axis=1) < layers)
    longest, latest = time.max(axis=1), late.max(axis=1)
    for _ in range(layers - stages):
        longer = time + seconds
        cost = seconds + more * np.maximum(longest[:, None], longer) + np.maximum(latest[:, None], late + after)
        cost = np.where((held < most) | full[:, None], cost, np.inf)
        alike = cost == cost.min(axis=1, keepdims=True)
        at = np.argmin(np.where(alike, longer, np.inf), axis=1)
        held[rows, at] += 1
        time[rows, at] += seconds[rows, at]
        late[rows, at] += after[rows, at]
        longest, latest = np.maximum(longest, time[rows, at]), np.maximum(latest, late[rows, at])
    return held, np.where(full, np.inf, time.sum(axis=1) + more * longest + latest)


def fullest(
    network: Network, job: Job, plans: Plans, groups: Counts, layers: Counts, systems: Sequence[System]
) -> tuple[dict[str, Array], Array, Counts]:
    """Returns the fullest stage of each plan: bytes by term, the share that is filled, and which stage it is.

    Args:
        network: the model.
        job: the batch.
        plans: columns with as many stages each.
        groups: i8[plans, stages], the index of each stage's devices in ``systems``.
        layers: i8[plans, stages].
        systems: kinds of devices.
    """
    names = (*MEMORY, "total", "host", "ssd")
    found = {name: np.zeros(len(plans)) for name in names}
    filled, stage = np.full(len(plans), -1.0), np.zeros(len(plans), dtype=np.int64)
    for position in range(groups.shape[1]):
        pairs = np.stack([groups[:, position], layers[:, position]], axis=1)
        for group, held in np.unique(pairs, axis=0):
            at = np.flatnonzero((pairs == (group, held)).all(axis=1))
            system = systems[int(group)]
            room = stage_memory(network, job, plans.take(at), system, position, int(held))
            share = share_filled(room, system)
            more = share > filled[at]
            filled[at], stage[at] = np.where(more, share, filled[at]), np.where(more, position, stage[at])
            for name in names:
                found[name][at] = np.where(more, room[name], found[name][at])
    return found, filled, stage
