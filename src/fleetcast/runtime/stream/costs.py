"""What a message costs on this machine, fitted on a few runs, and the scenario that forecasts others with it.

CPU seconds a sample of ``b`` bytes at a node that reads it, does ``o`` operations and hands on a share ``q``:

    read + read_byte b + op o + q (send + send_byte b)

and of the sensor ``make + make_byte b + op o``, its sending included. All are at least 0. `calibrated` writes them into
a scenario as time and speed of its nodes, so that the world that knows no processes forecasts the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from fleetcast.base.errors import Unsupported
from fleetcast.cost.streams.flow import flow
from fleetcast.runtime.stream.pipeline import Seen, built, measure
from fleetcast.scenario.kinds.stream import StreamScenario
from fleetcast.scenario.stream_plan import StreamPlan
from fleetcast.scenario.workload.pipeline import System
from fleetcast.scenario.workload.scores import Classifier
from fleetcast.scenario.workload.streams import StreamNode


@dataclass(frozen=True)
class Costs:
    """CPU seconds; see the module.

    Attributes:
        make: of a sample that a sensor makes and sends; make_byte: and of each byte.
        read: of one that is read; read_byte: and of each byte.
        send: of one that is handed on; send_byte: and of each byte.
        op: of an operation.
        spread: median of |fitted / measured - 1| over the runs that it was fitted on.
    """

    make: float
    make_byte: float
    read: float
    read_byte: float
    send: float
    send_byte: float
    op: float
    spread: float

    def node(self, *, sensor: bool, last: bool, size: float, ops: float, passed: float) -> float:
        """Returns CPU seconds a sample of a node."""
        return float(np.dot(_row(sensor, last, size, ops, passed), self._vector()))

    def _vector(self) -> list[float]:
        return [self.make, self.make_byte, self.read, self.read_byte, self.send, self.send_byte, self.op]


def _row(sensor: bool, last: bool, size: float, ops: float, passed: float) -> list[float]:
    if sensor:
        return [1.0, size, 0.0, 0.0, 0.0, 0.0, ops]
    out = 0.0 if last else passed
    return [0.0, 0.0, 1.0, size, out, out * size, ops]


SETTINGS = (
    (4_096, 1.0, 2.0), (16_384, 6.0, 8.0), (65_536, 2.0, 20.0), (65_536, 12.0, 2.0), (262_144, 1.0, 4.0),
    (262_144, 8.0, 20.0),
)  # fmt: skip
"""Bytes of a sample, operations a byte at the filter, ratio: the runs that costs are fitted on."""


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
    settings: Sequence[tuple[int, float, float]] = SETTINGS, *, seconds: float = 1.0, seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Costs:  # fmt: skip
    """Returns what messages cost here, from runs that make samples as fast as they can.

    Args:
        settings: (bytes, operations a byte at the filter, ratio) of each run.
        seconds: about what a run takes.
        seed: of the samples.
        progress: told (runs done, runs).

    Raises:
        Unsupported: pipes cannot be had here.
    """
    rows: list[list[float]] = []
    found: list[float] = []
    for i, (size, passes, ratio) in enumerate(settings):
        # about what it takes at 4 GB/s and 20 us a message: only how long the run is depends on it
        guess = 2e-5 + size * (passes + 2) / 4e9
        scenario = line(size, passes, ratio, rate=1e7, samples=max(400, min(40_000, int(seconds / guess))), seed=seed)
        system = built(scenario)
        seen, _ = measure(scenario, system)
        for row, cost in costs_of(system, seen):
            rows.append(row)
            found.append(cost)
        if progress is not None:
            progress(i + 1, len(settings))
    return fit(rows, found)


def costs_of(system: System, seen: Sequence[Seen]) -> list[tuple[list[float], float]]:
    """Returns, of each node that got samples, its row of the fit and its CPU seconds a sample."""
    found = []
    for i, (at, s) in enumerate(zip(flow(system).nodes, seen, strict=True)):
        if s.count:
            passed = s.passed / s.count
            found.append((_row(i == 0, i == len(seen) - 1, at.size, at.ops, passed), s.each))
    return found


def fit(rows: Sequence[Sequence[float]], seconds: Sequence[float]) -> Costs:
    """Returns costs at least 0 that fit best, in relative error.

    Args:
        rows: of the fit, as `costs_of` makes them.
        seconds: CPU seconds of each.

    Raises:
        Unsupported: too few rows, or a cost of 0.
    """
    from scipy.optimize import nnls

    table, cost = np.asarray(rows, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    if len(cost) < 7 or (cost <= 0).any():
        raise Unsupported(f"{len(cost)} costs of nodes, of which some may be 0, do not fit 7 numbers", "Take more runs")
    scaled = table / cost[:, None]
    scale = np.abs(scaled).max(axis=0)
    scale[scale == 0] = 1.0
    vector = nnls(scaled / scale, np.ones(len(cost)))[0] / scale
    error = np.abs(table @ vector / cost - 1.0)
    names = ("make", "make_byte", "read", "read_byte", "send", "send_byte", "op")
    found = dict(zip(names, map(float, vector), strict=True))
    return Costs(**found, spread=float(np.median(error)))


def calibrated(scenario: StreamScenario, costs: Costs) -> StreamScenario:
    """Returns the scenario with times and speeds of this machine, so that `simulate` forecasts what `run` measures."""
    system = built(scenario)
    found = flow(system, interesting=scenario.workload.interesting)
    nodes = []
    for i, (node, at) in enumerate(zip(system.nodes, found.nodes, strict=True)):
        sensor, last = node.rate is not None, i == len(system.nodes) - 1
        passed = at.out / at.rate if at.rate > 0 else 0.0
        time = costs.node(sensor=sensor, last=last, size=at.size, ops=at.ops, passed=passed)
        nodes.append(
            StreamNode(
                name=node.name, to=node.to or None, rate=node.rate, size=node.size, ratio=node.ratio,
                classifier=_plain(node.classifier), op_energy=node.op_energy, complexity=node.complexity,
                time=time, buffer=node.buffer, full="wait" if node.full == "wait" else None,
            )
        )  # fmt: skip
    workload = msgspec.structs.replace(scenario.workload, nodes=tuple(nodes), filter=None, system="")
    return msgspec.structs.replace(scenario, workload=workload, plan=StreamPlan())


def _plain(classifier: Classifier | None) -> Classifier | None:
    return classifier
