"""What a scheduler did on a cluster, as an Outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from fleetcast.runtime.kubernetes.scheduler import Scheduler
from fleetcast.scenario.outcome import Outcome

__all__ = ["outcome"]

_SHOWN, _KEPT = 8, 100
"""Lines of a dry run that are named of each kind, and pods that wait."""


def outcome(scheduler: Scheduler, plan: Mapping[str, Any], notes: tuple[str, ...] = ()) -> Outcome:
    """Returns placed and waiting pods, moves, evictions and the seconds from a pod's first sight to its binding.

    Args:
        scheduler: after its run; of a dry run what it would do counts as done.
        plan: the plan's table.
        notes: said first.
    """
    counts, verdict, cluster = scheduler.counts, scheduler.verdict, scheduler.cluster
    dry = scheduler.dry_run
    places = {p.name: n for p, n in verdict.bind} if dry else dict(counts.places)
    coming = {p.name for p, _ in verdict.nominate} if dry else set()
    pending = [p for p in cluster.waiting() if p.name not in places and p.name not in coming]
    metrics: dict[str, Any] = {
        "placed": len(places) + len(coming), "unplaced": len(pending),
        "moves": len(verdict.move) if dry else counts.moves,
        "evicted": len(verdict.evict) if dry else counts.evictions,
        "refused": counts.refusals, "conflicts": counts.conflicts, "rounds": counts.rounds, "deciding": counts.deciding,
    }  # fmt: skip
    if counts.latencies:
        seconds = np.array(counts.latencies)
        p50, p99 = np.percentile(seconds, (50, 99))
        metrics["waits"] = {"mean": float(seconds.mean()), "p50": float(p50), "p99": float(p99)}
    said = list(notes)
    if dry:
        said += [f"would bind {name} to {node}" for name, node in list(places.items())[:_SHOWN]]
        said += [f"would evict {pod.name}" for pod in verdict.evict[:_SHOWN]]
        said += [f"would move {pod.name} to {node}" for pod, node in verdict.move[:_SHOWN]]
        said += [f"would then bind {pod.name} to {node}" for pod, node in verdict.nominate[:_SHOWN]]
    reasons = {p.name: scheduler.pending[p.name] for p in pending if p.name in scheduler.pending}
    metrics["reasons"] = {n: why.removeprefix(f"{n}: ") for n, why in list(reasons.items())[:_KEPT]}
    said += [f"{what}: {problem}" for what, problem in list(cluster.problems.items())[:_SHOWN]]
    return Outcome(
        source="measured", metrics=metrics, intervals={}, slo={"met": True, "checks": []}, plan=plan,
        resources=tuple(_rows(scheduler, places)), notes=tuple(said),
        provenance={"server": scheduler.api.host, "schedulerName": cluster.scheduler},
    )  # fmt: skip


def _rows(scheduler: Scheduler, places: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row a node: pods that it got now, and how full it is, by resource."""
    cluster = scheduler.cluster
    got = Counter(places.values())
    with cluster.lock:
        return [
            {
                "name": name, "pods": got[name],
                "used": {
                    resource: cluster.used.get(name, {}).get(resource, 0) / amount
                    for resource, amount in machine.capacity.items() if amount
                },
            }
            for name, machine in sorted(cluster.machines.items())
        ]  # fmt: skip
