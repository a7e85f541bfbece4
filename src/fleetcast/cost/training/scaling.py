"""How one layer's time falls with the devices that share its batch: the scalability of a module.

Samples are dealt to copies of the layer; the copy with most of them says how long it takes. What a copy launches costs
its host the same however few samples it has, which is why small modules stop scaling long before large ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost.gemm import gemm_time
from fleetcast.cost.training.memory import layer_activations
from fleetcast.cost.training.network import Job, Network
from fleetcast.cost.training.plans import Plans, plans
from fleetcast.cost.training.system import System
from fleetcast.cost.training.work import TERMS, layer_work

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
HEAD_KERNELS = 30.0
"""Kernels of a head's projection, loss and their gradients, as in `cost.training.step`."""
_FACTORS = {"tensor_comm": "tensor", "context_comm": "tensor", "expert_comm": "tensor"}
"""Of which factor of `Practice` a term is, where it has another name."""


def dealt(job: Job, counts: Counts, recompute: int) -> Plans:
    """Returns the plans of a layer whose batch is dealt to ``counts`` copies; the fullest copy's share."""
    return plans(data=counts, micro_batch=-(-job.batch // counts), recompute=np.full(len(counts), recompute))


def layer_time(
    network: Network, job: Job, counts: Counts, system: System, *, causal: bool, recompute: int = 0
) -> Array:  # fmt: skip
    """Returns seconds of one layer, forward and backward, on each count of devices.

    Args:
        network: of which the mean layer is meant.
        job: samples and their length.
        counts: devices that share the batch.
        system: the devices.
        causal: whether a token sees those before it alone; otherwise attention has twice the pairs.
        recompute: index into ``RECOMPUTE``.
    """
    rows = dealt(job, counts, recompute)
    work, practice = layer_work(network, job, rows, system), system.practice
    total = np.zeros(len(counts))
    for name in TERMS:
        pairs = 2.0 if name in ("attention", "narrow") and not causal else 1.0
        part = work.forward[name] + work.backward[name] + work.again[name]
        total += float(getattr(practice, _FACTORS.get(name, name))) * pairs * part
    total += practice.gap * work.kernels
    waits = practice.kernel * work.kernels + practice.pace * work.messages
    q = practice.sharp
    return (total**q + waits**q) ** (1.0 / q)


def head_time(hidden: int, vocab: int, job: Job, counts: Counts, system: System) -> Array:
    """Returns seconds of a head of ``vocab`` rows, forward and backward, on each count of devices."""
    tokens = (-(-job.batch // counts) * job.sequence).astype(np.float64)
    wide, deep = np.full(len(counts), float(vocab)), np.full(len(counts), float(hidden))
    c, total = system.gemm(job.dtype), np.zeros(len(counts))
    for a, b, d in ((tokens, wide, deep), (tokens, deep, wide), (wide, deep, tokens)):
        total += gemm_time(a, b, d, job.dtype, system.chip, c)
    total += tokens * wide * (18.0 / (system.chip.bandwidth * system.stream.memory))
    return np.maximum(system.practice.head * total, system.practice.kernel * HEAD_KERNELS)


def kept(network: Network, job: Job, counts: Counts, recompute: int = 0) -> Array:
    """Returns B that a device keeps of one layer until its backward pass, on each count of devices."""
    return layer_activations(network, network.layers[0], job, dealt(job, counts, recompute))[0]
