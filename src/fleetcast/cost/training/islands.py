"""When it pays to train experts apart: no message between islands, against gradients added up over the link of all.

McAllister and others, "Decentralized Diffusion Models", CVPR 2025: the data is cut into K clusters, one expert trains
on each, alone on its island, and a router joins them; at equal FLOP the ensemble is as good. Then islands lose only
what the router and its training take, a share r of the work. Data parallelism over the islands loses what of its
all-reduce nothing hides, and waits for the slowest machine of all islands instead of one. With G bytes of gradients,
a window of h seconds to hide behind and T seconds of an island's iteration, both take as long where each island sends
about

    B = 2 (K-1)/K G / (h + r T)

if its links gave their line rate. They do not, and messages slow what they hide behind, so that `break_even` looks for
the bandwidth at which the forecast of `joined_time` says so.
"""

from __future__ import annotations

from dataclasses import replace
from math import exp, inf, log

import numpy as np
from scipy.optimize import brentq

from fleetcast.cost.collectives import Fabric, collective_time
from fleetcast.cost.training.memory import expert_copies, stage_params
from fleetcast.cost.training.network import Job, Network
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.step import parts, settle
from fleetcast.cost.training.system import System
from fleetcast.cost.training.work import spread_time

ROUTER = 0.05
"""Share of the work that the router takes; assumed: the paper's is a small model that is trained once."""
_LEVELS = ("reduce_scatter", "all_gather", "all_reduce")
_LEAST, _MOST = log(1.0), log(1e18)
"""Bandwidths, B/s, between which the break-even is looked for."""


def joined_time(
    network: Network, job: Job, plans: Plans, system: System, islands: int, between: Fabric, bandwidth: float
) -> float:
    """Returns seconds by which an iteration of one model on all islands is longer than an island's own.

    Each device of an island holds its share of the gradients added up there, and adds it up with its like on the
    other islands. Under ZeRO 1 all copies share the optimizer; under 2 and 3 those of an island share it, for nobody
    gathers weights over a slow link for every pass.

    Args:
        network: the model.
        job: an island's share of the batch.
        plans: of one island, as a column of one.
        system: its devices.
        islands: how many.
        between: what joins them; its bandwidth is not looked at.
        bandwidth: B/s that an island's devices send to the others, all together.
    """
    devices, zero = int(plans.devices[0]), int(plans.zero[0])
    copies, (ends, experts) = plans.data * plans.context, stage_params(network, plans)
    dense = float(max(part[0] for part in ends))  # of the fullest stage
    held = dense / float(copies[0]) + float(experts[0] / expert_copies(plans)[0])
    size = held * job.sent
    link = replace(between, bandwidth=bandwidth / devices)
    own = parts(network, job, plans, system)

    def far(operation: str, bytes_: float) -> float:
        return float(collective_time(operation, bytes_, islands, link))

    more, gather, optimizer = far("all_reduce", size), own.gather, own.optimizer
    if zero == 0:  # in two levels each island scatters its sum and gathers the others' again
        whole = np.asarray([dense * job.sent])
        inside = [spread_time(kind, whole, copies, plans.tensor, system) for kind in _LEVELS]
        more += float((inside[0] + inside[1] - inside[2])[0])
    elif zero == 1:  # all copies share the optimizer: sums are scattered over them, and new weights gathered
        more = far("reduce_scatter", size)
        gather = gather + far("all_gather", held * job.wide)
        optimizer = optimizer / islands
    slowest = system.practice.slowest(plans.devices * islands / system.node)
    all_ = replace(own, reduce=own.reduce + more, gather=gather, optimizer=optimizer, slowest=slowest)
    joined = settle(all_, plans, system.practice)
    return float(joined["total"][0] - settle(own, plans, system.practice)["total"][0])


def break_even(
    network: Network, job: Job, plans: Plans, system: System, islands: int, between: Fabric, alone: float,
    router: float = ROUTER,
) -> float:  # fmt: skip
    """Returns B/s between islands below which they pay; inf where they do at every bandwidth.

    Args:
        network: the model.
        job: an island's share of the batch.
        plans: of one island, as a column of one.
        system: its devices.
        islands: how many.
        between: what joins them.
        alone: s of an island's iteration.
        router: share of it that joining the experts takes.
    """

    def lost(logarithm: float) -> float:
        added = joined_time(network, job, plans, system, islands, between, exp(logarithm))
        return added - router * alone

    if lost(_MOST) > 0:
        return inf
    return exp(float(brentq(lost, _LEAST, _MOST, xtol=1e-9)))
