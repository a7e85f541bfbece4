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

from fleetcast.cost.roofline import format_of
from fleetcast.cost.training.groups import Index, distinct
from fleetcast.cost.training.network import Job, Layer, Network
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.schedule import DUALPIPE, in_flight, last_in_flight, light_ends
from fleetcast.cost.training.system import System

Array = NDArray[np.float64]
TERMS = ("weights", "gradients", "optimizer", "activations", "buffers", "reserve")
RESERVE = 1.4e9
"""B that driver, libraries and their communicators take before any tensor; assumed: more refuses plans that ran,
Llama 3's on 8,192 H100s first."""
LOGITS = 3.0
"""Elements of memory for each logit: its own, and a probability of twice the width."""


def memory(network: Network, job: Job, plans: Plans, system: System) -> dict[str, Array]:
    """Returns bytes by term (``TERMS``), their ``total``, and what lies in ``host`` memory and on ``ssd``, per device.

    Of the first, the last or, where those hold a layer less, the second stage, whichever is fullest; off the device of
    the one that moves most. Arrays over plans.
    """
    row, states, gone, pair, grown = _states(network, job, plans)
    kept, whole, logits, stream = _activations(network, job, plans)
    ends = range(len(states))
    flying = _flying(network, plans, job)
    activations, moved = [kept * n for n in flying], [gone[end].take(row) for end in ends]
    away = plans.offloads("activations")
    if away.any():  # two layers' stay, those at work and those on their way
        for end in ends:
            beyond = np.where(away, np.maximum(activations[end] - 2.0 * kept, 0.0), 0.0)
            activations[end] -= beyond
            moved[end] += beyond
    # A layer's pass back has its gathered weights, and gradients that grow while its activations shrink.
    gathered = (plans.zero == 3) & (plans.data * plans.context > 1)
    work = np.where(plans.recompute == 2, whole, 0.0) + np.where(gathered, pair + np.maximum(grown - whole, 0.0), 0.0)
    rounds = (plans.zero >= 2) & (plans.interleave > 1) & (plans.data * plans.context > 1)
    if rounds.any():
        # Gradients of the piece at work, added up once a round, grow while its activations shrink; under ZeRO 3 its
        # weights and the next one's are there as long.
        held, experts = stage_params(network, plans)
        others = np.maximum.reduce(held) * (1.0 - 1.0 / (plans.data * plans.context))
        others = others + experts * (1.0 - 1.0 / expert_copies(plans))
        more = job.gradient * others - kept * np.ceil(network.depth / plans.pipeline)
        more = np.maximum(more, 0.0) + np.where(plans.zero == 3, 2.0 * job.wide * others, 0.0)
        work = np.where(rounds, np.maximum(work, more / plans.interleave), work)
    closing = np.maximum(logits, work) + stream
    early = np.where(plans.pipeline == 1, closing, work + stream)
    # A pass back ends with a new gradient of the table, before it is added up: of a tied one two uses' and their sum.
    fresh = np.where(network.tied & (plans.pipeline == 1), 3.0, 1.0) * (job.wide * network.table_params) / plans.tensor
    beside = (early, closing, early)
    busy = [np.maximum(activations[end] + beside[end], fresh) for end in ends]
    whole_states = states.sum(axis=1)
    fullest = np.zeros(len(plans), dtype=np.intp)
    most_of, held_by, busiest = whole_states[0].take(row) + busy[0], activations[0], busy[0]
    for end in ends[1:]:
        size = whole_states[end].take(row) + busy[end]
        fuller = (size > most_of) & (plans.pipeline > 1)
        most_of, fullest = np.where(fuller, size, most_of), np.where(fuller, end, fullest)
        held_by, busiest = np.where(fuller, activations[end], held_by), np.where(fuller, busy[end], busiest)
    at = row + fullest * states.shape[2]
    found = {name: states[:, i].ravel().take(at) for i, name in enumerate(TERMS[:3])}
    found["activations"] = held_by
    found["buffers"] = busiest - held_by
    found["reserve"] = np.full(len(plans), RESERVE)
    total = found["weights"] + RESERVE
    for name in TERMS[1:5]:
        total += found[name]
    found["total"] = total
    most = moved[0]
    for end in ends[1:]:
        most = np.maximum(most, np.where(plans.pipeline > 1, moved[end], 0.0))
    found["host"] = np.minimum(most, system.host_memory) if system.ssd else most
    found["ssd"] = most - found["host"]
    return found


def fits(network: Network, job: Job, plans: Plans, system: System) -> NDArray[np.bool_]:
    """Returns which plans a device's memory, its host's and their disks hold."""
    found = memory(network, job, plans, system)
    held = (found["total"] <= system.memory) & (found["host"] <= system.host_memory)
    return np.asarray(held & (found["ssd"] <= system.ssd_memory))


def stage_params(network: Network, plans: Plans) -> tuple[tuple[Array, Array, Array], Array]:
    """Returns parameters on a device of the (first, last, second) stage, experts aside, and experts' on the fullest."""
    t, held = plans.tensor.astype(np.float64), np.ceil(network.depth / plans.pipeline)
    light = light_ends(network.depth, plans.pipeline, plans.interleave)
    dealt = np.zeros(len(plans))
    for x in network.layers:
        if x.experts:
            share = np.ceil(x.experts / plans.expert) / x.experts / plans.expert_tensor
            dealt = dealt + x.count / network.depth * x.expert_params * share
    split = sum(x.count * x.split_params for x in network.layers) / network.depth
    whole = sum(x.count * x.whole_params for x in network.layers) / network.depth
    each = split / t + whole
    dense = held * each
    table, alone = network.table_params / t, plans.pipeline == 1
    both = (1.0 if network.tied else 2.0) * table + network.first_params + network.last_params
    first = dense - light[0] * each + np.where(alone, both, table + network.first_params)
    last = dense - light[1] * each + np.where(alone, both, table + network.last_params)
    return (first, last, dense), held * dealt


def expert_copies(plans: Plans) -> Array:
    """Returns how many ranks of a stage hold the same experts: tensor x context x data / (ETP x EP)."""
    return np.maximum(plans.tensor * plans.context * plans.data / (plans.expert_tensor * plans.expert), 1.0)


def _states(network: Network, job: Job, plans: Plans) -> tuple[Index, Array, Array, Array, Array]:
    """Returns the row of each plan in the states, the states, what of them is off-loaded, and what ZeRO 3 gathers (B).

    States are (first, last or second stage; weights, gradients or optimizer; row); DualPipe's stages hold the weights
    of two. Gathered are the weights of the layer at work and of the next, or of the embedding, and the gradients of one
    layer; as much stays of weights and gradients that are off-loaded.
    """
    index, inverse = distinct(
        (plans.tensor, plans.pipeline, plans.data, plans.context, plans.expert, plans.expert_tensor, plans.zero,
         plans.schedule, plans.offload, plans.interleave)
    )  # fmt: skip
    few = plans.take(index)
    ends, experts = stage_params(network, few)
    stages = range(3 if light_ends(network.depth, few.pipeline, few.interleave)[0].any() else 2)
    copies, dealt = (few.data * few.context).astype(np.float64), expert_copies(few)
    wide = job.wide
    apart = job.optimizer - (4.0 if job.dtype == "fp32" else 0.0)  # fp32 weights are their own master copy
    twice = np.where(few.schedule == DUALPIPE, 2.0, 1.0)
    states = np.empty((len(stages), 3, len(few)))
    sizes: tuple[Array, ...] = (wide * twice, job.gradient * twice, np.full(len(few), apart))
    for i, size in enumerate(sizes):
        shared = few.zero >= 3 - i
        for end in stages:
            dense = ends[end] / np.where(shared, copies, 1.0)
            states[end, i] = size * (dense + experts / np.where(shared, dealt, 1.0))
    held = np.ceil(network.depth / few.pipeline)
    largest = np.zeros(len(few))
    for x in network.layers:
        share = np.ceil(x.experts / few.expert) / max(x.experts, 1) / few.expert_tensor
        largest = np.maximum(largest, x.split_params / few.tensor + x.whole_params + x.expert_params * share)
    following = np.where(held > 1, largest, network.table_params / few.tensor)
    pair = wide * (largest + following)
    gone = np.zeros((len(stages), len(few)))
    for i, name, left in ((0, "weights", pair), (1, "optimizer", pair), (2, "optimizer", 0.0)):
        beyond = np.where(few.offloads(name), np.maximum(states[:, i] - left, 0.0), 0.0)
        states[:, i] -= beyond
        gone += beyond
    return inverse, states, gone, pair.take(inverse), (wide * largest).take(inverse)


def _flying(network: Network, plans: Plans, job: Job) -> list[Array]:
    """Returns the layers whose activations the first, the last and the second stage hold, over all micro-batches."""
    index, inverse = distinct((plans.schedule, plans.pipeline, plans.interleave, plans.data, plans.micro_batch))
    few = plans.take(index)
    how = (few.schedule, few.pipeline, few.interleave, few.micro_batches(job.batch))
    held, light = np.ceil(network.depth / few.pipeline), light_ends(network.depth, few.pipeline, few.interleave)
    ends = ((held - light[0]) * in_flight(*how), (held - light[1]) * last_in_flight(*how), held * in_flight(*how, 1))
    return [end.take(inverse) for end in ends]


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
    narrow = 1.0 if format_of(job.dtype).quantised else 0.0  # products keep what they read as wide as they read it
    if narrow:
        stream, wide = stream - (1.0 if layer.parallel else 2.0) * h, wide - 1.0
        inner = inner + heads * layer.value_dim  # attention keeps what it wrote, besides
    inner = inner + wide * layer.ffn / t
    if layer.experts:
        rows = layer.top_k * plans.expert_tensor / t
        inner = inner + rows * ((2.0 - narrow) * h) + wide * layer.top_k * layer.expert_ffn / t
    span = min(job.sequence, layer.window) if layer.window else job.sequence
    scores = heads * (5.0 if layer.dropout else 2.0) * span
    scores = np.where(plans.fused == 1, 4.0 * heads, scores)
    whole = local * stream + tokens * (inner + scores)
    spared = np.where((plans.recompute == 1) & (plans.fused == 0), tokens * scores, 0.0)
    kept = np.where(plans.recompute == 2, local * (2.0 * h), whole - spared)
    return kept * (job.kept / 2.0), whole * (job.kept / 2.0)


def kept_activations(network: Network, job: Job, plans: Plans) -> Array:
    """Returns B that the mean layer keeps of one micro-batch for its backward pass."""
    return _activations(network, job, plans)[0]


def _activations(network: Network, job: Job, plans: Plans) -> tuple[Array, Array, Array, Array]:
    """Returns B of one micro-batch: what the mean layer keeps, what the largest has, the logits, and the stream.

    The stream and its gradient; where it is split along the sequence, what two products gather of it as well.
    """
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
    tokens = few.micro_batch * (job.sequence / few.context)
    logits = tokens * (network.vocab * LOGITS * job.kept) / few.tensor
    split = (few.sequence_parallel == 1) & (few.tensor > 1)
    local = np.where(split, tokens / few.tensor, tokens)
    stream = local * (2.0 * job.kept * network.hidden) + np.where(
        split, tokens * (2.0 * job.wide * network.hidden), 0.0
    )
    return kept.take(inverse), largest.take(inverse), logits.take(inverse), stream.take(inverse)
