"""What a simulated run would have logged, in the published schema that `watch coldstart` reads."""

from __future__ import annotations

import numpy as np

from fleetcast.sim.functions.world import Pods

POOLS = {128: "pool22-300-128", 256: "pool23-400-256", 512: "pool24-600-512", 1024: "pool26-1000-1024"}
"""Names of pods by MB, as in the published trace's examples."""


def cold_start_tables(pods: Pods) -> dict[str, str]:
    """Returns the tables of a run as CSV: "starts", "kinds" and "requests", which has the last request of each pod.

    Args:
        pods: of a run in a world without nodes.
    """
    trace = pods.trace
    pool = [POOLS.get(round(m / 1e6), f"pool30-3400-{round(m / 1e6)}") for m in trace.memory.tolist()]
    starts = [
        "day,time,clusterName,funcName,userID,requestID,totalCost_cold_start,podAllocationCost,deployCodeCost,"
        "deployDependencyCost,schedulingCost,podID,region"
    ]  # fmt: skip
    requests = ["time_worker,requestID,podID,totalCost_worker"]
    for p in np.argsort(pods.start, kind="stable").tolist():
        f = int(pods.function[p])
        parts = trace.starts[pods.row[p]]
        begin, name = float(pods.start[p]), f"{pool[f]}-{p:010d}"
        took = ",".join(f"{part:.6f}" for part in parts.tolist())
        starts.append(
            f"{int(begin // 86400)},{begin:.3f},{f % 4 + 1},{f},{f % 97},r{p:08x},{float(parts.sum()):.6f},{took},"
            f"{name},{trace.regions[trace.region[f]]}"
        )
        ready = begin + float(parts.sum())
        requests.append(f"{ready:.6f},r{p:08x},{name},{max(float(pods.last[p]) - ready, 0.0):.6f}")
    kinds = ["funcID,cpu_request,runtime,triggerType-invocationType"]
    kinds += [
        f"{f}---{f % 97}---{pool[f]},100,{trace.runtimes[trace.runtime[f]]},{trace.triggers[trace.trigger[f]]}"
        for f in range(len(trace.names))
    ]
    return {name: "\n".join(rows) + "\n" for name, rows in
            (("starts", starts), ("kinds", kinds), ("requests", requests))}  # fmt: skip
