"""What one iteration of a serving replica costs, condensed to tables: the bridge from kernels to the serving world.

`step_cost` walks the blocks of a model once, times every operator on the token grid and adds up. The world reads the
result (`StepCost`) and nothing else, so it knows no model and no device. Everything is per replica, over all layers.

What a table cannot see: which layers a pipeline stage holds (stages share by ``stage_share``), and contention
between replicas of one node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from fleetcast.cost.clocks import clocked
from fleetcast.cost.collectives import Fabric, fabric_for, nested_time
from fleetcast.cost.energy import (
    Rates,
    limited_time,
)
from fleetcast.cost.engine import Engine
from fleetcast.cost.layers import Kernels, Rank, attention_terms, block_terms, launches
from fleetcast.cost.overlap.nano import DOUBT, NOTE, Nano, doubt, optimal, overlapped, refuse
from fleetcast.cost.overlap.schedule import gain_spread
from fleetcast.cost.placement import balance_notes
from fleetcast.cost.roofline import Coefficients, coefficients_for
from fleetcast.scenario.fleet.tree import Group
from fleetcast.scenario.workload.blocks import Block
from fleetcast.scenario.workload.loads import ExpertLoad
from fleetcast.scenario.workload.models import Layout, Model
from fleetcast.scenario.workload.precision import Precision

Array = NDArray[np.float64]

EXACT, STRIDE, LARGEST = 1024, 64, 16_384
GRID: Array = np.concatenate([np.arange(EXACT + 1), np.arange(EXACT + STRIDE, LARGEST + 1, STRIDE)]).astype(np.float64)
"""Token counts of the tables: every one to 1,024, then one in 64; the world reads linearly between and beyond."""
WHOLE = 1 << 60
"""Tokens from which an iteration is cut into nano-batches, where none is."""
SAMPLING_LAUNCH = 20e-6
"""s: the chain of small kernels that turns logits into tokens (argmax, gather, copy), read off traces."""


@dataclass(frozen=True)
class StepCost:
    """Time and work of an iteration as tables over tokens (``GRID``) or sequences, and scalars.

    Attributes:
        tables: ``dense`` (rank's tokens), ``experts`` (replica's tokens), ``head`` (tokens that come out), ``hop``
            (between stages), all s over ``GRID``; ``floor``, ``base``, ``slope`` of decode attention over sequences,
            and the same as ``cut_floor``, ... in iterations cut into nano-batches.
        scalars: prefill attention, windows, host, pipeline and memory numbers, see `sim.serving.kernel.Costs`.
        parts: what ``dense`` and ``experts`` consist of, s over ``GRID``: gemm, memory-bound, communication, experts.
        work: per device and iteration: FLOP and bytes of weights over ``GRID``, per token, pair and context token.
        api: s per request in TTFT and E2E, outside the engine's loop; ``api_token`` s more per prompt token.
        devices: devices of a replica.
        spread: standard deviation of log(time) that the kernels' fit leaves.
        notes: what was transferred from other devices.
        overlap: how iterations are cut into nano-batches; None = not at all.
        rank: the device these are the costs of, for searches that look into a layer.
        doubt: standard deviations of log(time to first token) and log(time per token) that what is assumed leaves: the
            acceptance of drafts, what nano-batches gain from sharing a device.
        apart: drafters have devices of their own, which are not among ``devices``.
    """

    tables: Mapping[str, Array]
    scalars: Mapping[str, Any]
    parts: Mapping[str, Array]
    work: Mapping[str, Any]
    api: float
    api_token: float
    devices: int
    spread: float
    notes: tuple[str, ...] = field(default=())
    overlap: Nano | None = None
    rank: Rank | None = field(default=None, repr=False, compare=False)
    apart: bool = False
    doubt: tuple[float, float] = (0.0, 0.0)


def step_cost(
    model: Model, layout: Layout, precision: Precision, kv_dtype: str, group: Group, engine: Engine,
    max_batch: int, kv_blocks: int, clock: float = 1.0, shared: dict[Any, Any] | None = None,
    nano: Nano | None = None, queries: float = 1.0, load: ExpertLoad | None = None, placement: str = "contiguous",
) -> StepCost:  # fmt: skip
    """Returns what an iteration costs.

    Args:
        model: architecture.
        layout: how a replica is spread.
        precision: dtypes of the weights as served.
        kv_dtype: dtype of the cache.
        group: devices and links.
        engine: profile with host constants.
        max_batch: most sequences of a lane.
        kv_blocks: KV blocks of a lane.
        clock: share of the devices' top clock; a power limit may lower it further.
        shared: keeps what depends on the layout alone, for callers that cost many batches of one layout.
        nano: nano-batches that overlap inside the device; the tables without are exactly those of None.
        queries: tokens that a decoding sequence checks at once.
        load: how the router spreads tokens over experts; the tables without are exactly those of None.
        placement: of the experts on expert-parallel ranks; means nothing without a load.

    Raises:
        Infeasible: nano-batches where what they do is not modelled.
    """
    choice = Kernels(layout.tensor_parallel in engine.nccl_ranks, tuple(sorted(engine.stand_in.items())))
    key = (id(model), layout, precision, kv_dtype, id(group), clock, choice, queries, id(load), placement)
    shared = {} if shared is None else shared
    if key not in shared:  # what the key has the ids of is kept beside the result, so that nothing else takes them
        rank = (model, layout, precision, kv_dtype, group, clock, choice, queries, load, placement)
        shared[key] = (model, group, load, _built(*rank))
    choices, notes, spread = shared[key][-1]
    kernels = choices[0]
    n = np.arange(max_batch + 1, dtype=np.float64)
    host = engine.host_on(group.device.id, group.device.fitted.host if group.device.fitted is not None else None)
    pp = layout.pipeline_parallel
    parts, head, attention = _scaled(kernels["parts"], host.kernels), kernels["tables"]["head"], kernels["attention"]
    if group.limit < group.device.power.max:
        parts, head, attention = _within_limit(choices, host.kernels, group.limit)
    slope = attention["slope_full"] + attention["slope_window"]
    full_share = attention["slope_full"] / slope if slope > 0 else 1.0
    tables = kernels["tables"] | {
        "dense": np.where(GRID > 0, parts["gemm"] + parts["memory-bound"] + parts["dense_communication"], 0.0),
        "experts": parts["experts"] + parts["communication"] - parts["dense_communication"],
        "head": np.where(GRID > 0, head + host.gap, 0.0),
        "floor": np.where(n > 0, attention["launch"] + attention["head"] * n, 0.0),
        "base": np.where(n > 0, attention["base"] + attention["state"] * n, 0.0),
        "slope": np.where(n > 0, slope, 0.0),
    }
    doubted = 0.0
    if nano is not None:
        refuse(kernels["rank"], group.limit, group.device.power.max)
        # rounded up, which charges no less, so that batches of one layout share what the schedules take
        most, room = 1 << (max_batch - 1).bit_length(), 2 ** (np.ceil(8 * np.log2(kv_blocks * engine.block)) / 8)
        cut = (*key, nano, host.kernels, most, room)
        if cut not in shared:
            shared[cut] = (
                overlapped(kernels["rank"], nano, GRID, tables, attention, most, room, host.kernels),
                doubt(kernels["rank"], nano, most, room, host.kernels),
            )
        found, doubted = shared[cut]
        tables |= {k: v if k == "dense" else v[: max_batch + 1] for k, v in found.items()}
        notes = (*notes, NOTE, DOUBT.format(spread=gain_spread(), doubt=doubted))
    block_bytes = engine.block * attention["kv_bytes"] / pp  # a stage holds its own layers' cache
    scalars = {
        "full_share": full_share, "window_share": 1.0 - full_share, "window": attention["window"],
        "pre_base": attention["pre_base"], "pre_pair": attention["pre_pair"],
        "pre_query": attention["pre_query"], "pre_context": attention["pre_context"],
        "host_step": host.step, "host_seq": host.seq, "host_token": host.token, "overlap": engine.overlap,
        "lag": engine.overlap,
        "eager": host.eager * launches(model) / pp, "graph_tokens": engine.graph_tokens,
        "graph_prefill": engine.graph_prefill,
        "stages": pp, "stage_share": -(-model.layers // pp) / model.layers, "ranks": layout.attention_dp,
        "capacity": kv_blocks, "block": engine.block, "watermark": int(engine.watermark * kv_blocks),
        "swap_block": block_bytes / kernels["host_bandwidth"],
        "cut": WHOLE if nano is None else nano.least,
        "layer_share": 1.0 / model.layers,
        "unit": 1, "growth": 1, "width": 1, "ahead": 0,  # a token a call; `cost.drafted` makes it more
    }  # fmt: skip
    return StepCost(
        tables=tables, scalars=scalars, parts=parts, work=kernels["work"] | {"block_bytes": block_bytes}, api=host.api,
        api_token=host.api_token, devices=layout.tensor_parallel * pp * layout.attention_dp, spread=spread, notes=notes,
        overlap=nano, rank=kernels["rank"], doubt=(doubted, doubted),
    )  # fmt: skip


def _scaled(parts: Mapping[str, Array], share: float) -> dict[str, Array]:
    """Returns the parts with an engine's own speed of products and element-wise kernels."""
    return {name: part * share if name in ("gemm", "memory-bound", "experts") else part for name, part in parts.items()}


def _within_limit(
    choices: Sequence[Mapping[str, Any]], scale: float, limit: float
) -> tuple[dict[str, Array], Array, dict[str, Any]]:
    """Returns parts, head and attention of a device that draws at most ``limit`` W.

    Each entry is done at the clock that does it soonest: work bound by memory loses nothing by a lower one. ``choices``
    holds what `_build` found at each, the highest first; ``scale`` is the engine's, see `_scaled`.
    """
    best: dict[str, Any] = {}
    for kernels in choices:
        parts, load, attention = _scaled(kernels["parts"], scale), kernels["load"], kernels["attention"]
        rates = kernels["work"]["rates"]
        read, fed = rates.weights, rates.product
        pair, context = rates.attention * attention["flops_pair"], rates.cache * attention["kv_read"]
        found = {
            "gemm": limited_time(
                parts["gemm"], fed * load["dense_flops"], read * load["dense_bytes"], rates, limit,
                parts["memory-bound"] + parts["dense_communication"],
            ),
            "experts": limited_time(
                parts["experts"], fed * load["expert_flops"], read * load["expert_bytes"], rates, limit
            ),
            "head": limited_time(
                kernels["tables"]["head"], fed * load["head_flops"], read * load["head_bytes"], rates, limit
            ),
            "slope": limited_time(attention["slope_full"] + attention["slope_window"], pair, context, rates, limit),
            "pre_pair": limited_time(attention["pre_pair"], pair, 0.0, rates, limit),
            "pre_query": limited_time(attention["pre_query"], 0.0, 0.0, rates, limit),
            "pre_context": limited_time(attention["pre_context"], 0.0, context, rates, limit),
        }  # fmt: skip
        best = {name: np.minimum(best.get(name, np.inf), time) for name, time in found.items()}
    attention = choices[0]["attention"]
    longer = float(best["slope"]) / (attention["slope_full"] + attention["slope_window"] or 1.0)
    parts = _scaled(choices[0]["parts"], scale) | {"gemm": best["gemm"], "experts": best["experts"]}
    return parts, best["head"], attention | {
        "slope_full": attention["slope_full"] * longer, "slope_window": attention["slope_window"] * longer,
        "pre_pair": float(best["pre_pair"]), "pre_query": float(best["pre_query"]),
        "pre_context": float(best["pre_context"]),
    }  # fmt: skip


def _built(
    model: Model,
    layout: Layout,
    precision: Precision,
    kv_dtype: str,
    group: Group,
    clock: float,
    choice: Kernels,
    queries: float,
    load: ExpertLoad | None,
    placement: str,
) -> tuple[list[dict[str, Any]], tuple[str, ...], float]:
    """Returns what `_build` finds at each clock the device may run at, notes, and the spread of the kernels' fit."""
    device = group.device
    fitted = coefficients_for(device)
    clocks, clock_note = clocked(group, precision.multiplied("ffn"), fitted, clock)
    inner, outer = (
        _fabric(device.id, link.kind, link.bandwidth, link.latency, link.peers)
        if link.fitted is None
        else fabric_for(device.id, link.kind, link.bandwidth, own=structs.asdict(link.fitted))
        for link in (group.link, group.network)
    )
    found = [
        _build(Rank(
            model=model, layout=layout, precision=precision, kv_dtype=kv_dtype, chip=chip, fitted=fitted,
            inner=inner, outer=outer, per_node=group.node, kernels=choice, queries=queries,
            load=load, placement=placement,
        ), group, rates)
        for chip, rates in clocks
    ]  # fmt: skip
    notes = transfers(model, device.id, fitted) + clock_note
    if layout.tensor_parallel > 1 and inner.kind_of != "measured":
        notes += (f"collectives of {device.id} over {group.link.id} are modelled ({inner.kind_of})",)
    if layout.attention_dp > 1 and not any(b.ffn.experts or _latent(b) for b in model.blocks):
        notes += (
            "attention data parallelism of a dense model: engines offer it with experts or latent attention only",
        )
    if load is not None:
        notes += balance_notes(load, layout.expert_parallel, placement)
    timed = used_families(model) - {"stream", "draw"}  # small, and no time at all
    spread = max((p.spread for name, p in fitted.provenance.items() if name in timed), default=0.3)
    return found, notes, spread


def _build(rank: Rank, group: Group, rates: Rates) -> dict[str, Any]:
    """Returns tables, parts, work, loads and attention of one device of a replica."""
    model, layout, device, inner, outer = rank.model, rank.layout, group.device, rank.inner, rank.outer
    gemm, stream, comm, experts, expert_comm = (np.zeros_like(GRID) for _ in range(5))
    expert_bytes = np.zeros_like(GRID)
    dense_bytes = 0.0
    for index, count in enumerate(model.counts):
        terms = block_terms(rank, index, GRID)
        gemm += count * terms.gemm
        stream += count * terms.stream
        comm += count * terms.reduce
        experts += count * terms.experts
        expert_comm += count * terms.dispatch
        dense_bytes += count * terms.weights
        expert_bytes += count * terms.expert_weights
    hidden_bytes = model.hidden * 2.0
    comm += rank.reduce(GRID)  # the embedding, split over the vocabulary
    head, head_bytes = rank.head(GRID)
    span = layout.tensor_parallel * layout.attention_dp
    hop_fabric = inner if span * 2 <= group.node else outer
    hop = nested_time("send", GRID * hidden_bytes / layout.tensor_parallel, 2, 2, hop_fabric, hop_fabric)
    attention = attention_terms(rank)
    comm[0] = 0.0
    parts = {
        "gemm": gemm, "memory-bound": stream, "communication": comm + expert_comm, "experts": experts,
        "dense_communication": comm,
    }  # fmt: skip
    flops = rank.flops()
    stages, some = layout.pipeline_parallel, GRID > 0
    # what the device of one stage would do on all layers: joules beside the tables' seconds
    load = {
        "dense_flops": GRID * ((flops["token"] - flops["experts"]) * stages),
        "dense_bytes": np.where(some, dense_bytes, 0.0),
        "expert_flops": GRID * (flops["experts"] * stages / layout.attention_dp), "expert_bytes": expert_bytes,
        "head_flops": GRID * (flops["head"] * stages), "head_bytes": np.where(some, head_bytes, 0.0),
    }  # fmt: skip
    work = {
        "flops_token": flops["token"], "flops_head": flops["head"], "flops_pair": attention["flops_pair"],
        "weight_bytes": load["dense_bytes"] + expert_bytes, "head_bytes": head_bytes,
        "kv_bytes": attention["kv_read"], "link_bytes_token": rank.link_bytes(),
        "peak": rank.peak(), "bandwidth": device.bandwidth,
        "rates": rates, "optimal": optimal(rank),
    }  # fmt: skip
    host_link = _host_bandwidth(device.host_link)
    return {
        "tables": {
            "head": np.where(GRID > 0, head + SAMPLING_LAUNCH, 0.0), "hop": hop,
        },
        "parts": parts, "work": work, "load": load, "attention": attention, "host_bandwidth": host_link,
        "rank": rank,
    }  # fmt: skip


def _latent(block: Block) -> bool:
    return block.attention is not None and block.attention.kind == "mla"


FAMILIES = {
    "gemm": "matrix products", "stream": "element-wise kernels", "moe": "experts", "decode": "decode attention",
    "prefill": "prefill attention", "latent_decode": "latent decode attention",
    "latent_prefill": "latent prefill attention", "draw": "power",
}  # fmt: skip


def used_families(model: Model) -> set[str]:
    """Returns the kernel families that a model runs."""
    kinds = {b.attention.kind for b in model.blocks if b.attention is not None}
    unused = {"moe"} if not any(b.ffn.experts for b in model.blocks) else set()
    unused |= set() if "mla" in kinds else {"latent_decode", "latent_prefill"}
    unused |= set() if "gqa" in kinds else {"decode", "prefill"}
    return set(FAMILIES) - unused


def transfers(model: Model, device: str, fitted: Coefficients) -> tuple[str, ...]:
    """Returns a sentence per origin for what was not measured on the device, of the kernels this model runs."""
    used = used_families(model)
    origins: dict[tuple[str, str], list[str]] = {}
    for family, p in fitted.provenance.items():
        if p.kind != "measured" and family in used:
            origins.setdefault((p.origin, p.kind), []).append(FAMILIES[family])
    return tuple(
        f"not measured on {device}, taken from {origin} ({kind}): {', '.join(names)}"
        for (origin, kind), names in origins.items()
    )


@lru_cache(maxsize=256)
def _fabric(device: str, kind: str, bandwidth: float, latency: float, peers: int) -> Fabric:
    return fabric_for(device, kind, bandwidth, latency, peers)


@lru_cache(maxsize=64)
def _host_bandwidth(link_id: str) -> float:
    from fleetcast.scenario.fleet.catalog import link

    return float(link(link_id).bandwidth)
