"""Where a training step's time goes, from what a job is known to do: data, compute, memory, weights and gradients.

Wang and others, "Characterizing Deep Learning Training Workloads on Alibaba-PAI", IISWC 2019. A step is the sum of its
parts, nothing hidden (``overlap`` takes the longest instead, the other end of what is possible):

    data        input / host link, which the devices of one server share
    compute     FLOP / peak
    memory      bytes of element-wise kernels / memory bandwidth
    weights     weights and gradients over the links of the placement: none for one device; host link within a server
                (1wNg); network, then host link to a parameter server; NVLink; or network, then NVLink

Each device reaches the same share of its data sheet, 70 % in the paper. Unlike `cost.training`, which knows a model's
layers, this takes any job that can be counted: recommenders, vision, speech.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleetcast.scenario.training_plan import PLACEMENTS

__all__ = ["PLACEMENTS", "REACHED", "TERMS", "Job", "Rates", "breakdown", "step_time", "throughput"]

Array = NDArray[np.float64]
TERMS = ("data", "compute", "memory", "weights")
REACHED = 0.7
"""Share of every data-sheet figure that jobs reach; the paper's, recalled."""


@dataclass(frozen=True)
class Job:
    """What one step of one worker does; arrays that broadcast.

    Attributes:
        flops: FLOP of products.
        traffic: B of device memory that element-wise kernels move.
        weights: B of weights and gradients that are exchanged.
        input: B of samples.
    """

    flops: ArrayLike
    traffic: ArrayLike
    weights: ArrayLike
    input: ArrayLike


@dataclass(frozen=True)
class Rates:
    """What a device has of each resource; arrays that broadcast.

    Attributes:
        flops: FLOP/s.
        memory: B/s of device memory.
        host_link: B/s between a server's devices and its host.
        network: B/s of a server.
        nvlink: B/s between devices of a server; 0 = there is none, and the host link takes its place.
        reached: share of each that jobs get.
    """

    flops: Array | float
    memory: Array | float
    host_link: Array | float
    network: Array | float
    nvlink: Array | float
    reached: float = REACHED


def breakdown(job: Job, rates: Rates, placement: ArrayLike, sharing: ArrayLike = 1) -> dict[str, Array]:
    """Returns seconds of a step by term.

    Args:
        job: what a worker does.
        rates: of its device and links.
        placement: codes of ``PLACEMENTS``.
        sharing: workers of one server, whose samples share its host link.
    """
    kind = np.asarray(placement)
    flops, memory, host, network, nvlink = (
        np.asarray(rate, dtype=np.float64) * rates.reached
        for rate in (rates.flops, rates.memory, rates.host_link, rates.network, rates.nvlink)
    )
    near = np.where(nvlink > 0, nvlink, host)
    size = np.asarray(job.weights, dtype=np.float64)
    weights = np.select(
        [kind == 0, kind == 1, kind == 2, kind == 3],
        [np.zeros_like(size), size / host, size / network + size / host, size / near],
        size / network + size / near,
    )
    found = {
        "data": np.asarray(job.input, dtype=np.float64) * np.asarray(sharing) / host,
        "compute": np.asarray(job.flops, dtype=np.float64) / flops,
        "memory": np.asarray(job.traffic, dtype=np.float64) / memory,
        "weights": weights,
    }
    shape = np.broadcast_shapes(*(term.shape for term in found.values()))
    return {name: np.broadcast_to(term, shape) for name, term in found.items()}


def step_time(terms: dict[str, Array], *, overlap: bool = False) -> Array:
    """Returns seconds of a step: the sum of its terms, or the longest of data, device and weights if all overlap."""
    if not overlap:
        return np.asarray(sum(terms.values()))
    return np.maximum(np.maximum(terms["data"], terms["compute"] + terms["memory"]), terms["weights"])


def throughput(job: Job, rates: Rates, placement: ArrayLike, workers: ArrayLike, sharing: ArrayLike = 1) -> Array:
    """Returns worker steps per second of the whole job."""
    return np.asarray(workers) / step_time(breakdown(job, rates, placement, sharing))
