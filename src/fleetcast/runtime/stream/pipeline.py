"""Runs a stream's line of nodes as processes here: sensor | processor | ... | storage, over pipes.

What a node does is real work of the size that the scenario states: each operation is a byte multiplied with a pattern.
Rates, counts, CPU time and latencies are measured; watts are the scenario's joules at the measured rates.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fleetcast.base.errors import SpecError, Unsupported
from fleetcast.cost.streams.flow import At, f1, flow, goal_ratio
from fleetcast.cost.streams.scores import scores
from fleetcast.runtime.stream.stage import HEAD, Job
from fleetcast.scenario.kinds.stream import StreamScenario
from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.stream_plan import NOWHERE
from fleetcast.scenario.workload.pipeline import Node, System, resolve

WARM = 0.1
"""Share of the samples that goes by before anything counts."""
MOST_PIPE = 1 << 20
MOST_SIZE = 1 << 30
TIMEOUT = 600.0


@dataclass(frozen=True)
class Seen:
    """What one node's process saw, warm-up left out.

    Attributes:
        count: samples that came (of the sensor: that it made).
        passed: that it let go on.
        tp: of these, interesting ones; fp: dull ones.
        wall: s.
        cpu: s.
        late: f8[k], s from the sensor to here, of the storage.
    """

    count: int
    passed: int
    tp: int
    fp: int
    wall: float
    cpu: float
    late: np.ndarray[Any, np.dtype[np.float64]]

    @property
    def each(self) -> float:
        """CPU seconds a sample."""
        return self.cpu / self.count if self.count else 0.0


def run(scenario: StreamScenario, *, timeout: float = TIMEOUT) -> Outcome:
    """Returns what a stream's processes made of its samples: measured.

    Args:
        scenario: a line of nodes; ``workload.samples`` are made, the first tenth does not count.
        timeout: s after which the processes are ended.

    Raises:
        Unsupported: no line, or something that no process here does.
        SpecError: anything in the scenario that cannot be.
    """
    system = built(scenario)
    seen, interesting = measure(scenario, system, timeout=timeout)
    return outcome(scenario, system, seen, interesting)


def built(scenario: StreamScenario) -> System:
    """Returns the pipeline with its plan made; a plan that leaves the filter open has it nowhere.

    Raises:
        SpecError: anything in the scenario that cannot be.
    """
    plan = scenario.plan
    changes = [
        (f"plan.upgrades[{i}].nodes[{k}]", node)
        for i, upgrade in enumerate(plan.upgrades) if upgrade.name in (plan.use or ())
        for k, node in enumerate(upgrade.nodes)
    ]  # fmt: skip
    at = plan.filter[0] if isinstance(plan.filter, tuple) and len(plan.filter) == 1 else plan.filter
    if scenario.workload.filter is not None and not isinstance(at, str):
        raise SpecError("plan.filter", "is open, and one pipeline is run", hint="Name the node that filters")
    where = at if isinstance(at, str) and at != NOWHERE else None
    return resolve(scenario.workload, Path(scenario.folder), changes=changes, at=where)


def measure(scenario: StreamScenario, system: System, *, timeout: float = TIMEOUT) -> tuple[list[Seen], int]:
    """Runs the processes; returns what each saw, and how many interesting samples were made.

    Raises:
        Unsupported: no line, or something that no process here does.
    """
    with tempfile.TemporaryDirectory() as folder:
        jobs = _jobs(scenario, system, Path(folder))
        chain: list[subprocess.Popen[bytes]] = []
        try:
            for i, job in enumerate(jobs):
                command = [sys.executable, "-m", "fleetcast.runtime.stream.stage", msgspec.json.encode(job).decode()]
                before = chain[-1].stdout if chain else subprocess.DEVNULL
                out = subprocess.DEVNULL if job.last else subprocess.PIPE
                chain.append(subprocess.Popen(command, stdin=before, stdout=out, stderr=subprocess.PIPE, env=_env()))
                if not job.last:
                    _widen(chain[-1], system.nodes[i + 1], job.size)
                if i:
                    # this process must not keep the pipe open, or its reader never learns that the writer died
                    stdout = chain[-2].stdout
                    assert stdout is not None
                    stdout.close()
            _wait(chain, timeout)
            found = [json.loads(Path(job.result).read_text(encoding="utf-8")) for job in jobs]
        finally:
            for process in chain:
                if process.poll() is None:
                    process.kill()
                process.wait()
                if process.stderr is not None:
                    process.stderr.close()
    seen = [
        Seen(
            row["count"], row.get("passed", row["count"]), row.get("tp", 0), row.get("fp", 0), row["wall"], row["cpu"],
            np.asarray(row.get("late", []), dtype=np.float64) / 1e9,
        )
        for row in found
    ]  # fmt: skip
    return seen, int(found[0]["interesting"])


def _wait(chain: list[subprocess.Popen[bytes]], timeout: float) -> None:
    end = time.monotonic() + timeout
    for process in reversed(chain):  # the storage ends last; one that fails breaks the pipes of all
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Unsupported(
                f"the pipeline did not end within {timeout:g} s", "Take fewer workload.samples, or a higher rate"
            ) from None
        if process.returncode:
            break  # the others may wait for it
    for process in chain:
        if process.poll():
            said = (process.stderr.read() if process.stderr is not None else b"").decode(errors="replace")
            raise Unsupported(f"a process of the pipeline failed: {said.strip().splitlines()[-1:] or 'no word'}")


def _env() -> dict[str, str]:
    # one thread each: a node is one lane
    return dict(os.environ) | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def pipe_places(buffer: int | None, size: int) -> int:
    """Returns how many samples a pipe holds that is to hold ``buffer`` of ``size`` bytes: pipes have whole pages.

    Linux gives them a power of two of pages, at most `MOST_PIPE` bytes; other systems keep their own size.
    """
    page = 4096
    pages = -(-(size + HEAD.size) // page)
    return _room(buffer, size) // page // pages


def _room(buffer: int | None, size: int) -> int:
    wanted = max(4096, min(MOST_PIPE, (buffer or 1) * -(-(size + HEAD.size) // 4096) * 4096))
    return 1 << (wanted - 1).bit_length()


def _widen(process: subprocess.Popen[bytes], node: Node, size: int) -> None:
    """Gives the pipe to ``node`` room for as many samples as it has places, as far as the system lets it."""
    try:
        import fcntl

        assert process.stdout is not None
        fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, _room(node.buffer, size))
    except (ImportError, AttributeError, OSError):
        return  # another system's pipes keep their size


def _jobs(scenario: StreamScenario, system: System, folder: Path) -> list[Job]:
    nodes, workload = system.nodes, scenario.workload
    if any(len(senders) > 1 for senders in system.inputs):
        raise Unsupported("run: ways join in this stream, and a line of processes is run", "Run one sensor's way")
    size = _size(nodes)
    choosing = [i for i, node in enumerate(nodes) if node.ratio > 1]
    if len(choosing) > 1:
        names = " and ".join(nodes[i].name for i in choosing)
        raise Unsupported(f"run: {names} choose, and one node of a run does", "Leave the other ratios at 1")
    rate = nodes[0].rate
    assert rate is not None
    share = workload.interesting if workload.interesting is not None else 1.0 / goal_ratio(system)[0]
    skill, deviation, threshold = 0.0, 1.0, None
    for i in choosing:
        skill, deviation, threshold = _choice(nodes[i], system, share)
        if i == 0:
            raise Unsupported(f"run: {nodes[0].name} chooses, and a sensor of a run sends all", "Filter further on")
    warm = int(WARM * workload.samples)
    return [
        Job(
            size=size, passes=_passes(node, i in choosing), samples=workload.samples, warm=warm,
            rate=rate, poisson=workload.arrivals == "poisson", interesting=share, skill=skill, deviation=deviation,
            threshold=threshold if i in choosing else None, sensor=i == 0, last=i == len(nodes) - 1,
            seed=scenario.seed, result=str(folder / f"{i}.json"),
            ready=str(folder / "ready"),
        )
        for i, node in enumerate(nodes)
    ]  # fmt: skip


def _size(nodes: tuple[Node, ...]) -> int:
    for i, node in enumerate(nodes):
        path = f"workload.nodes: {node.name}"
        if node.compression or (i and node.size):
            raise Unsupported(f"run: {path} changes the size of samples, and processes hand them on as they are",
                              "Leave compression out, and size of all but the sensor")  # fmt: skip
        if node.lanes > 1:
            raise Unsupported(f"run: {path}.lanes = {node.lanes}: a node is one process", "Leave lanes out")
        if node.dead_time:
            raise Unsupported(f"run: {path}.dead_time: a process is never dead", "Leave it out")
        if i and node.full != "wait":
            raise Unsupported(f"run: {path}.full = 'drop': pipes let their writer wait",
                              'Write full = "wait" and buffer = the samples that a pipe holds')  # fmt: skip
    size = nodes[0].size
    if size % 4 or not 64 <= size <= MOST_SIZE:
        raise SpecError(f"workload.nodes: {nodes[0].name}.size", "cannot be run", value=size,
                        limit=f"64 to {MOST_SIZE:,} bytes, a multiple of 4")  # fmt: skip
    return int(size)


def _passes(node: Node, chooses: bool) -> float:
    if any(node.complexity[1:]):
        raise Unsupported(f"run: workload.nodes: {node.name}.complexity grows faster than the sample",
                          "Give one factor: operations a byte")  # fmt: skip
    passes = node.complexity[0]
    if chooses and passes < 1:
        raise SpecError(f"workload.nodes: {node.name}.complexity", "is too little to choose by", value=passes,
                        limit="at least 1 operation a byte")  # fmt: skip
    return passes


def _choice(node: Node, system: System, share: float) -> tuple[float, float, float]:
    """Returns skill, deviation and threshold of the node that chooses."""
    from scipy.special import ndtri

    made = node.classifier
    if made is None or made.kind != "gaussian" or made.skill is None:
        raise Unsupported(f"run: workload.nodes: {node.name}.classifier is not gaussian",
                          'Write classifier = { kind = "gaussian", skill = 3 }')  # fmt: skip
    tn, _ = scores(made, system.folder).rejected(1 - 1 / node.ratio, 1 - share, share)
    return made.skill + made.boost, math.sqrt(made.variance), float(ndtri(tn))


def outcome(scenario: StreamScenario, system: System, seen: list[Seen], interesting: int) -> Outcome:
    """Returns what was measured as an Outcome: the simulation's metrics, with CPU time for a lane's."""
    first, last = seen[0], seen[-1]
    wall = first.wall
    tp, fp = last.tp, last.fp
    fn, tn = interesting - tp, first.count - interesting - fp
    rate = first.count / wall
    stated = flow(system, interesting=scenario.workload.interesting)
    power = [_watts(at, s, wall) for at, s in zip(stated.nodes, seen, strict=True)]
    total = math.fsum(a + b for a, b in power) * scenario.fleet.pue / scenario.workload.saved
    found = f1(tp, fp, fn)
    metrics: dict[str, Any] = {
        "power": total, "op_power": math.fsum(a for a, _ in power), "link_power": math.fsum(b for _, b in power),
        "f1": found, "precision": tp / (tp + fp) if tp + fp else 0.0, "recall": tp / (tp + fn) if tp + fn else 0.0,
        "accuracy": (tp + tn) / first.count,
        "productivity": found * (last.count / wall) / total if total > 0 else 0.0,
        "latency": float(last.late.mean()) if len(last.late) else 0.0,
        "latency_p50": float(np.median(last.late)) if len(last.late) else 0.0,
        "latency_p99": float(np.quantile(last.late, 0.99)) if len(last.late) else 0.0,
        "input_rate": rate, "output_rate": last.count / wall, "output_bytes": last.count / wall * stated.nodes[-1].size,
        "lane_time": math.fsum(s.cpu for s in seen) / first.count, "dropped": 0.0,
        "busy": max(s.cpu / s.wall if s.wall > 0 else 0.0 for s in seen),
        "tp": tp / wall, "fp": fp / wall, "fn": fn / wall, "tn": tn / wall,
    }  # fmt: skip
    rows: list[dict[str, Any]] = [
        {
            "name": node.name, "input_rate": s.count / wall, "output_rate": s.passed / wall, "bytes": at.size,
            "ops": at.ops, "service": s.each, "op_power": pair[0], "link_power": pair[1],
            "busy": s.cpu / s.wall if s.wall > 0 else 0.0, "lost": 0.0, "samples": s.count,
            "rejected": {"dull": 0.0, "interesting": 0.0}, "passed": {"dull": s.fp / wall, "interesting": s.tp / wall},
        }
        for node, s, at, pair in zip(system.nodes, seen, stated.nodes, power, strict=True)
    ]  # fmt: skip
    notes = (
        f"{len(seen)} processes over pipes; the first {WARM:.0%} of {scenario.workload.samples:,} samples do not count",
        "watts are the scenario's joules at the measured rates; busy and lane_time are CPU time",
    )
    plan: dict[str, Any] = {"use": list(scenario.plan.use or ())}
    if isinstance(scenario.plan.filter, str):
        plan["filter"] = scenario.plan.filter
    return Outcome(
        source="measured", metrics=metrics, intervals={}, slo={"met": True, "checks": []}, plan=plan,
        breakdown={"time": {row["name"]: row["service"] for row in rows}}, resources=tuple(rows), notes=notes,
        provenance={"seed": scenario.seed},
    )  # fmt: skip


def _watts(at: At, seen: Seen, wall: float) -> tuple[float, float]:
    """Returns a node's W of operations and of its link at the rates that were measured."""
    came = at.rate * (1 - at.lost)
    return (
        at.op_power * (seen.count / wall) / came if came > 0 else 0.0,
        at.link_power * (seen.passed / wall) / at.out if at.out > 0 else 0.0,
    )
