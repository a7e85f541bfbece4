"""Outcome: what happens under a plan. Simulated and measured outcomes are the same type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fleetcast.base.tables import lookup

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fleetcast.base.record import Record

UNITS = {
    "ttft": "s", "tpot": "s", "e2e": "s", "throughput": "tokens/s", "goodput": "requests/s", "energy": "J",
    "cost": "$", "carbon": "g", "mfu": "", "mbu": "", "makespan": "s", "requests": "", "output_tokens": "",
    "prompt_tokens": "", "preemptions": "", "devices": "", "power": "W", "bytes": "B", "quality": "", "error": "",
    "cached": "", "failed": "", "availability": "", "failures": "", "restarts": "", "restarted": "",
    "iteration_time": "s", "hfu": "", "memory": "B", "host_memory": "B", "ssd_memory": "B", "fits": "", "flops": "FLOP",
    "tokens": "", "steps": "steps/s", "micro_batches": "", "params": "", "breakdown": "s", "job": "",
    "effective": "", "total_time": "s", "lost": "s", "evicted": "", "spent": "s", "checkpoint_interval": "s",
    "op_power": "W", "link_power": "W", "f1": "", "precision": "", "recall": "", "accuracy": "", "productivity": "1/J",
    "latency": "s", "latency_p50": "s", "latency_p99": "s", "input_rate": "Hz", "output_rate": "Hz",
    "output_bytes": "B/s", "dropped": "", "lane_time": "s", "busy": "", "tp": "Hz", "fp": "Hz", "fn": "Hz", "tn": "Hz",
    "lower_bound": "s", "critical_path": "s", "gap": "", "moved_bytes": "B", "messages": "", "tasks": "", "edges": "",
    "workers": "", "cold_starts": "", "pod_seconds": "s", "pods": "", "peak_pods": "", "wait": "s", "delayed": "",
    "utility": "", "functions": "", "queued": "", "ended": "",
    "jct": "s", "waits": "s", "utilisation": "", "load": "", "jobs": "", "placed": "", "moves": "", "finished": "",
    "decisions": "", "preempted": "", "held": "s", "slowdown": "", "unplaced": "", "allocated": "",
    "fragmentation": "", "at_end": "", "peak": "W", "peak_share": "", "brakes": "", "capped": "", "short": "s",
    "refused": "", "conflicts": "", "rounds": "", "deciding": "s", "fallbacks": "", "work_carbon": "g", "late": "",
}  # fmt: skip


@dataclass(frozen=True)
class Requests:
    """What happened to each request; columns of length n, in order of arrival.

    Attributes:
        arrival: s.
        ttft: s from arrival to first token.
        e2e: s from arrival to last token.
        output: tokens.
        resource: index of the replica that it ended in.
        began: of the one that made its first token.
    """

    arrival: NDArray[np.float64]
    ttft: NDArray[np.float64]
    e2e: NDArray[np.float64]
    output: NDArray[np.int64]
    resource: NDArray[np.int32]
    began: NDArray[np.int32]


@dataclass(frozen=True)
class Outcome:
    """Metrics with units, use of resources, and where time, energy and memory went.

    Attributes:
        source: "simulated" or "measured".
        metrics: nested numbers in SI units, ``$`` and ``g``; see ``UNITS``.
        intervals: 80 % interval per metric path, e.g. ``{"ttft.mean": (0.9, 1.2)}``.
        slo: ``{"met": bool, "checks": [{metric, limit, value, met}]}``.
        plan: the complete plan's table.
        breakdown: ``{"time": {term: s}, "energy": {term: J}, "memory": {term: B}}``, and with prefix caches
            ``{"prompts": {where: tokens}}``.
        resources: one row per replica: name, devices, busy share, peak fill, requests; and one for the drafters that a
            replica has on devices of their own: name, devices, share of the time in which they draft.
        notes: what was defaulted or transferred, in sentences.
        provenance: seed, version, digests of the inputs.
        record: the event log, if it was asked for.
        requests: per-request columns, if the workload has requests.
    """

    source: str
    metrics: Mapping[str, Any]
    intervals: Mapping[str, tuple[float, float]]
    slo: Mapping[str, Any]
    plan: Mapping[str, Any]
    breakdown: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    resources: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    record: Record | None = None
    requests: Requests | None = None

    def table(self) -> dict[str, Any]:
        """Returns everything but the columns, ready for JSON."""
        return {
            "source": self.source,
            "metrics": self.metrics,
            "intervals": {k: list(v) for k, v in self.intervals.items()},
            "slo": self.slo,
            "plan": self.plan,
            "breakdown": self.breakdown,
            "resources": list(self.resources),
            "notes": list(self.notes),
            "provenance": self.provenance,
        }

    def __repr__(self) -> str:
        """Returns the headline metrics in one line."""
        m = self.metrics
        parts = [f"{k} {lookup(m, k):.4g} {UNITS.get(k.partition('.')[0], '')}".strip() for k in _headline(m)]
        return f"Outcome({self.source}: {', '.join(parts)})"

    def _repr_html_(self) -> str:
        """Returns a small table for notebooks."""
        rows = "".join(
            f"<tr><th style='text-align:left'>{k}</th><td>{lookup(self.metrics, k):.4g}</td>"
            f"<td>{UNITS.get(k.partition('.')[0], '')}</td></tr>"
            for k in _headline(self.metrics)
        )
        return f"<table><caption>{self.source}</caption>{rows}</table>"


def _headline(metrics: Mapping[str, Any]) -> list[str]:
    wanted = (
        "iteration_time",
        "jct.mean",
        "makespan",
        "lower_bound",
        "ttft.p99",
        "tpot.p99",
        "e2e.mean",
        "throughput",
        "goodput",
        "energy",
        "cost",
        "carbon",
        "memory",
        "moved_bytes",
    )
    return [k for k in wanted if k.partition(".")[0] in metrics]
