"""Peak memory of a training step on the fullest device, by what it is spent on.

Activations are counted tensor by tensor as Korthikanti and others do ("Reducing activation recomputation in large
transformer models", MLSys 2023): per layer of GPT and token 10h + 24h/t + 5as/t bytes, h hidden elements, a heads, s
tokens, t tensor-parallel ranks; sequence parallelism divides the 10h too, selective recompute and fused attention drop
the scores' 5as/t, full recompute keeps the layer's input alone. Experts are divided by the ranks that share them (ETP x
EP) and their optimizer's states by the copies of an expert, not of the model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost.training.groups import distinct
from fleetcast.cost.training.network import Job, Layer, Network
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.schedule import DUALPIPE, GPIPE, INTERLEAVED, ZERO_BUBBLE, in_flight
from fleetcast.cost.training.system import System

Array = NDArray[np.float64]
TERMS = ("weights", "gradients", "optimizer", "activations", "buffers", "reserve")
RESERVE = 2.0e9
"""B that driver, libraries and their communicators take before any tensor; assumed, read off A100s under PyTorch."""
LOGITS = 6.0
"""B for each logit: 2 of its own and 4 of its probability in fp32."""


def memory(network: Network, job: Job, plans: Plans, system: System) -> dict[str, Array]:
    """Returns bytes by term (``TERMS``), their ``total``, and what lies in ``host`` memory and on ``ssd``, per device.

    Of the first or the last stage, whichever is fuller. Arrays over plans.
    """
    weights, gradients, optimizer, whole = _states(network, job, plans)
    micro = plans.micro_batches(job.batch)
    kept, layer_set = _activations(network, job, plans)
    held = np.ceil(network.depth / plans.pipeline)
    first = in_flight(plans.schedule, plans.pipeline, plans.interleave, micro)
    last = _last_in_flight(plans, micro)
    tokens = plans.micro_batch * (job.sequence / plans.context)
    logits = tokens * (network.vocab * LOGITS) / plans.tensor
    working = np.where(plans.recompute == 2, layer_set, 0.0) + tokens * (4.0 * network.hidden)
    gathered = np.where(plans.zero == 3, whole, 0.0)
    off = {name: plans.offloads(name) for name in ("weights", "activations", "optimizer")}
    ends: list[dict[str, Array]] = []
    for i, flying in enumerate((first, last)):
        alone = plans.pipeline == 1
        activations = kept * held * (np.maximum(first, last) if i == 0 else flying)
        buffers = working + gathered + np.where(alone | (i == 1), logits, 0.0)
        ends.append({
            "weights": weights[i], "gradients": gradients[i], "optimizer": optimizer[i],
            "activations": activations if i else kept * held * flying, "buffers": buffers,
        })  # fmt: skip
    fuller = sum(ends[1].values()) > sum(ends[0].values())
    found = {name: np.where(fuller, ends[1][name], ends[0][name]) for name in ends[0]}
    moved = np.zeros(len(plans))
    for name, at in (("weights", off["weights"]), ("activations", off["activations"]), ("optimizer", off["optimizer"])):
        if at.any():
            left = {"weights": whole, "activations": 2.0 * kept, "optimizer": np.zeros(len(plans))}[name]
            gone = np.where(at, np.maximum(found[name] - left, 0.0), 0.0)
            found[name], moved = found[name] - gone, moved + gone
    if off["optimizer"].any():  # gradients leave as soon as they are made
        gone = np.where(off["optimizer"], np.maximum(found["gradients"] - whole, 0.0), 0.0)
        found["gradients"], moved = found["gradients"] - gone, moved + gone
    found["reserve"] = np.full(len(plans), RESERVE)
    found["total"] = sum((found[name] for name in TERMS), np.zeros(len(plans)))
    found["host"] = np.minimum(moved, system.host_memory) if system.ssd else moved
    found["ssd"] = moved - found["host"]
    return found


def fits(network: Network, job: Job, plans: Plans, system: System) -> NDArray[np.bool_]:
    """Returns which plans a device's memory and its host's hold."""
    found = memory(network, job, plans, system)
    return np.asarray((found["total"] <= system.memory) & (found["host"] <= system.host_memory))


def stage_params(network: Network, plans: Plans) -> tuple[tuple[Array, Array], Array]:
    """Returns parameters on a device of the (first, last) stage, experts aside, and experts' parameters on any."""
    t, held = plans.tensor.astype(np.float64), np.ceil(network.depth / plans.pipeline)
    split = sum(x.count * x.split_params for x in network.layers) / network.depth
    whole = sum(x.count * x.whole_params for x in network.layers) / network.depth
    dealt = sum(x.count * x.expert_params for x in network.layers) / network.depth
    dense = held * (split / t + whole)
    table, alone = network.table_params / t, plans.pipeline == 1
    copies = 1.0 if network.tied else 2.0
    first = dense + np.where(alone, copies * table + network.last_params, table) + network.first_params
    last = dense + np.where(alone, copies * table + network.first_params, table) + network.last_params
    return (first, last), held * dealt / (plans.expert_tensor * plans.expert)


def expert_copies(plans: Plans) -> Array:
    """Returns how many ranks of a stage hold the same experts: tensor x context x data / (ETP x EP)."""
    return np.maximum(plans.tensor * plans.context * plans.data / (plans.expert_tensor * plans.expert), 1.0)


def _states(
    network: Network, job: Job, plans: Plans
) -> tuple[tuple[Array, Array], tuple[Array, Array], tuple[Array, Array], Array]:
    """Returns B of weights, gradients and optimizer for (first, last) stage, and of two whole layers with gradients."""
    ends, experts = stage_params(network, plans)
    copies, dealt = (plans.data * plans.context).astype(np.float64), expert_copies(plans)
    wide = 4.0 if job.dtype == "fp32" else 2.0
    owned = []
    for stage in (3, 2, 1):
        shared = plans.zero >= stage
        owned.append(tuple(
            e / np.where(shared, copies, 1.0) + experts / np.where(shared, dealt, 1.0) for e in ends
        ))  # fmt: skip
    weights, gradients, optimizer = owned
    apart = job.optimizer - (4.0 if job.dtype == "fp32" else 0.0)  # fp32 weights are their own master copy
    held = np.ceil(network.depth / plans.pipeline)
    largest = max(x.split_params / 1.0 + x.expert_params for x in network.layers)
    per_layer = largest / np.where(largest > 0, plans.tensor, 1) if not network.experts else (ends[0] + experts) / held
    whole = np.minimum(held, 2.0) * per_layer * (wide + job.gradient / 2.0)
    return (
        (weights[0] * wide, weights[1] * wide),
        (gradients[0] * job.gradient, gradients[1] * job.gradient),
        (optimizer[0] * apart, optimizer[1] * apart),
        whole,
    )


def _last_in_flight(plans: Plans, micro: NDArray[np.int32]) -> Array:
    """Returns the micro-batches that the last stage holds, in whole stages."""
    p, v, kind = plans.pipeline, np.maximum(plans.interleave, 1), plans.schedule
    turns = np.where(v > 1, ((v - 1) * p + 1.0) / v, 1.0)
    held = np.where(kind == INTERLEAVED, np.minimum(turns, micro), 1.0)
    held = np.where(kind == GPIPE, micro, held)
    held = np.where(kind == ZERO_BUBBLE, np.minimum(p, micro), held)
    return np.where(kind == DUALPIPE, np.minimum(p + 1.0, 2.0 * micro), held).astype(np.float64)


def layer_activations(network: Network, layer: Layer, job: Job, plans: Plans) -> tuple[Array, Array]:
    """Returns B that one layer keeps of one micro-batch for its backward pass, and that it has before any recompute."""
    h, t = float(network.hidden), plans.tensor.astype(np.float64)
    tokens = plans.micro_batch * (job.sequence / plans.context)
    local = np.where(plans.sequence_parallel == 1, tokens / t, tokens)
    masks = 2.0 * h if layer.dropout else 0.0
    stream = (4.0 if layer.parallel else 8.0) * h + masks
    keys = np.ceil(layer.kv_heads / t)
    heads = np.ceil(layer.heads / t)
    inner = 2.0 * heads * (layer.head_dim + layer.value_dim) + 2.0 * keys * (layer.head_dim + layer.value_dim)
    wide = 6.0 if layer.gated else 4.0
    inner = inner + wide * layer.ffn / t
    if layer.experts:
        rows = layer.top_k * plans.expert_tensor / t
        inner = inner + rows * (2.0 * h) + wide * layer.top_k * layer.expert_ffn / t
    span = min(job.sequence, layer.window) if layer.window else job.sequence
    scores = heads * (5.0 if layer.dropout else 2.0) * span
    scores = np.where(plans.fused == 1, 4.0 * heads, scores)
    whole = local * stream + tokens * (inner + scores)
    kept = np.where(
        plans.recompute == 1, local * stream + tokens * (inner + np.where(plans.fused == 1, scores, 0.0)), whole
    )
    return np.where(plans.recompute == 2, local * (2.0 * h), kept), whole


def _activations(network: Network, job: Job, plans: Plans) -> tuple[Array, Array]:
    """Returns B that the mean layer keeps of one micro-batch, and that the largest holds before any recompute."""
    first, inverse = distinct(
        (plans.tensor, plans.context, plans.micro_batch, plans.sequence_parallel, plans.recompute, plans.fused,
         plans.expert_tensor)
    )  # fmt: skip
    few = plans.take(first)
    kept, largest = np.zeros(len(few)), np.zeros(len(few))
    for layer in network.layers:
        keeps, whole = layer_activations(network, layer, job, few)
        kept += keeps * (layer.count / network.depth)
        largest = np.maximum(largest, whole)
    return kept[inverse], largest[inverse]
