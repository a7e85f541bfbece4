"""States shared out by level of the fleet: weights among the nearest devices, gradients in a node, the rest over all.

ZeRO shares out everything over all copies, so that each pass gathers weights over the slowest link. ZeRO++ (Wang and
others, 2023) keeps a second copy of the weights in every node for the pass back and sends 8-bit weights and 4-bit
gradients. "Scaling Large Language Model Training on Frontier with Low-Bandwidth Partitioning" (arXiv 2501.04266) shares
weights over the two dies of a module, gradients over a node and the optimizer over all: the slow link then carries each
state once an iteration, not once a micro-batch. With w, g, o devices that share weights, gradients, optimizer:

    a micro-batch   gather weights over w (forward), over w or the second copy's s (backward), reduce-scatter over g
    an iteration    add up the gradients' shards over the o/g groups, gather the new weights over the o/w groups;
                    where c/o groups hold optimizers of their own, all of them add up what they hold
    memory          2P/w + 2P/s + 4P/g + 12P/o
"""

from __future__ import annotations

from dataclasses import dataclass

from fleetcast.cost.collectives import collective_time, nested_time
from fleetcast.cost.training.system import System

BITS = {"int4": 4, "int8": 8, "fp8": 8, "bf16": 16, "fp16": 16, "fp32": 32}
BLOCK = 2048
"""Elements that share one fp32 scale in a quantised message, as ZeRO++ has it (recalled)."""


@dataclass(frozen=True)
class Sharding:
    """How many devices share each state, and in which format it travels.

    Attributes:
        weights, gradients, optimizer: devices; each divides the next.
        second: devices that share a second copy of the weights for the pass back; 0 = there is none.
        weight_format, gradient_format: keys of `BITS`.
    """

    weights: int
    gradients: int
    optimizer: int
    second: int = 0
    weight_format: str = "bf16"
    gradient_format: str = "bf16"


@dataclass(frozen=True)
class Traffic:
    """What sharing costs.

    Attributes:
        gather: s of weights that are gathered for the passes of all micro-batches.
        reduce: s of gradients that are added up after them.
        renew: s of new weights that are gathered, once an iteration.
        settle: s of gradients that groups add up with each other, once an iteration.
        codec: s of making and reading quantised messages.
        slow: B that a device sends over the network between nodes in an iteration, its scales included.
    """

    gather: float
    reduce: float
    renew: float
    settle: float
    codec: float
    slow: float


def states(
    params: float, shards: Sharding, *, weight: float = 2.0, gradient: float = 4.0, optimizer: float = 12.0
) -> dict[str, float]:
    """Returns B of a device by state.

    Args:
        params: of the model, or of the part of it that a copy's device would hold.
        shards: how they are shared out.
        weight: B of a weight.
        gradient: B of an accumulated gradient.
        optimizer: B of the optimizer's states of a parameter.
    """
    second = params * weight / shards.second if shards.second else 0.0
    return {
        "weights": params * weight / shards.weights + second, "gradients": params * gradient / shards.gradients,
        "optimizer": params * optimizer / shards.optimizer,
    }  # fmt: skip


def traffic(params: float, shards: Sharding, copies: int, micro_batches: int, system: System) -> Traffic:
    """Returns what sharing costs in an iteration.

    Args:
        params: as `states`.
        shards: how states are shared out.
        copies: of the model; a multiple of ``shards.optimizer``.
        micro_batches: that gather weights and add up gradients.
        system: the devices, links and node.
    """
    m = float(micro_batches)
    weight, gradient = _sent(shards.weight_format), _sent(shards.gradient_format)
    w, g, o, back = shards.weights, shards.gradients, shards.optimizer, shards.second or shards.weights
    stored = 2.0 if shards.second else weight  # the second copy is as wide as the products need it
    gathers = (("all_gather", params * weight, w, 1), ("all_gather", params * stored, back, 1))
    scatters = (("reduce_scatter", params * gradient, g, 1),)
    renewals = (("all_gather", params * 2.0 / w, o // w, w),)
    sums = (
        ("reduce_scatter", params * gradient / g, o // g, g), ("all_reduce", params * gradient / o, copies // o, o),
    )  # fmt: skip
    gather, reduce, renew, settle = (
        times * sum(level_time(*message, system) for message in messages)
        for times, messages in ((m, gathers), (m, scatters), (1.0, renewals), (1.0, sums))
    )
    rate = system.chip.bandwidth * system.stream.memory
    codec = 0.0
    if weight < 2.0:
        codec += m * params * (2.0 + weight) / rate * (1 if shards.second else 2)
    if gradient < 2.0:
        codec += m * params * 2.0 * (2.0 + gradient) / rate
    slow = sum(
        times * far_bytes(size, ranks, stride, system.node) * (2 if kind == "all_reduce" else 1)
        for times, messages in ((m, (*gathers, *scatters)), (1.0, (*renewals, *sums)))
        for kind, size, ranks, stride in messages
    )
    return Traffic(gather, reduce, renew, settle, codec, slow)


def level_time(operation: str, size: float, ranks: int, stride: int, system: System) -> float:
    """Returns seconds of a collective of ``ranks`` that are ``stride`` devices apart."""
    if ranks <= 1 or size <= 0:
        return 0.0
    if ranks == 2 and stride == 1 and system.pair is not None:
        return float(collective_time(operation, size, 2, system.pair))
    near = near_ranks(ranks, stride, system.node)
    return float(nested_time(operation, size, ranks, near, system.inner, system.outer))


def near_ranks(ranks: int, stride: int, node: int) -> int:
    """Returns how many of ``ranks`` that are ``stride`` devices apart lie in one node."""
    return max(1, min(ranks, node // stride))


def far_bytes(size: float, ranks: int, stride: int, node: int) -> float:
    """Returns B that a device sends to other nodes when ``ranks`` gather or add up ``size`` B in two levels."""
    near = near_ranks(ranks, stride, node)
    nodes = -(-ranks // near)
    return size / near * (nodes - 1) / nodes


def _sent(format_: str) -> float:
    """Returns B of an element in a message, its share of a block's scale included."""
    bits = BITS[format_]
    return bits / 8.0 + (4.0 / BLOCK if bits < 16 else 0.0)
