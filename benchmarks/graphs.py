"""How fast task graphs are scheduled and read, compiled and as plain Python, beside another HEFT and the null.

Graphs are random layers (synthetic): each task reads two tasks of the layer before, messages hold the ports of devices.
A schedule counts from the graph in memory to the event record: ranks, order, placement with messages, rows. Schedules
are held to `cost.graphs.schedule.check` on a smaller graph of the same kind. The other HEFT is SAGA's (anrg-saga),
where ``FLEETCAST_SAGA`` names an interpreter that has it; it knows no contention, so ours is run without.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

from benchmarks.records import ROOT, Null, Ours, Paper, Record, child, main, skipped

SYSTEM = 44
COMMAND = "python -m benchmarks.graphs"
SCRIPT = "graphs"
OTHER = "our bar, not the paper's claim: the paper gives no speed of HEFT"
SPEED = {8: 800_000, 128: 150_000}
PLAIN = 100_000
PURE = """
import importlib.util, sys
sys.modules["cython"] = None
for name in ("fleetcast.kernels.dag", "fleetcast.kernels.heft", "fleetcast.base.numbers"):
    package, _, stem = name.rpartition(".")
    folder = importlib.import_module(package).__path__[0]
    spec = importlib.util.spec_from_file_location(name, f"{folder}/{stem}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    setattr(sys.modules[package], stem, module)
"""
"""Makes the hot loops run as plain Python in a process, whatever is compiled beside them."""


def instance(tasks: int, devices: int, degree: int = 2, seed: int = 0) -> Any:
    """Returns (graph, platform): random layers on two kinds of device with a port in and a port out each."""
    import numpy as np

    from fleetcast.cost.graphs.platform import Platform
    from fleetcast.scenario.workload.graphs.generators import Layered

    graph = Layered(tasks=tasks, width=64 if devices <= 16 else 512, degree=degree, size=1e6).graph(seed)
    rows = {f"w{i}": (graph.work / (2e9 if i % 2 else 1e9)).tolist() for i in range(devices)}
    kinds = ["quick" if i % 2 else "slow" for i in range(devices)]
    return graph, Platform.of(rows, kinds=kinds, rate=1e7, latency=1e-5, memory=np.inf)


def speed(tasks: int, devices: int, repeats: int) -> dict[str, float]:
    """Returns CPU seconds of HEFT with its event record, the least of some repeats, and what came out."""
    from fleetcast.cost.graphs.bounds import lower_bound
    from fleetcast.cost.graphs.schedule import check, heft
    from fleetcast.kernels import heft as loop
    from fleetcast.policy.order.tasks import Fifo
    from fleetcast.scenario.workload.graphs import TaskGraph
    from fleetcast.sim.graph.world import play

    small = instance(2000, devices)
    check(heft(*small), *small)
    graph, platform = instance(tasks, devices)
    times = []
    for _ in range(repeats):
        fresh = TaskGraph(**{name: getattr(graph, name) for name in TaskGraph.__dataclass_fields__})
        begin = time.process_time()
        schedule = heft(fresh, platform)
        record = schedule.record(fresh, platform)
        times.append(time.process_time() - begin)
    begin = time.process_time()
    null = play(small[0], small[1], Fifo())
    played = time.process_time() - begin
    return {
        "rate": tasks / min(times), "edges": graph.edges, "messages": len(schedule.messages), "rows": len(record),
        "above": schedule.makespan / lower_bound(graph, platform) - 1.0, "compiled": float(loop.COMPILED),
        "null": 2000 / played, "worse": null.makespan / heft(*small).makespan,
    }  # fmt: skip


def million(path: str) -> dict[str, float]:
    """Returns CPU seconds of reading a file and scheduling it on eight devices."""
    import numpy as np

    from fleetcast.cost.graphs.platform import Platform
    from fleetcast.cost.graphs.schedule import heft
    from fleetcast.scenario.workload.graphs.files import read_graph

    begin = time.process_time()
    graph = read_graph(Path(path))
    middle = time.process_time()
    rows = {f"w{i}": (graph.work * (1 + i % 2)).tolist() for i in range(8)}
    found = heft(graph, Platform.of(rows, kinds=[f"k{i % 2}" for i in range(8)], rate=1e10, memory=np.inf))
    end = time.process_time()
    return {"seconds": end - begin, "reading": middle - begin, "edges": graph.edges, "tasks": len(found.start)}


def write_hdag(path: Path, edges: int) -> None:
    """Writes a random hyperDAG of so many edges, five a task, each node's result one hyperedge."""
    import numpy as np

    from fleetcast.base.rng import rng

    draw = rng(0, "benchmark", "hdag")
    n = edges // 5
    source = np.minimum(draw.integers(0, n - 1, edges * 11 // 10), n - 2)
    target = np.minimum(source + draw.integers(1, 2000, len(source)), n - 1)
    rows = draw.permutation(np.unique(source * n + target))[:edges]
    source, target = rows // n, rows % n
    heads, number = np.unique(source, return_inverse=True)
    work = draw.integers(1, 10, n)
    lines = [f"% synthetic\n{len(heads)} {n} {len(heads) + len(rows)}"]
    lines += [f"{i} {1 + i % 7}" for i in range(len(heads))] + [f"{i} {w}" for i, w in enumerate(work.tolist())]
    lines += [f"{i} {v}" for i, v in enumerate(heads.tolist())]
    lines += [f"{e} {v}" for e, v in zip(number.tolist(), target.tolist(), strict=True)]
    path.write_text("\n".join(lines) + "\n")


def write_wfformat(path: Path, edges: int) -> None:
    """Writes a random workflow of so many edges, five a task, a file a task."""
    from fleetcast.base.rng import rng

    draw = rng(0, "benchmark", "wfformat")
    n = edges // 5
    back = draw.integers(1, 2000, (n, 5))
    tasks, ran = [], []
    for i in range(n):
        parents = sorted({i - int(b) for b in back[i] if i - int(b) >= 0})
        tasks.append({
            "name": f"task_{i:07d}", "id": f"task_{i:07d}", "children": [],
            "parents": [f"task_{p:07d}" for p in parents], "inputFiles": [f"file_{p:07d}" for p in parents],
            "outputFiles": [f"file_{i:07d}"],
        })  # fmt: skip
        ran.append({"id": f"task_{i:07d}", "runtimeInSeconds": 1.0 + i % 9, "command": {"program": "task"}})
    files = [{"id": f"file_{i:07d}", "sizeInBytes": 1000} for i in range(n)]
    path.write_text(json.dumps({
        "name": "synthetic", "schemaVersion": "1.5",
        "workflow": {"specification": {"tasks": tasks, "files": files}, "execution": {"tasks": ran}},
    }))  # fmt: skip


def rival(tasks: int, devices: int) -> dict[str, float] | None:
    """Returns CPU seconds and makespans of SAGA's HEFT and of ours on one instance; None where SAGA is absent."""
    python = os.environ.get("FLEETCAST_SAGA", "")
    if not python:
        return None
    import numpy as np

    from fleetcast.cost.graphs.platform import Platform
    from fleetcast.cost.graphs.schedule import heft
    from fleetcast.kernels import dag
    from fleetcast.scenario.workload.graphs.generators import Layered

    graph = Layered(tasks=tasks, width=16, degree=3).graph(3)
    speeds = np.random.default_rng(5).uniform(0.5, 2.0, devices)
    rate = 2e6
    edges = zip(graph.parent_of_edge.tolist(), graph.child.tolist(), graph.size.tolist(), strict=True)
    given = {"speeds": speeds.tolist(), "rate": rate, "work": (graph.work / 1e9).tolist(), "edges": list(edges)}
    script = str(ROOT / "benchmarks" / "graphs_saga.py")
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, script], input=json.dumps(given), capture_output=True, text=True, check=True, env=env
    )
    other = json.loads(done.stdout.splitlines()[-1])
    platform = Platform.of({f"w{i}": (graph.work / 1e9 / s).tolist() for i, s in enumerate(speeds)}, rate=rate)
    platform.channels[:] = -1  # no contention, as there
    begin = time.process_time()
    # its mean over links counts a node's link to itself, which takes no time
    gap = graph.size / rate * (devices - 1) / (devices + 1)
    rank = np.asarray(dag.upward(graph.order, graph.first, graph.child, platform.mean, gap))
    ours = heft(graph, platform, rank)
    return {
        "ratio": other["seconds"] / (time.process_time() - begin), "seconds": other["seconds"],
        "makespan": ours.makespan / other["makespan"],
    }  # fmt: skip


def records(quick: bool = False) -> list[Record]:
    """Returns the speed records."""
    import tempfile

    found: list[Record] = []
    for devices, bar in SPEED.items():
        tasks = 100_000 if quick else 500_000
        got, used = child(SCRIPT, speed, tasks, devices, 2 if quick else 5)
        found.append(Record(
            system=SYSTEM, claim=f"tasks that HEFT schedules in a CPU-second, {devices} devices, messages hold ports",
            paper=Paper(), ours=Ours(
                value=got["rate"], unit="tasks/s", spread=f"{got['above']:.1%} above the lower bound",
                setting=f"{tasks:,} tasks, {got['edges']:,} edges, {got['messages']:,} messages, event record kept; "
                f"{'compiled' if got['compiled'] else 'plain Python'}",
            ),
            null=Null(value=got["null"], what=f"first come, first served, played: {got['worse']:.2f} times as long"),
            bar=f"at least {bar:,}", holds=got["rate"] >= bar, reproduced="other setting", reason=OTHER, seconds=used,
            command=COMMAND,
        ))  # fmt: skip
    tasks = 20_000 if quick else 100_000
    got, used = child(SCRIPT, speed, tasks, 8, 2 if quick else 5, before=PURE)
    found.append(Record(
        system=SYSTEM, claim="tasks that HEFT schedules in a CPU-second without a compiler, 8 devices", paper=Paper(),
        ours=Ours(
            value=got["rate"], unit="tasks/s", spread=f"{got['above']:.1%} above the lower bound",
            setting=f"{tasks:,} tasks, {got['edges']:,} edges; Python {sys.version_info[0]}.{sys.version_info[1]}",
        ),
        null=Null(value=got["null"], what="first come, first served, played"), bar=f"at least {PLAIN:,}",
        holds=got["rate"] >= PLAIN and not got["compiled"], reproduced="other setting", reason=OTHER, seconds=used,
        command=COMMAND,
    ))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for kind, name, write in (("hyperDAG", "g.hdag", write_hdag), ("WfFormat", "g.json", write_wfformat)):
            path, edges = Path(folder) / name, 100_000 if quick else 1_000_000
            write(path, edges)
            got, used = child(SCRIPT, million, str(path))
            found.append(Record(
                system=SYSTEM, claim=f"CPU seconds to read a million edges and schedule them on 8 devices, {kind}",
                paper=Paper(), ours=Ours(
                    value=got["seconds"], unit="s", spread=f"{got['reading']:.2f} s of it reading",
                    setting=f"{got['edges']:,} edges, {got['tasks']:,} tasks, {path.stat().st_size / 1e6:.0f} MB",
                ),
                null=Null(), bar="at most 5 s", holds=got["seconds"] <= 5.0, reproduced="other setting", reason=OTHER,
                seconds=used, command=COMMAND,
            ))  # fmt: skip
    claim, held = "times as quick as SAGA's HEFT, one instance without contention", "at least 100 times, equal makespan"
    beside = rival(300 if quick else 1000, 8)
    if beside is None:
        why = "FLEETCAST_SAGA names no interpreter with anrg-saga"
        return [*found, skipped(system=SYSTEM, claim=claim, bar=held, why=why, command=COMMAND)]
    found.append(Record(
        system=SYSTEM, claim=claim, paper=Paper(), ours=Ours(
            value=beside["ratio"], unit="x", spread=f"makespan {beside['makespan']:.9f} of SAGA's",
            setting=f"{300 if quick else 1000} tasks in layers, 8 unlike devices; SAGA took {beside['seconds']:.3g} s",
        ),
        null=Null(value=1.0, what="SAGA's own"), bar=held,
        holds=beside["ratio"] >= 100 and abs(beside["makespan"] - 1) < 1e-9, reproduced="other setting", reason=OTHER,
        seconds=beside["seconds"], command=COMMAND,
    ))  # fmt: skip
    return found


if __name__ == "__main__":
    sys.exit(main(records))
