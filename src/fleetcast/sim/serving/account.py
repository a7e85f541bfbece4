"""From what the hot loop counted to time, work, energy, money and carbon: sums over tables, nothing simulated.

The loop counts iterations by their tokens; a dot product with a table gives that term's seconds or bytes exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fleetcast.cost.step import StepCost
from fleetcast.scenario.fleet.signals import Signal, intensity
from fleetcast.scenario.fleet.tree import Group
from fleetcast.sim.serving.provision import peak_of
from fleetcast.sim.serving.setting import Server

JOULES_PER_KWH = 3.6e6
DRAWING = ("busy", "flops", "bytes", "cache_bytes", "attention_flops")
"""What a device's draw depends on, of `work_done`."""


def time_terms(cost: StepCost, report: Mapping[str, Any]) -> dict[str, float]:
    """Returns seconds of one replica by term; they add up to the time its loop was busy.

    With pipeline stages or attention-DP ranks the terms are those of one lane after the other, with nano-batches those
    of one operator after the other; "overlap" is what running them side by side saved, a negative number. Of decode
    attention under nano-batches "attention" holds what it adds, so what is hidden of it is in neither. "draft" is what
    drafters on the same devices take, or the wait for those that have their own.
    """
    hist, rank, head = (np.asarray(report[k]) for k in ("hist", "hist_rank", "hist_head"))
    parts, sums = cost.parts, report["sums"]
    dense_comm = parts["dense_communication"]
    moe_comm = parts["communication"] - dense_comm
    gemm = float(rank @ parts["gemm"])
    stream = float(rank @ parts["memory-bound"])
    comm = float(rank @ dense_comm + hist @ moe_comm)
    experts = float(hist @ parts["experts"])
    head_time = float(head @ cost.tables["head"])
    hops = float(rank @ cost.tables["hop"]) * (cost.scalars["stages"] - 1)
    terms = {
        "gemm": gemm, "elementwise": stream, "experts": experts, "attention": float(sums[5]), "communication": comm,
        "head": head_time, "pipeline": hops, "host": float(sums[6]), "swap": float(sums[7]),
    }  # fmt: skip
    if "draft" in cost.tables:
        terms["attention"] -= float(sums[8])
        terms["draft"] = float(sums[8])
    rest = float(report["busy"]) - sum(terms.values())
    lanes = cost.scalars["stages"] * cost.scalars["ranks"]
    if lanes > 1 or cost.overlap is not None:
        terms["overlap"] = rest
    return terms


def work_done(cost: StepCost, report: Mapping[str, Any], output_tokens: int, requests: int) -> dict[str, float]:
    """Returns FLOP, bytes of memory, link traffic and busy seconds of one device of a replica.

    What starts with ``draft_`` is of a device that drafts apart.

    Args:
        cost: of the replica.
        report: what the loop counted.
        output_tokens: tokens that came out of this replica; of drafts, those it checked.
        requests: served by it; the first token of each comes out of its prefill.
    """
    work, sums, scalars = cost.work, report["sums"], cost.scalars
    stages = scalars["stages"]
    queries = work.get("queries", 1.0)
    decode_context = scalars["full_share"] * sums[0] + scalars["window_share"] * sums[1]
    tokens = (sums[4] + output_tokens - requests) / scalars["ranks"]
    flops = tokens * work["flops_token"] + output_tokens / scalars["ranks"] * work["flops_head"]
    attention = (sums[2] + queries * decode_context) / scalars["ranks"] / stages * work["flops_pair"]
    weights = float(np.asarray(report["hist"]) @ work["weight_bytes"])
    weights += float(np.sum(report["hist_head"])) * work["head_bytes"]
    cache = (decode_context + sums[3]) * work["kv_bytes"] / scalars["ranks"]
    drafted = dict.fromkeys(("busy", "flops", "bytes", "cache_bytes"), 0.0)
    if "draft_flops" in work:  # the drafter's passes: one sequence's FLOP a call, its weights an iteration
        prefilled = sums[4] / scalars["ranks"]
        drafted = {
            "busy": float(np.asarray(report["hist_head"]) @ work["draft_time"]) / scalars["ranks"]
            + prefilled * work["draft_prompt"]
            if cost.apart
            else 0.0,
            "flops": (output_tokens - requests) / queries / scalars["ranks"] * work["draft_flops"]
            + prefilled * work.get("draft_prompt_flops", 0.0),
            "bytes": float(report["iterations"]) * work["draft_bytes"],
            "cache_bytes": decode_context / scalars["ranks"] * work["draft_kv"],
        }
        if not cost.apart:
            flops, weights, cache = flops + drafted["flops"], weights + drafted["bytes"], cache + drafted["cache_bytes"]
    return {
        "flops": float(flops), "attention_flops": float(attention), "bytes": weights / stages,
        "cache_bytes": float(cache) / stages, "link": float(tokens) * work["link_bytes_token"],
        "busy": max(0.0, float(report["busy"]) - float(sums[6]) - float(sums[7])),
    } | {f"draft_{name}": float(value) if cost.apart else 0.0 for name, value in drafted.items()}  # fmt: skip


def of_optimal(servers: Sequence[Server], tokens: int, span: float) -> float:
    """Returns prompt and output tokens per second over the most that the devices' products alone allow.

    Args:
        servers: one per replica.
        tokens: processed by all of them.
        span: s from first arrival to last finish.
    """
    most = float(sum(s.cost.work["optimal"] * s.cost.devices for s in servers))
    return tokens / span / most


Gone = Sequence[Sequence[tuple[float, float]]]
"""Per replica the times (start, end), s, at which its devices are not there: neither paid nor powered."""


def energy_terms(
    servers: Sequence[Server], work: Sequence[Mapping[str, float]], span: float, pue: float, gone: Gone = ()
) -> dict[str, float]:
    """Returns joules of all allocated devices over ``span`` s by term, the facility's share included.

    Idle power is drawn all the time; what kernels draw above it is capped at the most that the device draws at its
    clock. A lower limit of the fleet has lengthened the times themselves (`cost.step`), so that little is left for it
    to cut here.

    Args:
        servers: one per replica.
        work: of one device of each replica, from `work_done`.
        span: s from first arrival to last finish.
        pue: facility power over device power.
        gone: outages within the span in which devices draw nothing; empty = none.
    """
    terms = dict.fromkeys(("idle", "busy", "compute", "memory", "attention"), 0.0)
    for server, done, away in zip(servers, work, gone or [()] * len(servers), strict=True):
        parts = [("", server.group, server.cost)]
        if server.drafters is not None:
            parts.append(("draft_", server.drafters.group, server.drafters.cost))
        for (name, group, cost), (_, count) in zip(parts, server.takes, strict=True):
            there = span - (sum(b - a for a, b in away) if group is server.group else 0.0)
            _draw(terms, {k: done.get(f"{name}{k}", 0.0) for k in DRAWING}, group, cost, there, count)
    facility = (pue - 1.0) * sum(terms.values())
    return terms | ({"facility": facility} if facility else {})


def _draw(
    terms: dict[str, float], done: Mapping[str, float], group: Group, cost: StepCost, span: float, count: int
) -> None:
    """Adds the joules of ``count`` devices of a group that were on for ``span`` s and each have ``done`` so much."""
    idle, rates = group.device.power.idle, cost.work["rates"]
    above = {
        "busy": max(0.0, rates.busy - idle) * done["busy"],
        "compute": rates.product * done["flops"],
        "memory": rates.weights * done["bytes"],
        "attention": rates.attention * done["attention_flops"] + rates.cache * done["cache_bytes"],
    }
    room = max(0.0, peak_of(group, cost) - idle) * done["busy"]
    drawn = sum(above.values())
    scale = min(1.0, room / drawn) if drawn > 0 else 1.0
    terms["idle"] += idle * span * count
    for name, joules in above.items():
        terms[name] += joules * scale * count


def money(servers: Sequence[Server], start: float, end: float, gone: Gone = ()) -> float | None:
    """Returns dollars for all allocated devices from ``start`` to ``end`` s, or None where a device has no price.

    A price that changes is integrated over the time in which it is paid.
    """
    total = 0.0
    for server, away in zip(servers, gone or [()] * len(servers), strict=True):
        for group, count in server.takes:
            if group.prices is None:
                return None
            total += group.prices.mean(start, end) * count * (end - start) / 3600.0
            if group is server.group:
                total -= sum(group.prices.mean(a, b) * (b - a) for a, b in away) * count / 3600.0
    return total


def carbon(joules: float, grid: Signal, start: float, end: float) -> float:
    """Returns grams of CO2-equivalent of ``joules`` drawn evenly from ``start`` to ``end`` s."""
    return joules / JOULES_PER_KWH * intensity(grid, start, max(end, start + 1e-9))
