"""Energy of an iteration, on columns: idle power, joules per FLOP, and a full memory bus where kernels stream.

The coefficients are those of serving (`cost.energy`), measured on GPUs that ran models.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost.energy import Draw, rates_of
from fleetcast.cost.training.network import Job, Network
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.system import System

Array = NDArray[np.float64]
WAITING = (
    "bubble", "host", "tensor_comm", "context_comm", "expert_comm", "pipeline_comm", "data_comm", "weight_gather",
    "offload", "straggler",
)  # fmt: skip
"""Terms in which a device's multipliers and its memory rest."""


def flops(network: Network, job: Job, plans: Plans) -> dict[str, Array]:
    """Returns FLOP per token: ``model`` as Narayanan and others count, ``again`` recomputed, ``pairs`` of both.

    Full recompute repeats the layers' forward pass; selective recompute attention's part of it, which fused attention
    repeats anyhow and which is then no choice of the plan's.
    """
    model = network.flops(job.sequence)
    pairs = 2.0 * (model - network.flops(job.sequence, causal=True))
    head = 6.0 * network.hidden * network.vocab
    selective = (plans.recompute == 1) & (plans.fused == 0)
    again = np.where(plans.recompute == 2, (model - head) / 3.0, np.where(selective, pairs / 3.0, 0.0))
    return {"model": np.full(len(plans), model), "again": again, "pairs": np.full(len(plans), pairs)}


def energy(
    network: Network, job: Job, plans: Plans, system: System, times: Mapping[str, Array], idle: float, limit: float,
    part: Array | float = 1.0,
) -> dict[str, Array]:  # fmt: skip
    """Returns joules of all of a plan's devices in one iteration, by term.

    Args:
        network: the model.
        job: the batch.
        plans: columns.
        system: the devices.
        times: exposed seconds by term, with their ``total``.
        idle: W of a device that does nothing.
        limit: W that it may draw.
        part: of an equal share of the products that these devices make, where stages differ.
    """
    work = flops(network, job, plans)
    rates = rates_of(system.chip, limit, job.dtype, system.fitted.get("draw", "any", Draw))
    total = times["total"]
    busy = total - sum((times[name] for name in WAITING), np.zeros(len(plans)))
    share = part * job.batch * job.sequence / plans.devices
    pairs = work["pairs"] * np.where(plans.fused == 1, 1.0, 0.5)  # kernels that skip what is masked; FLOP counts do not
    products = work["model"] + work["again"] - work["pairs"]
    above = {
        "busy": max(0.0, rates.busy - idle) * busy,
        "compute": rates.product * products * share,
        "memory": rates.weights * system.chip.bandwidth * system.stream.memory * (times["vector"] + times["optimizer"]),
        "attention": rates.attention * pairs * share,
    }
    drawn = sum(above.values(), np.zeros(len(plans)))
    room = max(0.0, limit - idle) * busy
    scale = np.minimum(1.0, room / np.where(drawn > 0, drawn, 1.0))
    found = {"idle": idle * total} | {name: joules * scale for name, joules in above.items()}
    return {name: joules * plans.devices for name, joules in found.items()}
