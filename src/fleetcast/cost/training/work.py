"""What one layer takes for one micro-batch on one device: seconds of its kernels and messages, forward and backward.

Times of products come from the curves that were measured for serving (`cost.gemm`): forward, the gradient of the input
and that of the weight are three products of their own shape. Element-wise kernels are counted in bytes: what a kernel
reads and writes, at 2 bytes an element (4 in fp32) and 1 byte of a dropout mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost.attention import prefill_pair, prefill_token
from fleetcast.cost.collectives import Fabric, nested_time
from fleetcast.cost.gemm import gemm_time
from fleetcast.cost.roofline import format_of, peak
from fleetcast.cost.training.network import Job, Layer, Network
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.system import System

Array = NDArray[np.float64]
TERMS = (
    "gemm",
    "attention",
    "fused",
    "flash",
    "narrow",
    "vector",
    "eager",
    "tensor_comm",
    "context_comm",
    "expert_comm",
)
FUSED_BACKWARD = 2.8
"""Backward over forward time of fused attention: 5 products for 2, at 0.9 of the rate (FlashAttention-2, recalled)."""
CHUNKS = 4
"""Pieces in which messages of tensor parallelism hide behind products: the first or last has nothing to hide behind."""
CONTENTION = 1.1256
"""How much longer work takes while messages run beside it, and they (Galvatron's overlap coefficient, measured)."""
CAST = 4.0
"""B that an element moves on its way to 8 bits: read in 16, written once as it is and once transposed, for the product
that makes gradients of weights; its scale is that of earlier steps (Micikevicius and others, arXiv 2209.05433)."""
UNFUSED = (84.0, 136.0), (10.0, 18.0)
"""B that PyTorch's own kernels move for an element of the stream and of a gated activation, forward and backward: an
RMSNorm is eight kernels in fp32, a gate's product one by itself; rotations move twice what copies do (counted)."""
KERNELS = {"forward": 18, "backward": 34, "fused": 6}
"""Kernels that a GPT layer launches in Megatron's code, counted; fused attention saves some of them each way."""


@dataclass(frozen=True)
class Work:
    """Seconds per micro-batch of all layers that one stage holds, by term; arrays over plans.

    Attributes:
        forward, backward: once each.
        again: forward passes that the backward pass repeats.
        weights: the part of ``backward`` that makes gradients of weights.
        kernels: kernels launched, and ``messages`` collectives started, forward and backward and again.
    """

    forward: dict[str, Array]
    backward: dict[str, Array]
    again: dict[str, Array]
    weights: Array
    kernels: Array
    messages: Array


def layer_work(network: Network, job: Job, plans: Plans, system: System) -> Work:
    """Returns the mean layer's work per micro-batch, each kind of layer by its share of the depth."""
    total: Work | None = None
    for layer in network.layers:
        part = _layer(network, layer, job, plans, system, layer.count / network.depth)
        total = part if total is None else _add(total, part)
    assert total is not None
    return total


def _add(a: Work, b: Work) -> Work:
    forward, backward, again = (
        {k: x[k] + y[k] for k in TERMS}
        for x, y in ((a.forward, b.forward), (a.backward, b.backward), (a.again, b.again))
    )
    return Work(
        forward, backward, again, a.weights + b.weights, a.kernels + b.kernels, a.messages + b.messages
    )  # fmt: skip


def _layer(network: Network, layer: Layer, job: Job, plans: Plans, system: System, share: float) -> Work:
    t, c = plans.tensor.astype(np.float64), plans.context.astype(np.float64)
    tokens = plans.micro_batch * (job.sequence / c)
    local = np.where(plans.sequence_parallel == 1, tokens / t, tokens)  # of norms and dropout
    fore = dict.fromkeys(TERMS, np.zeros(len(plans)))
    back, again = dict(fore), dict(fore)
    fore["gemm"], inputs, weights, last = _products(network, layer, job, plans, system, tokens)
    back["gemm"] = inputs + weights
    pytorch, fused = plans.eager, plans.fused == 1
    ahead, after = _attention(layer, job, plans, system, tokens)
    wide = np.full(len(plans), layer.head_dim > 64)
    for name, taken in (
        ("narrow", fused & ~wide), ("fused", fused & wide & pytorch), ("flash", fused & wide & ~pytorch),
        ("attention", ~fused),
    ):  # fmt: skip
        fore[name], back[name] = np.where(taken, ahead, 0.0), np.where(taken, after, 0.0)
    passes, passes_back = _vector(network, layer, job, plans, system, tokens, local)
    for name, taken in (("eager", pytorch), ("vector", ~pytorch)):
        fore[name], back[name] = np.where(taken, passes, 0.0), np.where(taken, passes_back, 0.0)
    reduce, gather = tensor_messages(network, job, plans, system, tokens)
    times = 1.0 if layer.parallel else 2.0
    cut = np.where(plans.overlaps("tensor"), 1.0 / CHUNKS, 1.0)
    # What sequence parallelism scattered is gathered once more for the gradients of weights, beside those of inputs.
    more = np.where(plans.sequence_parallel == 1, times * gather, 0.0)
    beside = np.where(plans.overlaps("tensor"), back["gemm"], inputs)
    for part, late, room in ((fore, 0.0, fore["gemm"]), (back, more, beside)):
        part["tensor_comm"] = times * reduce * cut + behind(times * reduce * (1.0 - cut) + late, room)
    ring = _ring(layer, job, plans, system, tokens)
    fore["context_comm"] = np.maximum(ring - ahead, 0.0)
    back["context_comm"] = np.maximum(2.0 * ring - after, 0.0)
    dealt = _dealt(network, layer, job, plans, system, tokens)
    fore["expert_comm"], back["expert_comm"] = dealt, dealt
    full, selective = plans.recompute == 2, plans.recompute == 1
    for name in TERMS:
        again[name] = np.where(full, fore[name], 0.0)
    # PyTorch's own checkpoints stop once the last kept tensor is back, before the last product; Megatron's do not.
    again["gemm"] = np.where(full & pytorch, fore["gemm"] - last, again["gemm"])
    again["attention"] = again["attention"] + np.where(selective, fore["attention"], 0.0)
    saved = np.where(plans.fused == 1, KERNELS["fused"], 0)
    spare = 10.0 if layer.experts else 0.0
    forward = KERNELS["forward"] + spare - saved
    odd = np.where((plans.fused == 0) & ((plans.micro_batch * np.ceil(layer.heads / t)) % 4 != 0), 7.0, 0.0)
    launched = (forward + odd) * (1.0 + full) + KERNELS["backward"] + 2.0 * spare - saved + odd
    messages = np.log2(t) * np.where(t > 1, (1.0 if layer.parallel else 2.0) * (2.0 + full), 0.0)
    messages = messages + np.where((plans.expert > 1) & bool(layer.experts), 2.0 * (2.0 + full), 0.0)
    fore, back, again = ({k: v * share for k, v in part.items()} for part in (fore, back, again))
    return Work(fore, back, again, weights * share, launched * share, messages * share)


def _products(
    network: Network, layer: Layer, job: Job, plans: Plans, system: System, tokens: Array
) -> tuple[Array, Array, Array, Array]:
    """Returns seconds of the dense and expert products: forward, gradients of inputs and weights; the last one's."""
    c, t = system.gemm(job.dtype), plans.tensor.astype(np.float64)
    sums, rate = [np.zeros(len(plans)) for _ in range(3)], system.chip.bandwidth * system.stream.memory
    last = np.zeros(len(plans))
    byte_wide = format_of(job.dtype).quantised
    eight = system.practice.eight if byte_wide else 1.0

    def add(rows: Array, n: Array, k: Array, count: Array | float = 1.0) -> None:
        for i, (a, b, d) in enumerate(((rows, n, k), (rows, k, n), (n, k, rows))):
            sums[i] = sums[i] + count * eight * gemm_time(a, b, d, job.dtype, system.chip, c, quantise=False)
        if byte_wide:  # inputs before the pass forward, gradients before the one back
            weights = np.where(plans.zero >= 2, n * k, 0.0)  # those gathered anew; others are cast once an iteration
            sums[0] = sums[0] + count * (rows * k + weights) * (CAST / rate)
            sums[1] = sums[1] + count * rows * n * (CAST / rate)

    for m in layer.matrices:
        n, k = np.full(len(plans), m.outputs), np.full(len(plans), m.inputs)
        rows = tokens if m.split else np.where(plans.sequence_parallel == 1, tokens / t, tokens)
        n, k = n / t if m.split == "out" else n, k / t if m.split == "in" else k
        add(rows, n, k)
        last = eight * gemm_time(rows, n, k, job.dtype, system.chip, c, quantise=False)
    if layer.experts:
        shared, ep = plans.expert_tensor.astype(np.float64), plans.expert.astype(np.float64)
        held = np.ceil(layer.experts / ep)
        rows = tokens * layer.top_k * shared / t / held
        wide = np.full(len(plans), float(layer.expert_ffn)) / shared
        hidden = np.full(len(plans), float(network.hidden))
        add(rows, wide * (layer.expert_matrices - 1), hidden, held)
        add(rows, hidden, wide, held)
        last = held * eight * gemm_time(rows, hidden, wide, job.dtype, system.chip, c, quantise=False)
    return sums[0], sums[1], sums[2], last


def _attention(layer: Layer, job: Job, plans: Plans, system: System, tokens: Array) -> tuple[Array, Array]:
    """Returns seconds of attention forward and backward; without fusion, of its passes over the scores too."""
    zero = np.zeros(len(plans))
    if not layer.heads:
        return zero, zero
    t = plans.tensor.astype(np.float64)
    heads, keys = np.ceil(layer.heads / t), np.ceil(layer.kv_heads / t)
    span = min(job.sequence, layer.window) if layer.window else job.sequence
    wide = (layer.head_dim + layer.value_dim) / 2.0
    seen = span / 2.0 if span == job.sequence else span - span * span / (2.0 * job.sequence)
    c = system.prefill
    slower = peak(system.chip, "bf16") / peak(system.chip, job.plain)  # the curves are those of 16 bits
    fused = c.launch + prefill_pair(heads, wide, system.chip, c) * (tokens * seen * slower)
    rows = prefill_token(heads, wide, system.chip, c) + prefill_token(keys, wide, system.chip, c)
    fused = fused + rows * (tokens * (job.wide / 2.0))
    rows, g = tokens * heads, system.gemm(job.plain)
    plain = gemm_time(rows, job.sequence, layer.head_dim, job.plain, system.chip, g) + gemm_time(
        rows, layer.value_dim, job.sequence, job.plain, system.chip, g
    )
    pairs, rate = rows * job.sequence, system.chip.bandwidth * system.stream.memory
    mask = 5.0 if layer.dropout else 0.0
    is_fused = plans.fused == 1
    forward = np.where(is_fused, fused, plain + pairs * ((2.0 * job.wide + mask) / rate))
    return forward, np.where(is_fused, FUSED_BACKWARD * fused, 2.0 * plain + pairs * ((3.0 * job.wide + mask) / rate))


def _vector(
    network: Network, layer: Layer, job: Job, plans: Plans, system: System, tokens: Array, local: Array
) -> tuple[Array, Array]:
    """Returns seconds of norms, residuals, dropout, activations and copies, forward and backward."""
    t, h = plans.tensor.astype(np.float64), float(network.hidden)
    rate = system.chip.bandwidth * system.stream.memory
    norms = (22.0, 42.0) if layer.dropout else (20.0, 38.0)
    shared = plans.expert_tensor.astype(np.float64)
    inner = layer.ffn / t + (layer.expert_ffn * layer.top_k / t if layer.experts else 0.0)
    acts = (6.0, 10.0) if layer.gated else (4.0, 6.0)
    bare = plans.eager & layer.gated
    copies = np.where(bare, 2.0, 1.0) * (8.0 * layer.heads * layer.head_dim + 8.0 * layer.kv_heads * layer.head_dim) / t
    moved = 6.0 * layer.top_k * h * shared / t if layer.experts else 0.0  # rows dealt to experts and back
    times = []
    for norm, act, bare_norm, bare_act in zip(norms, acts, *UNFUSED, strict=True):
        first, then = np.where(bare, bare_norm, norm), np.where(bare, bare_act, act)
        size = local * (first * h) + tokens * (then * inner + copies + moved)
        times.append(size * (job.wide / 2.0) / rate)
    return times[0], times[1]


def behind(messages: Array, work: Array) -> Array:
    """Returns seconds that ``messages`` add to ``work`` they hide behind: what is longer, and what sharing costs."""
    return np.asarray(np.maximum(messages - work, 0.0) + (CONTENTION - 1.0) * np.minimum(messages, work))


def tensor_messages(network: Network, job: Job, plans: Plans, system: System, tokens: Array) -> tuple[Array, Array]:
    """Returns seconds of adding up one residual stream, and of gathering one that is split along the sequence."""
    size, ones = tokens * (job.wide * network.hidden), np.ones_like(plans.tensor)
    gathers = (plans.sequence_parallel == 1) | (plans.tensor_messages == 1)
    whole = spread_time("all_reduce", size, plans.tensor, ones, system)
    gather = spread_time("all_gather", size, plans.tensor, ones, system)
    scatter = spread_time("reduce_scatter", size, plans.tensor, ones, system)
    return np.where(gathers, gather + scatter, whole), gather


def _ring(layer: Layer, job: Job, plans: Plans, system: System, tokens: Array) -> Array:
    """Returns seconds in which the keys and values of a sequence travel around the context-parallel ranks."""
    c = plans.context.astype(np.float64)
    held = np.ceil(layer.kv_heads / plans.tensor) * (layer.head_dim + layer.value_dim) * job.wide
    ring = spread_time("all_gather", tokens * held * c, plans.context, plans.tensor, system)
    return ring if layer.heads else np.zeros_like(tokens)


def _dealt(network: Network, layer: Layer, job: Job, plans: Plans, system: System, tokens: Array) -> Array:
    """Returns seconds in which tokens go to their experts and come back."""
    if not layer.experts:
        return np.zeros_like(tokens)
    size = tokens / plans.tensor * (job.wide * network.hidden * layer.top_k)
    return 2.0 * spread_time("all_to_all", size, plans.expert, plans.expert_tensor, system)


def spread_time(
    operation: str, size: Array, ranks: NDArray[np.int32], stride: NDArray[np.int32], system: System
) -> Array:
    """Returns seconds of a collective, arrays over plans.

    Args:
        operation: as `cost.collectives.OPERATIONS`.
        size: B of the full buffer of a rank.
        ranks: that take part.
        stride: devices from one rank to the next: so many groups of them share each node.
        system: node size and links.
    """
    found = np.zeros(len(size))
    pairs = ranks.astype(np.int64) * (1 << 32) + stride
    for pair in np.unique(pairs[ranks > 1]):
        n, apart = int(pair >> 32), int(pair & 0xFFFFFFFF)
        rows = pairs == pair
        near = max(1, min(n, system.node // apart))
        found[rows] = group_time(operation, size[rows], n, near, system.inner, system.outer)
    return found


def group_time(operation: str, size: Array, ranks: int, near: int, inner: Fabric, outer: Fabric) -> Array:
    """Returns seconds of a collective of ``ranks``, ``near`` of them in each node."""
    return nested_time(operation, size, ranks, near, inner, outer)
