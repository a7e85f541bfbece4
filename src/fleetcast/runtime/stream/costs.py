"""What a message costs on this machine, fitted on a few runs, and the scenario that forecasts others with it.

CPU seconds a sample of ``b`` bytes at a node that reads it, does ``o`` operations and hands on a share ``q``:

    read + read_byte b + op o + call k + q (send + send_byte b) + i (wake + wake_byte b)

and of the sensor ``make + make_byte b + op o + call k + i (wake + wake_byte b)``, its sending included; ``k`` is how
often it calls for a block of operations, and ``i`` the share of the time in which it waits, for it must be woken, and
finds its caches cold. All are at least 0. Besides, a sample takes ``hop + hop_byte b`` seconds from one process to the
next that waits for it; that keeps no CPU busy. `calibrated` writes them into a scenario as times of its nodes, so that
the world that knows no processes forecasts the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from fleetcast.base.errors import Unsupported
from fleetcast.cost.streams.flow import Flow, flow
from fleetcast.runtime.stream.pipeline import Seen, built, measure, pipe_places
from fleetcast.runtime.stream.stage import BLOCK
from fleetcast.scenario.kinds.stream import StreamScenario
from fleetcast.scenario.stream_plan import StreamPlan
from fleetcast.scenario.workload.pipeline import System
from fleetcast.scenario.workload.streams import StreamLink, StreamNode


@dataclass(frozen=True)
class Costs:
    """CPU seconds; see the module.

    Attributes:
        make: of a sample that a sensor makes and sends; make_byte: and of each byte.
        read: of one that is read; read_byte: and of each byte.
        send: of one that is handed on; send_byte: and of each byte.
        op: of an operation; call: of a block of them, however many it has.
        wake: of being woken for a sample; wake_byte: and of each byte that is in no cache then.
        hop: s from a process to the next one, where that waits; hop_byte: and for each byte.
        spread: median of |fitted / measured - 1| over the runs that it was fitted on.
    """

    make: float
    make_byte: float
    read: float
    read_byte: float
    send: float
    send_byte: float
    op: float
    call: float
    wake: float
    wake_byte: float
    hop: float
    hop_byte: float
    spread: float

    def node(self, *, sensor: bool, last: bool, size: float, ops: float, passed: float, idle: float) -> float:
        """Returns CPU seconds a sample of a node."""
        return float(np.dot(_row(sensor, last, size, ops, passed, idle), self._vector()))

    def _vector(self) -> list[float]:
        return [
            self.make,
            self.make_byte,
            self.read,
            self.read_byte,
            self.send,
            self.send_byte,
            self.op,
            self.call,
            self.wake,
            self.wake_byte,
        ]


def _row(sensor: bool, last: bool, size: float, ops: float, passed: float, idle: float) -> list[float]:
    # as `stage.touch` makes them: each block as often as there are operations a byte, the last time in part
    calls = math.ceil(size / 4 / BLOCK) * math.ceil(round(ops / size, 9)) if size else 0
    if sensor:
        return [1.0, size, 0.0, 0.0, 0.0, 0.0, ops, calls, idle, idle * size]
    out = 0.0 if last else passed
    return [0.0, 0.0, 1.0, size, out, out * size, ops, calls, idle, idle * size]


NAMES = ("make", "make_byte", "read", "read_byte", "send", "send_byte", "op", "call", "wake", "wake_byte")
SETTINGS = (
    (65_536, 20.0, 2.0, 0.0), (65_536, 100.0, 10.0, 0.3), (262_144, 10.0, 10.0, 0.0), (262_144, 60.0, 2.0, 0.5),
    (1_048_576, 8.0, 4.0, 0.4), (1_048_576, 30.0, 20.0, 0.0), (131_072, 40.0, 4.0, 0.6), (40_960, 60.0, 5.0, 0.5),
    (524_288, 20.0, 8.0, 0.3), (131_072, 80.0, 3.0, 0.0), (20_480, 200.0, 4.0, 0.0), (8_192, 300.0, 3.0, 0.4),
)  # fmt: skip
"""Of the runs that costs are fitted on: bytes of a sample, operations a byte at the filter, its ratio, and the share of
its time that it is to be busy; 0 = as fast as it can. The smallest have blocks that are not full, which tells what a
call costs from what an operation does."""


FLAT_OUT = 1e7
"""Samples a second that no process makes."""


def line(
    size: int, passes: float, ratio: float, *, rate: float, samples: int, buffer: int = 8, poisson: bool = False,
    seed: int = 1, interesting: float | None = None,
) -> StreamScenario:  # fmt: skip
    """Returns a generator, a filter and a sink, as `run` takes it.

    Args:
        size: bytes of a sample.
        passes: operations a byte at the filter.
        ratio: of the filter.
        rate: samples a second.
        samples: that are made.
        buffer: places before the filter and the sink.
        poisson: samples come at random.
        seed: of every draw.
        interesting: share of the samples; None = as many as the filter lets pass.
    """
    from fleetcast.scenario.load import load

    found = load(
        {
            "name": "line", "seed": seed,
            "workload": {
                "kind": "stream", "samples": samples, "arrivals": "poisson" if poisson else "periodic",
                "nodes": [
                    {"name": "generator", "to": "filter", "rate": rate, "size": size, "complexity": [0.0]},
                    {
                        "name": "filter", "to": "sink", "ratio": ratio, "complexity": [passes], "full": "wait",
                        "buffer": buffer, "classifier": {"kind": "gaussian", "skill": 3.0},
                    },
                    {"name": "sink", "full": "wait", "buffer": buffer, "complexity": [1.0]},
                ],
            } | ({} if interesting is None else {"interesting": interesting}),
        }
    )  # fmt: skip
    assert isinstance(found, StreamScenario)
    return found


def calibrate(
    settings: Sequence[tuple[int, float, float, float]] = SETTINGS, *, seconds: float = 1.0, repeats: int = 2,
    seed: int = 1, progress: Callable[[int, int], None] | None = None,
) -> Costs:  # fmt: skip
    """Returns what messages cost here, from runs that make samples as fast as they can.

    Args:
        settings: (bytes, operations a byte at the filter, ratio, how busy) of each run, as `SETTINGS`.
        seconds: about what a run takes.
        repeats: of each run, one pass over all after the other; of a setting's runs the least disturbed counts.
        seed: of the samples.
        progress: told (runs done, runs).

    Raises:
        Unsupported: pipes cannot be had here.
    """
    asked = []
    for size, passes, ratio, busy in settings:
        # about what it takes at 20 G operations a second: how long the run is, and how busy, depend on it alone
        guess = 3e-5 + size * (passes / 2e10 + 5e-10)
        samples = max(200, min(40_000, int(seconds * (busy or 1.0) / guess)))
        rate = busy / guess if busy else FLAT_OUT
        scenario = line(size, passes, ratio, rate=rate, samples=samples, seed=seed)
        asked.append((scenario, built(scenario)))
    repeats = max(1, repeats)
    every: list[list[list[Seen]]] = [[] for _ in settings]
    for turn in range(repeats):  # what disturbs the machine for a while then disturbs one pass alone
        for i, (scenario, system) in enumerate(asked):
            every[i].append(measure(scenario, system)[0])
            if progress is not None:
                progress(turn * len(settings) + i + 1, repeats * len(settings))
    rows: list[list[float]] = []
    found: list[float] = []
    hops: list[tuple[int, float]] = []
    for (size, _, _, busy), (_, system), runs in zip(settings, asked, every, strict=True):
        # whatever else runs here only adds: of each quantity the least disturbed run counts
        seen = min(runs, key=lambda found: sum(s.cpu for s in found))
        late = [float(np.median(r[-1].late)) for r in runs if len(r[-1].late)]
        if busy and late:
            hops.append((size, (min(late) - sum(s.each for s in seen)) / (len(seen) - 1)))
        for row, cost in costs_of(system, seen):
            rows.append(row)
            found.append(cost)
    return fit(rows, found, hops)


def costs_of(system: System, seen: Sequence[Seen]) -> list[tuple[list[float], float]]:
    """Returns, of each node that got samples, its row of the fit and its CPU seconds a sample."""
    found = []
    for i, (at, s) in enumerate(zip(flow(system).nodes, seen, strict=True)):
        if s.count:
            passed = s.passed / s.count
            idle = max(0.0, 1.0 - s.cpu / s.wall) if s.wall > 0 else 0.0
            found.append((_row(i == 0, i == len(seen) - 1, at.size, at.ops, passed, idle), s.each))
    return found


def fit(rows: Sequence[Sequence[float]], seconds: Sequence[float], hops: Sequence[tuple[int, float]] = ()) -> Costs:
    """Returns costs at least 0 that fit best, in relative error.

    Args:
        rows: of the fit, as `costs_of` makes them.
        seconds: CPU seconds of each.
        hops: (bytes of a sample, s between processes) of runs in which nothing queues.

    Raises:
        Unsupported: too few rows, or a cost of 0.
    """
    from scipy.optimize import nnls

    table, cost = np.asarray(rows, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    if len(cost) < len(NAMES) or (cost <= 0).any():
        said = f"{len(cost)} costs of nodes, of which some may be 0, do not fit {len(NAMES)} numbers"
        raise Unsupported(said, "Take more runs")
    scaled = table / cost[:, None]
    scale = np.abs(scaled).max(axis=0)
    scale[scale == 0] = 1.0
    vector = nnls(scaled / scale, np.ones(len(cost)))[0] / scale
    error = np.abs(table @ vector / cost - 1.0)
    found = dict(zip(NAMES, map(float, vector), strict=True))
    between = np.zeros(2)
    if hops:
        sizes, waits = np.asarray(hops, dtype=np.float64).T
        weight = 1.0 / np.maximum(waits, 1e-6)
        between = nnls(np.stack((weight, sizes * weight), axis=1), waits * weight)[0]
    return Costs(**found, hop=float(between[0]), hop_byte=float(between[1]), spread=float(np.median(error)))


def calibrated(scenario: StreamScenario, costs: Costs) -> StreamScenario:
    """Returns the scenario with times and speeds of this machine, so that `simulate` forecasts what `run` measures."""
    system = built(scenario)
    found = flow(system, interesting=scenario.workload.interesting)
    nodes = []
    times = _times(system, found, costs)
    hop = costs.hop + costs.hop_byte * found.nodes[0].size
    for node, time in zip(system.nodes, times, strict=True):
        places = pipe_places(node.buffer, int(found.nodes[0].size)) if node.full == "wait" else None
        nodes.append(
            StreamNode(
                name=node.name, to=node.to or None, rate=node.rate, size=node.size, ratio=node.ratio,
                classifier=node.classifier, op_energy=node.op_energy, complexity=node.complexity,
                time=time, buffer=places, full="wait" if node.full == "wait" else None,
                link=StreamLink(energy=node.link.energy, delay=hop if node.to else 0.0),
            )
        )  # fmt: skip
    workload = msgspec.structs.replace(scenario.workload, nodes=tuple(nodes), filter=None, system="")
    return msgspec.structs.replace(scenario, workload=workload, plan=StreamPlan())


def _times(system: System, found: Flow, costs: Costs) -> list[float]:
    """Returns seconds a sample of each node: how much it waits follows from how fast the slowest lets samples go."""
    rate = system.nodes[0].rate
    assert rate is not None
    shares = [at.rate / found.nodes[0].rate for at in found.nodes]
    idle = [0.0] * len(shares)
    times: list[float] = []
    for _ in range(8):
        times = [
            costs.node(
                sensor=i == 0, last=i == len(shares) - 1, size=at.size, ops=at.ops,
                passed=at.out / at.rate if at.rate > 0 else 0.0, idle=idle[i],
            )
            for i, at in enumerate(found.nodes)
        ]  # fmt: skip
        made = min(rate, 1.0 / max(share * time for share, time in zip(shares, times, strict=True)))
        idle = [max(0.0, 1.0 - made * share * time) for share, time in zip(shares, times, strict=True)]
    return times
