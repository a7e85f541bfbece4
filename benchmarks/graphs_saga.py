"""HEFT of SAGA (anrg-saga, MIT), run beside ours by `benchmarks.graphs`; it needs ``pip install anrg-saga``.

Reads an instance as JSON from standard input and writes CPU seconds and makespan. Nothing of ours is imported here, so
that any interpreter that has SAGA can run it.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any


def run(instance: dict[str, Any]) -> dict[str, float]:
    """Returns CPU seconds of scheduling, building left out, and the makespan.

    Args:
        instance: speeds of nodes, bytes/s between any two, work of tasks, edges (from, to, bytes).
    """
    saga, schedulers = importlib.import_module("saga"), importlib.import_module("saga.schedulers")
    speeds = instance["speeds"]
    network = saga.Network.create(
        nodes=[(f"w{i}", s) for i, s in enumerate(speeds)],
        edges=[(f"w{i}", f"w{j}", instance["rate"]) for i in range(len(speeds)) for j in range(i)],
    )
    graph = saga.TaskGraph.create(
        tasks=[(f"t{i}", w) for i, w in enumerate(instance["work"])],
        dependencies=[(f"t{a}", f"t{b}", size) for a, b, size in instance["edges"]],
    )
    begin = time.process_time()
    schedule = schedulers.HeftScheduler().schedule(network, graph)
    return {"seconds": time.process_time() - begin, "makespan": float(schedule.makespan)}


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
