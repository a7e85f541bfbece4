"""What off-loaded states cost in an iteration: seconds of the link to the host, and of an optimizer that runs there.

Weights come in for each forward and each backward pass; activations leave while a micro-batch goes forward and return
while it goes back (vDNN, Rhu and others, MICRO 2016). With the optimizer on the host, gradients leave after each
micro-batch and are added up there, weights return once an iteration, and the host's memory bus is what Adam waits for
(ZeRO-Offload, Ren and others, USENIX ATC 2021). The link is there while the device computes, so only what takes longer
than that is exposed. What the host does not hold lies on its disks, if it has any, and moves at their pace.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost.training.memory import expert_copies, kept_activations, memory, stage_params
from fleetcast.cost.training.network import Job, Network
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.system import System

Array = NDArray[np.float64]
ADAM_BYTES = 28.0
"""B of host memory that Adam moves for each parameter: master weight, two moments read and written, gradient read."""


def offload(network: Network, job: Job, plans: Plans, system: System) -> tuple[Array, Array]:
    """Returns seconds of transfers that computation may hide, and of the host's own step. Arrays over plans."""
    zero = np.zeros(len(plans))
    if not plans.offload.any():
        return zero, zero
    micro = plans.micro_batches(job.batch).astype(np.float64)
    ends, experts = stage_params(network, plans)
    held = np.maximum.reduce(ends) + experts
    shared = np.maximum.reduce(ends) / (plans.data * plans.context) + experts / expert_copies(plans)
    owned = np.where(plans.zero > 0, shared, held)
    moved = np.where(plans.offloads("weights"), held * job.wide * 2.0 * micro, 0.0)
    if plans.offloads("activations").any():
        kept = kept_activations(network, job, plans) * np.ceil(network.depth / plans.pipeline)
        moved = moved + np.where(plans.offloads("activations"), 2.0 * kept * micro, 0.0)
    sent = np.where(plans.zero >= 2, owned, held) * job.wide * micro  # ZeRO-2 sends what a copy owns
    moved = moved + np.where(plans.offloads("optimizer"), sent + owned * job.wide, 0.0)
    host = np.where(plans.offloads("optimizer"), owned * (ADAM_BYTES / system.host_bandwidth), 0.0)
    rate: Array | float = system.host_link
    if system.ssd:
        below = memory(network, job, plans, system)["ssd"]
        rate = np.where(below > 0, min(system.host_link, system.ssd), system.host_link)
        both = 1.0 / system.ssd + 1.0 / (system.ssd_write or system.ssd)
        host = host + np.where(plans.offloads("optimizer"), below * both, 0.0)
    return moved / rate, host
