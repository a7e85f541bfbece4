"""How far a forecast may be off: 80 % intervals, from how far it was off on servers that no constant was fitted on.

The half-width of log(measured / forecast) grows with what makes a forecast uncertain, each a number from 0 to about 1:
an engine whose own kernels no table holds, a pair of engine and device that no server was measured for, a version
older than the tables' where experts take much of the step, a high request rate (clients and front ends matter), and
a short time to first token (much of it is front end). The weights ship in ``coefficients/residuals.toml``, written by
`benchmarks.accuracy_silicon`. Kernels transferred from another device widen it by what their fit left.

Those servers neither drafted nor cut their iterations. What such a plan assumes beyond (how often drafts are accepted,
what nano-batches gain from sharing a device) leaves a standard deviation of log(time) of its own, `StepCost.doubt`, by
the delta method. The two are independent and add in squares, so an interval never shrinks.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from math import exp, hypot, log1p
from pathlib import Path
from typing import Any

from fleetcast.cost.engine import engine
from fleetcast.cost.step import StepCost
from fleetcast.scenario.plan import Plan

Z80 = 1.2815515655446004
FEATURES = ("base", "foreign", "pair", "old", "rate", "quick")
USUAL = 0.2
"""Log spread of kernels measured on the device itself: what the weights already contain."""
POWER = 0.15
"""Log half-width of the power model on its own, see docs/accuracy.md."""
BATCH = 16


def features(
    metrics: Mapping[str, Any], costs: Sequence[StepCost], engines: Sequence[str], devices: Sequence[str] = ()
) -> dict[str, float]:
    """Returns what the width of an interval depends on, by name; the least known replica counts.

    Args:
        metrics: of the outcome.
        costs: of its replicas.
        engines: names of the engine profiles of the pools.
        devices: catalogue ids of the replicas' devices; () = unknown, taken as measured.
    """
    profiles = [engine(name) for name in engines]
    share = max(_expert_share(c) for c in costs)
    old = any(bool(p.overlap_since) and not p.overlap for p in profiles)
    rate = metrics["requests"] / max(metrics["makespan"], 1e-9) / len(costs)
    return {
        "base": 1.0,
        "foreign": float(any(not p.measured for p in profiles)),
        "pair": float(any(d not in p.host for p in profiles for d in devices)),
        "old": share if old else 0.0,
        "rate": log1p(rate / 10.0),
        "quick": log1p(0.1 / max(metrics["ttft"]["mean"], 1e-9)),
    }


def _expert_share(cost: StepCost) -> float:
    experts, dense = float(cost.tables["experts"][BATCH]), float(cost.tables["dense"][BATCH])
    return experts / (experts + dense) if experts > 0 else 0.0


def half_width(weights: Mapping[str, float], found: Mapping[str, float]) -> float:
    """Returns the half-width of log(measured / forecast)."""
    return sum(weights[name] * found[name] for name in FEATURES)


@cache
def residuals() -> dict[str, dict[str, float]]:
    """Returns the weights per metric: "ttft" and "tpot"."""
    path = Path(__file__).parent / "coefficients" / "residuals.toml"
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: content[name] for name in ("ttft", "tpot")}


def intervals(
    metrics: Mapping[str, Any], costs: Sequence[StepCost], plan: Plan, devices: Sequence[str] = (), own: float = 1.0
) -> dict[str, tuple[float, float]]:
    """Returns 80 % intervals by metric, e.g. ``ttft.p99`` or ``throughput``.

    Latencies scale with their own half-width; what is summed over the run (throughput, energy, cost, carbon) moves
    only by the share of its length that a slower server would stretch: the rest is set by when requests arrive.

    Args:
        metrics: of the outcome.
        costs: of its replicas.
        plan: complete.
        devices: catalogue ids of the replicas' devices.
        own: share of the run's length that scales with the server's speed.
    """
    found = features(metrics, costs, [str(pool.engine) for pool in plan.pools], devices)
    extra = Z80 * max(0.0, max(c.spread for c in costs) - USUAL)
    doubts = {"ttft": max(c.doubt[0] for c in costs), "tpot": max(c.doubt[1] for c in costs)}
    width = {
        name: hypot(half_width(weights, found) + extra, Z80 * doubts[name]) for name, weights in residuals().items()
    }
    ttft, whole = metrics["ttft"]["mean"], max(metrics["e2e"]["mean"], 1e-12)
    first = min(1.0, ttft / whole)
    width["e2e"] = first * width["ttft"] + (1.0 - first) * width["tpot"]
    out = {
        f"{metric}.{statistic}": _around(value, width[metric])
        for metric in ("ttft", "tpot", "e2e") for statistic, value in metrics[metric].items()
    }  # fmt: skip
    run = width["e2e"] * own
    out["throughput"] = _around(metrics["throughput"], run)
    for name in ("cost", "energy", "carbon"):
        by = run if name == "cost" else hypot(run, POWER)
        out[name] = _around(metrics[name], by)
        out[f"per_million_output_tokens.{name}"] = _around(metrics["per_million_output_tokens"][name], by)
    return out


def _around(value: float, width: float) -> tuple[float, float]:
    return value * exp(-width), value * exp(width)
