"""What one iteration of a serving replica costs, condensed to tables: the bridge from kernels to the serving world.

`step_cost` walks the blocks of a model once, times every operator on the token grid and adds up. The world reads the
result (`StepCost`) and nothing else, so it knows no model and no device. Everything is per replica, over all layers.

What a table cannot see: which layers a pipeline stage holds (stages share by ``stage_share``), and contention
between replicas of one node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost.collectives import Fabric, fabric_for, nested_time
from fleetcast.cost.energy import (
    ClockCurve,
    Draw,
    Rates,
    capped_clock,
    downclock,
    downclock_rates,
    rates_of,
    voltage_curve,
)
from fleetcast.cost.engine import Engine
from fleetcast.cost.layers import Kernels, Rank, attention_terms, block_terms, launches
from fleetcast.cost.roofline import Coefficients, Silicon, coefficients_for
from fleetcast.scenario.fleet.devices import Device
from fleetcast.scenario.fleet.tree import Group
from fleetcast.scenario.workload.models import Layout, Model
from fleetcast.scenario.workload.precision import Precision

Array = NDArray[np.float64]

EXACT, STRIDE, LARGEST = 1024, 64, 16_384
GRID: Array = np.concatenate([np.arange(EXACT + 1), np.arange(EXACT + STRIDE, LARGEST + 1, STRIDE)]).astype(np.float64)
"""Token counts of the tables: every one to 1,024, then one in 64; the world reads linearly between and beyond."""
SAMPLING_LAUNCH = 20e-6
"""s: the chain of small kernels that turns logits into tokens (argmax, gather, copy), read off traces."""


@dataclass(frozen=True)
class StepCost:
    """Time and work of an iteration as tables over tokens (``GRID``) or sequences, and scalars.

    Attributes:
        tables: ``dense`` (rank's tokens), ``experts`` (replica's tokens), ``head`` (tokens that come out), ``hop``
            (between stages), all s over ``GRID``; ``floor``, ``base``, ``slope`` of decode attention over sequences.
        scalars: prefill attention, windows, host, pipeline and memory numbers, see `sim.serving.kernel.Costs`.
        parts: what ``dense`` and ``experts`` consist of, s over ``GRID``: gemm, memory-bound, communication, experts.
        work: per device and iteration: FLOP and bytes of weights over ``GRID``, per token, pair and context token.
        api: s per request in TTFT and E2E, outside the engine's loop; ``api_token`` s more per prompt token.
        devices: devices of a replica.
        spread: standard deviation of log(time) that the kernels' fit leaves.
        notes: what was transferred from other devices.
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


def step_cost(
    model: Model, layout: Layout, precision: Precision, kv_dtype: str, group: Group, engine: Engine,
    max_batch: int, kv_blocks: int, clock: float = 1.0, shared: dict[Any, Any] | None = None,
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
    """
    choice = Kernels(layout.tensor_parallel in engine.nccl_ranks, tuple(sorted(engine.stand_in.items())))
    key = (id(model), layout, precision, kv_dtype, id(group), clock, choice)
    shared = {} if shared is None else shared
    if key not in shared:  # model and group are kept beside the result, so that no other object takes their ids
        shared[key] = (model, group, _build(model, layout, precision, kv_dtype, group, clock, choice))
    kernels, notes, spread = shared[key][2]
    n = np.arange(max_batch + 1, dtype=np.float64)
    host = engine.host_on(group.device.id)
    pp = layout.pipeline_parallel
    attention = kernels["attention"]
    slope = attention["slope_full"] + attention["slope_window"]
    full_share = attention["slope_full"] / slope if slope > 0 else 1.0
    parts, plain = _scaled(kernels["parts"], host.kernels), kernels["tables"]
    tables = plain | {
        "dense": np.where(GRID > 0, parts["gemm"] + parts["memory-bound"] + parts["dense_communication"], 0.0),
        "experts": parts["experts"] + parts["communication"] - parts["dense_communication"],
        "head": np.where(GRID > 0, plain["head"] + host.gap, 0.0),
        "floor": np.where(n > 0, attention["launch"] + attention["head"] * n, 0.0),
        "base": np.where(n > 0, attention["base"] + attention["state"] * n, 0.0),
        "slope": np.where(n > 0, slope, 0.0),
    }
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
    }  # fmt: skip
    return StepCost(
        tables=tables, scalars=scalars, parts=parts, work=kernels["work"], api=host.api,
        api_token=host.api_token, devices=layout.tensor_parallel * pp * layout.attention_dp, spread=spread, notes=notes,
    )  # fmt: skip


def _scaled(parts: Mapping[str, Array], share: float) -> dict[str, Array]:
    """Returns the parts with an engine's own speed of products and element-wise kernels."""
    return {name: part * share if name in ("gemm", "memory-bound", "experts") else part for name, part in parts.items()}


def _build(
    model: Model, layout: Layout, precision: Precision, kv_dtype: str, group: Group, clock: float, choice: Kernels
) -> tuple[dict[str, Any], tuple[str, ...], float]:
    device = group.device
    fitted = coefficients_for(device)
    chip, rates, clock_note = clocked(group, precision.multiplied("ffn"), fitted, clock)
    inner = _fabric(device.id, group.link.kind, group.link.bandwidth, group.link.latency)
    outer = _fabric(device.id, group.network.kind, group.network.bandwidth, group.network.latency)
    rank = Rank(
        model=model, layout=layout, precision=precision, kv_dtype=kv_dtype, chip=chip, fitted=fitted,
        inner=inner, outer=outer, per_node=group.node, kernels=choice,
    )  # fmt: skip
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
    work = {
        "flops_token": flops["token"], "flops_head": flops["head"], "flops_pair": attention["flops_pair"],
        "weight_bytes": np.where(GRID > 0, dense_bytes, 0.0) + expert_bytes, "head_bytes": head_bytes,
        "kv_bytes": attention["kv_read"], "link_bytes_token": rank.link_bytes(),
        "peak": rank.peak(), "bandwidth": device.bandwidth,
        "rates": rates,
    }  # fmt: skip
    host_link = _host_bandwidth(device.host_link)
    result = {
        "tables": {
            "head": np.where(GRID > 0, head + SAMPLING_LAUNCH, 0.0), "hop": hop,
        },
        "parts": parts, "work": work, "attention": attention, "host_bandwidth": host_link,
    }  # fmt: skip
    notes = transfers(model, device.id, fitted)
    notes += clock_note
    if layout.tensor_parallel > 1 and inner.kind_of != "measured":
        notes += (f"collectives of {device.id} over {group.link.id} are modelled ({inner.kind_of})",)
    timed = used_families(model) - {"stream", "draw"}  # small, and no time at all
    spread = max((p.spread for name, p in fitted.provenance.items() if name in timed), default=0.3)
    return result, notes, spread


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


def clocked(group: Group, dtype: str, fitted: Coefficients, clock: float) -> tuple[Silicon, Rates, tuple[str, ...]]:
    """Returns a group's device as it runs: silicon, power coefficients, and a note where it is slowed.

    Args:
        group: device and power limit.
        dtype: number format of the products.
        fitted: the device's coefficients.
        clock: share of the top clock that the plan asks for; a power limit below the board's may lower it.
    """
    device = group.device
    rates = rates_of(device, device.power.max, dtype, fitted.get("draw", "any", Draw))
    limited = group.limit < device.power.max
    if clock >= 1.0 and not limited:
        return device, rates, ()
    curve, kind = clock_curve(device)
    share = min(clock, capped_clock(group.limit, rates, curve)) if limited else clock
    share = max(share, float(curve.clock[0]))  # the curve ends there: nothing is known below
    if share >= 1.0:
        return device, rates, ()
    note = f"clock of {device.id} at {share:.0%} of the top: times and energy by a {kind} curve"
    if limited:
        note += f"; above the limit of {group.limit:.0f} W energy is cut off, memory-bound work is not slowed"
    return downclock(device, share, curve), downclock_rates(rates, share, curve), (note,)


def clock_curve(device: Device) -> tuple[ClockCurve, str]:
    """Returns how a device's power and rate follow its clock, and whether that was measured or is modelled."""
    if not device.power.curve:
        return voltage_curve(), "modelled"
    from fleetcast.scenario.fleet.catalog import curves

    known = curves()[device.power.curve]
    top = known.points[-1].clock
    columns = [[p.clock / top, p.power, p.rate] for p in known.points]
    clock, power, rate = (np.array(c) for c in zip(*columns, strict=True))
    return ClockCurve(clock, power, rate), known.kind


@lru_cache(maxsize=256)
def _fabric(device: str, kind: str, bandwidth: float, latency: float) -> Fabric:
    return fabric_for(device, kind, bandwidth, latency)


@lru_cache(maxsize=64)
def _host_bandwidth(link_id: str) -> float:
    from fleetcast.scenario.fleet.catalog import link

    return float(link(link_id).bandwidth)
