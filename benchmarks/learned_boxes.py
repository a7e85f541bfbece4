"""The four black boxes of `benchmarks.learned`: knobs, what a launch costs, and the best there is, known by asking all.

Chosen on 25 November 2026 before the searcher was tried on any of them; it was tuned on plans of other models
alone (13B and 22B on 64 GPUs, 7B on 32).
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.records import data_path
from fleetcast.cost.training import network as networks
from fleetcast.cost.training import system as systems
from fleetcast.cost.training.memory import memory
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.plans import SCHEDULES, TENSOR_MESSAGES
from fleetcast.cost.training.step import step
from fleetcast.scenario.fleet.spec import Fleet
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.training_plan import TrainingPlan
from fleetcast.scenario.workload.training import Shape
from fleetcast.search.learned import Knob, Knobs
from fleetcast.search.learned.knobs import Value
from fleetcast.search.training.exhaust import exhaust
from fleetcast.search.training.learned import knobs_of, plans_of
from fleetcast.search.training.space import Question, space

HIDDEN = ("tensor", "pipeline", "data", "optimizer")
"""What plans may hide behind computation: every set of these is a choice."""


@dataclass(frozen=True)
class Box:
    """A black box.

    Attributes:
        name: for people.
        knobs: what may be set.
        launch: what a setting costs; None = it fails.
        best: the least cost of all settings.
        size: allowed settings.
        fails: share of them that fail; nan = not counted.
    """

    name: str
    knobs: Knobs
    launch: Callable[[Mapping[str, Value]], float | None]
    best: float
    size: int
    fails: float


def training(layers: int = 96, hidden: int = 12288, heads: int = 96, batch: int = 1536, devices: int = 1024,
             device: str = "a100-80g-sxm", name: str = "plans of GPT-3 175B on 1,024 A100") -> Box:  # fmt: skip
    """Returns the plans of a GPT: seconds of an iteration, those that do not fit fail."""
    net = networks.of(Shape(layers=layers, hidden=hidden, heads=heads).model(2048))
    hiding = tuple(
        tuple(word for word, used in zip(HIDDEN, bits, strict=True) if used)
        for bits in itertools.product((0, 1), repeat=4)
    )
    asked = TrainingPlan(schedule=SCHEDULES, tensor_messages=TENSOR_MESSAGES, overlap=hiding)
    every = space(Question(net, 2048, batch, devices, asked))
    system, job = systems.of(resolve(Fleet(devices=f"{devices}x {device}")).groups[0]), Job(2048, batch)
    found = exhaust(every, net, job, system)

    def launch(setting: Mapping[str, Value]) -> float | None:
        plan = plans_of(every, setting)
        need = memory(net, job, plan, system)
        if need["total"][0] > system.memory or need["host"][0] > system.host_memory:
            return None
        return float(step(net, job, plan, system)["total"][0])

    return Box(
        name, knobs_of(every, batch, layers), launch, float(found.value.min()), len(every), 1 - found.fits / len(every)
    )


COLUMNS = ("# GPUs", "global batch", "micro batch", "hidden size", "# layers", "tensor parallelism",
           "data parallelism")  # fmt: skip
"""What may be set in vTrain's table; sequences are 1,024 long, and the rest follows."""


def measured() -> Box | None:
    """Returns vTrain's measured iterations of small GPTs on one node; GPU-seconds for 1e15 FLOP of the model."""
    path = data_path("training", "vtrain", "ground_truth_single.csv")
    if path is None:
        return None
    with path.open(encoding="utf-8-sig") as file:
        rows = [{k.strip(): float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    table: dict[tuple[Value, ...], float] = {}
    for r in rows:
        h, n, s = r["hidden size"], r["# layers"], r["sequence length"]
        flops = 96.0 * r["global batch"] * s * n * h * h * (1 + s / (6 * h) + 51200 / (16 * n * h))  # SC 2021
        key = tuple(r[c] for c in COLUMNS)
        cost = r["# GPUs"] * r["iteration time (ms)"] / 1e3 / flops * 1e15
        table[key] = min(cost, table.get(key, np.inf))
    knobs = tuple(Knob(c, tuple(sorted({int(key[i]) for key in table}))) for i, c in enumerate(COLUMNS))
    return tabled("measured iterations of small GPTs (vTrain)", knobs, table)


def tabled(name: str, knobs: tuple[Knob, ...], table: Mapping[tuple[Value, ...], float]) -> Box:
    """Returns the box of a table: settings that it does not hold are not allowed, those without a finite cost fail."""

    def allowed(columns: Mapping[str, NDArray[np.generic]]) -> NDArray[np.bool_]:
        rows = zip(*(columns[k.name].tolist() for k in knobs), strict=True)
        return np.asarray([row in table for row in rows], dtype=np.bool_)

    def launch(setting: Mapping[str, Value]) -> float | None:
        cost = table[tuple(setting[k.name] for k in knobs)]
        return cost if np.isfinite(cost) else None

    costs = np.asarray(list(table.values()))
    return Box(name, Knobs(knobs, allowed), launch, float(costs.min()), len(table), float(np.isinf(costs).mean()))


SERVED = (
    Knob("tensor_parallel", (1, 2, 4, 8)), Knob("replicas", (1, 2, 4, 8)), Knob("chunk", (256, 512, 1024, 2048, 4096)),
    Knob("max_batch", (8, 16, 32, 64, 128, 256)), Knob("batch", ("chunked", "prefill_first")),
    Knob("order", ("fifo", "shortest_prompt")), Knob("dtype", ("bf16", "fp8")),
)  # fmt: skip


@cache
def serving() -> Box:
    """Returns plans of a server, each simulated: device-seconds that a request is in it, within limits on latency."""
    import fleetcast
    from fleetcast.base.errors import FleetcastError

    table: dict[tuple[Value, ...], float] = {}
    for values in itertools.product(*(k.values for k in SERVED)):
        s = dict(zip((k.name for k in SERVED), values, strict=True))
        taken = int(s["tensor_parallel"]) * int(s["replicas"])
        if taken > 8 or (s["batch"] == "prefill_first" and s["chunk"] != 2048):
            continue
        batch = {"kind": s["batch"], "max_batch": s["max_batch"]}
        if s["batch"] == "chunked":
            batch["chunk"] = s["chunk"]
        scenario = {
            "fleet": {"devices": "8x l40s"},
            "workload": {"model": "llama-3-8b", "trace": "azure-conv-2023", "requests": 200, "speed_up": 4.0},
            "slo": {"ttft_p99": "5 s", "tpot_p99": "150 ms"},
            "plan": {
                "replicas": s["replicas"], "tensor_parallel": s["tensor_parallel"], "pipeline_parallel": 1,
                "order": s["order"], "dtype": s["dtype"], "batch": batch,
            },
        }  # fmt: skip
        try:
            outcome = fleetcast.simulate(scenario)
        except FleetcastError:
            table[values] = float("inf")
            continue
        met = outcome.slo["met"]
        table[values] = outcome.metrics["e2e"]["mean"] * taken if met else float("inf")
    return tabled("plans of a server of Llama-3 8B on 8 L40S", SERVED, table)


TILES = (
    Knob("tile m", (8, 16, 32, 64, 128, 256)), Knob("tile n", (8, 16, 32, 64, 128, 256)),
    Knob("tile k", (8, 16, 32, 64, 128, 256, 512)), Knob("unroll", (1, 2, 4, 8)), Knob("threads", (1, 2, 4, 8, 16, 32)),
    Knob("vector", (4, 8, 16)), Knob("order", ("mnk", "mkn", "nmk", "nkm", "kmn", "knm")),
    Knob("pack", ("none", "a", "b", "both")), Knob("prefetch", (0, 1, 2, 4, 8)),
)  # fmt: skip


def tiles() -> Box:
    """Returns the knobs of a tiled matrix product, by a formula (SYNTHETIC, fixed before any search): seconds.

    A product of 2,048 x 1,536 x 4,096 on 16 cores: arithmetic by how full vectors and pipelines are, traffic by what
    tiles hold in caches, rounds of threads that do not come out even. Tiles larger than the second cache fail.
    """
    m, n, k = 2048.0, 1536.0, 4096.0

    def columns(c: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float64]:
        tm, tn, tk, unroll, threads, vector, ahead = (
            np.asarray(c[name], dtype=np.float64)
            for name in ("tile m", "tile n", "tile k", "unroll", "threads", "vector", "prefetch")
        )
        order, pack = np.asarray(c["order"]), np.asarray(c["pack"])
        held = 4.0 * (tm * tk + tk * tn + tm * tn)
        tasks = np.ceil(m / tm) * np.ceil(n / tn)
        used = np.minimum(threads, 16.0)
        even = np.ceil(tasks / used) * used / tasks
        registers = unroll * tn / vector / 16.0
        full = vector / 16.0 * np.where(registers > 2.0, 0.55, np.where(registers < 0.25, 0.6, 1.0))
        chained = unroll / (unroll + 1.2)
        seconds = 2 * m * n * k / (5e10 * full * chained * used * np.where(threads > 16, 0.93, 1.0)) * even
        strided = np.where(np.isin(pack, ["b", "both"]), 1.0, np.where(np.char.endswith(order, "n"), 1.15, 2.1))
        strided = strided * np.where(
            np.isin(pack, ["a", "both"]), 1.0, np.where(np.char.endswith(order, "k"), 1.05, 1.4)
        )
        spills = np.where(held > 32768, 1.0 + 0.35 * np.log2(held / 32768), 1.0)
        again = np.where(np.char.startswith(order, "k"), 2.0 * k / tk, 1.0) * m * n * 4.0
        traffic = m * n * k * 4.0 * (1.0 / tm + 1.0 / tn) * strided + again
        hidden = 1.0 / (1.0 + 0.12 * np.minimum(ahead, 4.0)) * np.where(ahead > 4, 1.2, 1.0)
        packing = np.where(pack == "both", 2.0, np.where(pack == "none", 0.0, 1.0)) * (m * k + k * n) * 4.0 / 2e10
        time = np.maximum(seconds, 0.0) * spills + traffic / 4e10 * hidden + packing + 4e-6 * threads + 3e-7 * tasks
        return np.where(held > 1 << 20, np.inf, time)

    knobs = Knobs(TILES)
    grid = np.indices([len(x.values) for x in TILES]).reshape(len(TILES), -1).T
    costs = np.concatenate([columns(knobs.columns(part)) for part in np.array_split(grid, 50)])

    def launch(setting: Mapping[str, Value]) -> float | None:
        cost = float(columns({name: np.asarray([value]) for name, value in setting.items()})[0])
        return cost if np.isfinite(cost) else None

    name = "tiles and threads of a matrix product (a formula)"
    return Box(name, knobs, launch, float(costs.min()), len(grid), float(np.isinf(costs).mean()))
