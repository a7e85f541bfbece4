"""Time of one training iteration: analytic terms on columns of plans.

A stage works through m micro-batches: products, attention, element-wise kernels, what its tensor-parallel ranks say to
each other, what is computed again. That, and the messages between stages, the pipeline's bubble repeats; the head,
which only the last stage has, it does not. Once an iteration the copies add up gradients and the optimizer moves the
weights. Each term is what is *exposed*: seconds in which nothing else of the device goes on. They sum to the iteration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost.gemm import gemm_time
from fleetcast.cost.roofline import soft_max
from fleetcast.cost.training.groups import distinct
from fleetcast.cost.training.memory import expert_copies, stage_params
from fleetcast.cost.training.network import Job, Network
from fleetcast.cost.training.offload import offload
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.schedule import DUALPIPE, idle_weights, light_ends
from fleetcast.cost.training.system import Practice, System
from fleetcast.cost.training.work import TERMS as LAYER_TERMS
from fleetcast.cost.training.work import behind, layer_work, spread_time

Array = NDArray[np.float64]
TERMS = (
    "gemm", "attention", "vector", "recompute", "head", "tensor_comm", "context_comm", "expert_comm", "pipeline_comm",
    "host", "bubble", "data_comm", "weight_gather", "optimizer", "offload", "straggler",
)  # fmt: skip
OPTIMIZER_BYTES = 36.0
"""B that Adam moves for each parameter: gradient, master weight and two moments read, the last three and the weight
written (30), and the gradient once more for its norm and its scale (6); counted."""
FUSED_HEAD = 3.0
"""Passes over the logits: probabilities, their gradient, the copy in fp32."""


@dataclass(frozen=True)
class Parts:
    """Seconds before any factor of `Practice`, arrays over plans.

    Attributes:
        forward, backward, again: of one micro-batch on a stage, by the layers' terms.
        weights: products of one micro-batch that make gradients of weights.
        head: embedding and head of one micro-batch, on the last stage.
        spared: share of a stage's layers that the last one has fewer.
        hop: messages to the next stage and back, of one micro-batch and one piece of a stage.
        launch, messages: kernels and collectives that one micro-batch starts on a stage.
        reduce, gather: gradients added up and weights gathered, of a whole iteration.
        optimizer: of a whole iteration.
        transfer, host_step: of the link to the host and of the host's own step, of a whole iteration.
        micro: micro-batches.
        slowest: share by which stragglers make all of it longer.
    """

    forward: dict[str, Array]
    backward: dict[str, Array]
    again: dict[str, Array]
    weights: Array
    head: Array
    spared: Array
    hop: Array
    launch: Array
    messages: Array
    reduce: Array
    gather: Array
    optimizer: Array
    transfer: Array
    host_step: Array
    micro: Array
    slowest: Array


def step(network: Network, job: Job, plans: Plans, system: System) -> dict[str, Array]:
    """Returns exposed seconds by term (``TERMS``) and their sum, ``total``: the iteration. Arrays over plans."""
    return settle(parts(network, job, plans, system), plans, system.practice)


def parts(network: Network, job: Job, plans: Plans, system: System) -> Parts:
    """Returns the iteration's terms, nothing hidden between them and no factor applied."""
    first, inverse = distinct(
        (plans.tensor, plans.context, plans.micro_batch, plans.sequence_parallel, plans.recompute,
         plans.tensor_messages, plans.overlap & 1, plans.expert, plans.expert_tensor, plans.fused,
         np.asarray(plans.zero >= 2, dtype=np.int32), np.asarray(plans.eager, dtype=np.int32))
    )  # fmt: skip
    few = plans.take(first)
    layer = layer_work(network, job, few, system)
    head = _head(network, job, few, system)
    held = np.ceil(network.depth / plans.pipeline)

    def spread(part: Mapping[str, Array]) -> dict[str, Array]:
        return {name: part[name][inverse] * held for name in LAYER_TERMS}

    reduce, gather, optimizer = _copies(network, job, plans, system)
    transfer, host_step = offload(network, job, plans, system)
    micro = plans.micro_batches(job.batch).astype(np.float64)
    return Parts(
        forward=spread(layer.forward), backward=spread(layer.backward), again=spread(layer.again),
        weights=layer.weights[inverse] * held, head=head[inverse],
        spared=light_ends(network.depth, plans.pipeline, plans.interleave)[1] / held,
        hop=_hop(network, job, plans, system),
        launch=layer.kernels[inverse] * held + 30.0, messages=layer.messages[inverse] * held, reduce=reduce,
        gather=gather, optimizer=optimizer, transfer=transfer, host_step=host_step, micro=micro,
        slowest=system.practice.slowest(plans.devices / system.node),
    )  # fmt: skip


_FACTORS = {
    "gemm": "gemm", "attention": "attention", "fused": "fused", "flash": "flash", "narrow": "narrow",
    "vector": "vector", "eager": "eager", "tensor_comm": "tensor", "context_comm": "tensor", "expert_comm": "tensor",
}  # fmt: skip


def settle(p: Parts, plans: Plans, practice: Practice) -> dict[str, Array]:
    """Returns exposed seconds by term from the parts, the factors of ``practice`` applied."""
    factor = {name: float(getattr(practice, _FACTORS[name])) for name in LAYER_TERMS}
    p = _paired(p, plans, factor)
    forward = sum((factor[n] * p.forward[n] for n in LAYER_TERMS), np.zeros(len(plans)))
    backward = sum((factor[n] * p.backward[n] for n in LAYER_TERMS), np.zeros(len(plans)))
    again = sum((factor[n] * p.again[n] for n in LAYER_TERMS), np.zeros(len(plans)))
    gaps = practice.gap * p.launch / 3.0
    forward, backward = forward + gaps, backward + 2.0 * gaps
    device = forward + backward + again
    waits = practice.kernel * p.launch + practice.pace * p.messages
    host = soft_max(device, waits, practice.sharp) - device
    hops = np.where(plans.pipeline > 1, plans.interleave, 0)
    hop = practice.pipeline * p.hop * hops
    hidden = plans.overlaps("pipeline")
    f, b, w = idle_weights(plans.schedule, plans.pipeline, plans.interleave)
    late = np.maximum(p.transfer / p.micro - device - host, 0.0)  # s by which off-loaded states hold up a micro-batch
    steady = np.where(
        hidden, behind(hop, device + host + late), hop
    )  # the network is free while the host's link is not
    idle = f * (forward + host + late / 2.0) + b * (backward + again + late / 2.0) - w * factor["gemm"] * p.weights
    idle = np.maximum(idle, 0.0) + f * hop
    found = {n: p.micro * factor[n] * (p.forward[n] + p.backward[n]) for n in LAYER_TERMS}
    found["attention"] = found["attention"] + found.pop("fused") + found.pop("flash") + found.pop("narrow")
    found["vector"] = found["vector"] + found.pop("eager")
    found["recompute"] = p.micro * again
    found["head"] = p.micro * np.maximum(practice.head * p.head - p.spared * (device + host + late), 0.0)
    found["pipeline_comm"] = p.micro * steady
    found["host"] = p.micro * (host + 3.0 * gaps) + np.where(plans.overlaps("input"), 0.0, practice.iteration)
    found["bubble"] = idle
    found["data_comm"], found["weight_gather"] = _exposed(p, plans, practice, device + host + late)
    update = np.where(plans.offloads("optimizer"), 0.0, practice.optimizer * p.optimizer)
    beside = behind(update, practice.data * (p.reduce + p.gather))  # one piece moves while the next is added up
    found["optimizer"] = np.where(plans.overlaps("optimizer"), np.minimum(beside, update), update)
    found["offload"] = p.micro * late + p.host_step
    found["straggler"] = p.slowest * sum((found[n] for n in found), np.zeros(len(plans)))
    found = {name: found[name] for name in TERMS}
    found["total"] = sum(found.values(), np.zeros(len(plans)))
    return found


def _paired(p: Parts, plans: Plans, factor: Mapping[str, float]) -> Parts:
    """Returns the parts with DualPipe's messages to experts beside a pass of the other direction (DeepSeek-V3)."""
    dual = plans.schedule == DUALPIPE
    if not dual.any():
        return p
    both = {n: factor[n] * (p.forward[n] + p.backward[n]) for n in LAYER_TERMS}
    sent = both["expert_comm"]
    left = behind(sent, sum(both.values(), np.zeros(len(plans))) - sent)
    share = np.where(dual & (sent > 0), left / np.where(sent > 0, sent, 1.0), 1.0)
    forward, backward = ({**x, "expert_comm": x["expert_comm"] * share} for x in (p.forward, p.backward))
    return replace(p, forward=forward, backward=backward)


def _exposed(p: Parts, plans: Plans, practice: Practice, device: Array) -> tuple[Array, Array]:
    """Returns seconds of adding up gradients and of gathering weights that no computation hides."""
    reduce, gather = practice.data * p.reduce, practice.data * p.gather
    hidden, sharded = plans.overlaps("data"), plans.zero >= 2
    # Behind the last backward pass, layer by layer; of stages in pieces, behind the last round of all pieces but one,
    # and the gathering of weights behind the first (MegaScale, NSDI 2024); where each pass gathers anew, behind all.
    rounds = np.where(plans.interleave > 1, np.minimum(plans.pipeline, p.micro), 1.0)
    window = np.where(sharded, p.micro, rounds) * device
    pieces = np.where(sharded, p.micro, 1.0) * np.maximum(8.0, 2.0 * plans.interleave)
    all_ = reduce + gather
    left = all_ / pieces + behind(all_ * (1.0 - 1.0 / pieces), window)
    share = np.where(hidden & (all_ > 0), left / np.where(all_ > 0, all_, 1.0), 1.0)
    return reduce * share, gather * share


def _head(network: Network, job: Job, plans: Plans, system: System) -> Array:
    """Returns seconds of embedding and head of one micro-batch, forward and backward."""
    tokens = plans.micro_batch * (job.sequence / plans.context)
    columns, hidden = network.vocab / plans.tensor, np.full(len(plans), float(network.hidden))
    c = system.gemm(job.plain)
    time = np.zeros(len(plans))
    for a, b, d in ((tokens, columns, hidden), (tokens, hidden, columns), (columns, hidden, tokens)):
        time += gemm_time(a, b, d, job.plain, system.chip, c)
    rate = system.chip.bandwidth * system.stream.memory
    time += tokens * columns * (FUSED_HEAD * 3.0 * job.wide / rate) + tokens * (hidden * 6.0 * job.wide / rate)
    ones = np.ones_like(plans.tensor)
    time += 3.0 * spread_time("all_reduce", tokens * 4.0, plans.tensor, ones, system)
    return time + spread_time("all_reduce", tokens * (job.wide * network.hidden), plans.tensor, ones, system)


def _hop(network: Network, job: Job, plans: Plans, system: System) -> Array:
    """Returns seconds of one piece's messages of one micro-batch: activations on, gradients back."""
    first, inverse = distinct((plans.tensor, plans.context, plans.micro_batch, plans.sequence_parallel, plans.data,
                               plans.pipeline))  # fmt: skip
    few = plans.take(first)
    tokens = few.micro_batch * (job.sequence / few.context)
    whole = tokens * (job.wide * network.hidden)
    apart = few.tensor * few.context * few.data
    ones, two = np.ones_like(few.tensor), np.full_like(few.tensor, 2)

    def sent(size: Array) -> Array:
        near = spread_time("send", size, two, ones, system)
        far = spread_time("send", size, two, np.full_like(ones, system.node), system)
        return np.where(apart * few.pipeline <= system.node, near, far)

    # Tensor-parallel ranks hold equal copies, so each sends its share and the next node gathers, where that is faster
    # (Narayanan and others, SC 2021); with sequence parallelism each holds its share only.
    shares = sent(whole / few.tensor)
    gathered = shares + spread_time("all_gather", whole, few.tensor, ones, system)
    time = np.where(few.sequence_parallel == 1, shares, np.minimum(gathered, sent(whole)))
    return np.where(few.pipeline > 1, 2.0 * time, 0.0)[inverse]


def _copies(network: Network, job: Job, plans: Plans, system: System) -> tuple[Array, Array, Array]:
    """Returns seconds of gradients added up, weights gathered and the optimizer's step, of an iteration."""
    first, inverse = distinct((plans.tensor, plans.context, plans.data, plans.pipeline, plans.zero, plans.expert,
                               plans.expert_tensor, plans.micro_batch, plans.interleave))  # fmt: skip
    few = plans.take(first)
    ends, experts = stage_params(network, few)
    dense = np.maximum.reduce(ends)
    times = [np.zeros(len(few)) for _ in range(3)]
    # Gradients that no copy holds whole are added up after every micro-batch, weights gathered for every pass.
    micro = np.where(few.zero >= 2, few.micro_batches(job.batch), 1).astype(np.float64)
    # A piece of a stage works through a round of micro-batches before the next: it gathers and adds up once a round
    # (Llama 3).
    micro = np.where(few.interleave > 1, np.ceil(micro / few.pipeline), micro)
    dealt = expert_copies(few)
    for params, copies, stride in (
        (dense, (few.data * few.context).astype(np.int32), few.tensor),
        (experts, np.round(dealt).astype(np.int32), few.expert_tensor * few.expert),
    ):
        if not params.any():
            continue
        size, stored = params * job.sent, params * job.wide
        whole = spread_time("all_reduce", size, copies, stride, system)
        scatter = spread_time("reduce_scatter", size, copies, stride, system)
        gather = spread_time("all_gather", stored, copies, stride, system)
        times[0] += np.where(few.zero == 0, whole, scatter * micro)
        times[1] += np.where(few.zero == 0, 0.0, np.where(few.zero == 3, 2.0 * micro, 1.0) * gather)
        owned = params / np.where(few.zero > 0, copies, 1)
        times[2] += owned * (OPTIMIZER_BYTES / (system.chip.bandwidth * system.stream.memory))
    if network.tied:  # first and last stage add up the gradients of the embedding
        size = np.where(few.pipeline > 1, network.table_params / few.tensor * job.sent, 0.0)
        far = np.full_like(few.tensor, system.node)
        times[0] += spread_time("all_reduce", size, np.full_like(few.tensor, 2), far, system)
    return times[0][inverse], times[1][inverse], times[2][inverse]
