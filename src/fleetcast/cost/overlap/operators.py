"""The operators of one layer on one device, each with its time alone and what it asks of the device's resources.

A layer is a chain: products into attention, attention (decode and prefill side by side), its output product, an
all-reduce, the feed-forward products, experts, an all-reduce. Three streams run it: "compute" (products, experts,
prefill attention and the element-wise kernels around them), "memory" (decode attention) and "network" (collectives).
Every time is that of `cost.layers`, so one batch's operators add up to the layer's time without overlap.

A demand is the share of a resource that an operator takes while it runs alone; 1 is what the device's own kernels of
that kind reach at best (their fitted roof), not the data sheet's figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fleetcast.cost import attention as att
from fleetcast.cost.gemm import Gemm
from fleetcast.cost.layers import Array, Rank, Terms, block_attention, block_terms, kernel_format, products
from fleetcast.cost.roofline import Stream, format_of, peak
from fleetcast.scenario.workload.blocks import Block

STREAMS = ("compute", "memory", "network")
COMPUTE, MEMORY, NETWORK = range(3)


@dataclass(frozen=True)
class Batch:
    """What one iteration, or one nano-batch of it, holds.

    Attributes:
        tokens: that pass the products.
        decodes: sequences that decode.
        context: tokens they attend to, together.
        prefills: sequences that prefill.
        pairs: (new token, attended token) pairs of the prefills.
        reach: tokens of context of the prefills, cached and new.
    """

    tokens: float
    decodes: float = 0.0
    context: float = 0.0
    prefills: float = 0.0
    pairs: float = 0.0
    reach: float = 0.0

    def part(self, share: float) -> Batch:
        """Returns a nano-batch that holds ``share`` of everything."""
        return Batch(
            self.tokens * share, self.decodes * share, self.context * share, self.prefills * share,
            self.pairs * share, self.reach * share,
        )  # fmt: skip


@dataclass(frozen=True)
class Operator:
    """One operator on one batch.

    Attributes:
        name: what it is, e.g. "qkv".
        stream: index into ``STREAMS``: where it is queued.
        time: s, alone on the device.
        demand: share of compute, memory bandwidth and network taken while alone, each 0 to 1.
        stage: place in the layer's chain; it needs every operator of the batch with a smaller one.
    """

    name: str
    stream: int
    time: float
    demand: tuple[float, float, float]
    stage: int


def layer_operators(rank: Rank, index: int, batches: Sequence[Batch], scale: float = 1.0) -> list[tuple[Operator, ...]]:
    """Returns the operators of block ``index`` for each batch, in the order of their stages.

    Args:
        rank: the device and what it holds.
        index: of the model's block.
        batches: what is processed, each by itself.
        scale: time of the engine's products and element-wise kernels, relative to those measured.
    """
    block = rank.model.blocks[index]
    tokens = np.array([b.tokens for b in batches], dtype=np.float64)
    terms = block_terms(rank, index, tokens)
    columns = [*_dense(rank, index, tokens, terms, scale)]
    columns[1:1] = _attention(rank, block, batches)
    found = []
    for i in range(len(batches)):
        rows = []
        for name, stream, stage, time, demand in columns:
            seconds = float(time[i])
            if seconds > 0.0:
                compute, memory, network = (min(1.0, float(d[i]) / seconds) for d in demand)
                rows.append(Operator(name, stream, seconds, (compute, memory, network), stage))
        found.append(tuple(rows))
    return found


Column = tuple[str, int, int, Array, tuple[Array, Array, Array]]
"""Name, stream, stage, seconds per batch, and the seconds that each resource alone would need for it."""


def _dense(rank: Rank, index: int, tokens: Array, terms: Terms, scale: float) -> list[Column]:
    """Returns every operator but attention; what `block_terms` adds up is divided, nothing is left out."""
    model, block = rank.model, rank.model.blocks[index]
    zero = np.zeros_like(tokens)
    seconds = {name: zero.copy() for name in ("qkv", "out", "up", "down")}
    compute = {name: zero.copy() for name in seconds}
    memory = {name: zero.copy() for name in seconds}
    for n, k, part, split in products(rank, {t.name: t for t in model.tensors[index]}):
        forward = part in ("ffn", "shared", "router")
        name = ("down" if split else "up") if forward else ("out" if split else "qkv")
        dtype = kernel_format(rank.precision, part)
        c, form = rank.fitted.get("gemm", dtype, Gemm), format_of(dtype)
        seconds[name] += rank.product(tokens, n, k, part)
        compute[name] += tokens * (2.0 * n * k / (peak(rank.chip, dtype) * c.compute))
        moved = n * k * form.weight + tokens * (k * form.activation + 2.0 * n)
        memory[name] += moved / (rank.chip.bandwidth * c.memory)
    # element-wise kernels run on the same stream: one norm before the feed-forward part, its gate, the rest before
    norm = rank.pass_over(tokens, 4.0 * model.hidden)
    width = block.ffn.shared_width if block.ffn.experts else block.ffn.width
    gate = rank.pass_over(tokens, 3.0 * width / rank.tp) if width else zero
    c_stream = rank.fitted.get("stream", "any", Stream)
    for name, passes in (("qkv", terms.stream - norm - gate), ("up", norm), ("down", gate)):
        seconds[name] = (seconds[name] + passes) * scale
        memory[name] += np.maximum(passes - c_stream.launch, 0.0)
    seconds["out"] = seconds["out"] * scale
    last = rank.reduce(tokens)
    rows: list[Column] = [
        ("qkv", COMPUTE, 0, seconds["qkv"], (compute["qkv"], memory["qkv"], zero)),
        ("out", COMPUTE, 2, seconds["out"], (compute["out"], memory["out"], zero)),
        ("reduce attention", NETWORK, 3, terms.reduce - last, _wire(rank, tokens, terms.reduce - last)),
        ("up", COMPUTE, 4, seconds["up"], (compute["up"], memory["up"], zero)),
        ("down", COMPUTE, 5, seconds["down"], (compute["down"], memory["down"], zero)),
    ]
    if block.ffn.experts:
        time = terms.experts * scale
        read = terms.expert_weights / rank.chip.bandwidth
        rows.append(("experts", COMPUTE, 6, time, (time, np.minimum(read, time), zero)))
    rows.append(("reduce feed-forward", NETWORK, 7, last, _wire(rank, tokens, last)))
    return rows


def _wire(rank: Rank, tokens: Array, time: Array) -> tuple[Array, Array, Array]:
    """Returns what an all-reduce asks for: the links while it runs, memory for what it reads and writes."""
    moved = tokens * (2.0 * rank.model.hidden) * 4.0  # each half of it reads and writes the buffer once
    return np.zeros_like(time), moved / rank.chip.bandwidth, time


def _attention(rank: Rank, block: Block, batches: Sequence[Batch]) -> list[Column]:
    """Returns decode attention (with the state of recurrent layers) and prefill attention of each batch."""
    n, context, prefills, pairs, reach = (
        np.array([getattr(b, name) for b in batches], dtype=np.float64)
        for name in ("decodes", "context", "prefills", "pairs", "reach")
    )
    zero = np.zeros_like(n)
    decode, read, multiply, prefill, work = (zero.copy() for _ in range(5))
    if block.recurrence is not None:
        state = n * (2.0 * block.recurrence.state_bytes(rank.tp) / rank.chip.bandwidth)
        decode, read = decode + state, read + state
    a = block.attention
    if a is not None and block.stack != "encoder":
        t = block_attention(rank, a)
        slope = t.get("slope_full", 0.0) + t.get("slope_window", 0.0)
        seen = np.minimum(context, n * a.window) if a.window else context
        affine = np.where(n > 0, t["base"] + slope * seen, 0.0)
        decode += np.maximum(np.where(n > 0, t["launch"] + t["head"] * n, 0.0), affine)
        latent = "latent_" if a.kind == "mla" and "latent_decode" in rank.fitted.tables else ""
        c = rank.fitted.get(f"{latent}decode", rank.kv_dtype, att.Decode)
        read += seen * (t["kv_read"] / (rank.chip.bandwidth * c.memory))
        multiply += seen * (t["flops_pair"] / (peak(rank.chip, "bf16") * c.compute))
        fresh = np.where(prefills > 0, np.array([b.tokens for b in batches]) - n, 0.0)
        work = t["pre_pair"] * pairs
        prefill = t["pre_base"] * prefills + work + t["pre_query"] * fresh + t["pre_context"] * reach
    rows: list[Column] = [
        ("attention decode", MEMORY, 1, decode, (multiply, read, zero)),
        ("attention prefill", COMPUTE, 1, prefill, (work, prefill - work, zero)),
    ]
    return rows
