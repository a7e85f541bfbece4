"""How far a forecast may be off: an 80 % interval per metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

from fleetcast.cost.step import StepCost
from fleetcast.scenario.plan import Plan

Z80 = 1.2815515655446004


def intervals(metrics: Mapping[str, Any], costs: Sequence[StepCost], plan: Plan) -> dict[str, tuple[float, float]]:
    """Returns 80 % intervals of the latency metrics.

    Args:
        metrics: of the outcome.
        costs: of its replicas.
        plan: complete.
    """
    spread = max(c.spread for c in costs)
    found = {}
    for metric, widen in (("ttft", 2.0), ("tpot", 1.0), ("e2e", 1.2)):
        for statistic, value in metrics[metric].items():
            factor = exp(Z80 * spread * widen)
            found[f"{metric}.{statistic}"] = (value / factor, value * factor)
    return found
