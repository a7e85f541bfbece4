"""The picture of packing: how many pods wait, by usage of the nodes, under each policy, beside the bound."""

from __future__ import annotations

from benchmarks.packing import started
from fleetcast.policy.place.pods import CpSat
from fleetcast.scenario.workload.pods import distinct
from fleetcast.view import svg

USAGES = (0.93, 0.95, 0.97, 0.99, 1.01, 1.03, 1.05)
NODES = 64


def waiting() -> tuple[list[str], svg.Scale, svg.Scale, dict[str, list[tuple[float, float]]]]:
    """Returns pods that wait out of 512 on 64 nodes against what all ask for, one tier, sizes that all differ."""
    shown: dict[str, list[tuple[float, float]]] = {}
    for usage in USAGES:
        view = started(*distinct(NODES, 8, usage, 1, 0))
        if view is None:
            continue
        total = len(view.waiting)
        shown.setdefault("default", []).append((usage, total))
        answer = CpSat().solve(view)
        shown.setdefault("cp_sat, 1 s", []).append((usage, total - _gain(answer.placement)))
        bound = sum(tier.pods - tier.bound for tier in answer.tiers)
        shown.setdefault("no fewer than", []).append((usage, bound))
    x, y = svg.Scale(0.93, 1.05, 60, 560), svg.Scale(0.0, 50.0, 262, 30)
    return svg.axes(x, y, "%", "", "what pods ask for, of what nodes have", "pods that wait, of 512"), x, y, shown


def _gain(placement: object) -> int:
    return len(placement.bound) - len(placement.evicted)  # type: ignore[attr-defined]
