"""From a multi-task scenario to its graph: what every pass costs on every number of devices, what fits, what syncs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache

import numpy as np

from fleetcast.cost.training.network import Job, Network
from fleetcast.cost.training.network import of as network_of
from fleetcast.cost.training.scaling import head_time, kept, layer_time
from fleetcast.cost.training.system import System
from fleetcast.cost.training.work import spread_time
from fleetcast.scenario.workload.multitask import Module, Multitask
from fleetcast.search.waves.curves import Curve, curve
from fleetcast.search.waves.graph import Graph, MetaOp, contract
from fleetcast.search.waves.place import Timetable, Wires

RESERVE = 2.0e9
"""B of a device that its driver and libraries take, as in `cost.training.memory`."""


@dataclass(frozen=True)
class Work:
    """What makes operators alike: the layer, its samples, their length; a head is a layer of its own."""

    module: str
    head: bool
    sequence: int
    batch: int


@dataclass(frozen=True)
class Built:
    """A workload as a graph.

    Attributes:
        graph: MetaOps.
        operators: how many there were before they were contracted.
        works: of each MetaOp.
        params: parameters of each module.
        kept: of each MetaOp, B that its samples leave on one device for the backward pass, all on it.
    """

    graph: Graph
    operators: int
    works: tuple[Work, ...]
    params: dict[str, float]
    kept: tuple[float, ...]


def wires_of(system: System) -> Wires:
    """Returns how devices are joined, as placement sees it."""
    return Wires(system.node, system.inner.bandwidth, system.outer.bandwidth, system.outer.latency)


def build(workload: Multitask, devices: int, system: System, *, dtype: str = "bf16", recompute: int = 0) -> Built:
    """Returns the graph of a workload.

    Args:
        workload: tasks and modules.
        devices: that they share.
        system: a device, and how they are joined.
        dtype: of the products.
        recompute: index into ``cost.training.plans.RECOMPUTE``.
    """
    kinds: list[Work] = []
    labels: list[tuple[str, str]] = []
    edges: list[tuple[int, int]] = []
    for task in workload.tasks:
        last: dict[str, int] = {}
        for one in task.passes:
            module = workload.modules[one.module]
            feeds = [last[name] for name in one.after]
            for at in range(module.layers + (module.vocab > 0)):
                node = len(kinds)
                kinds.append(Work(one.module, at == module.layers, one.sequence, task.batch))
                labels.append((task.name, one.label))
                edges += [(feed, node) for feed in feeds]
                feeds = [node]
            last[one.label] = feeds[0]
    # Passes of two tasks are never one chain: operators of a chain carry their task in their kind.
    chains, between = contract([(kind, label) for kind, label in zip(kinds, labels, strict=True)], edges)
    after = defaultdict(list)
    for a, b in between:
        after[b].append(a)
    price = cache(lambda work: _curve(workload.modules[work.module], work, devices, system, dtype, recompute))
    made, works, held = [], [], []
    for i, chain in enumerate(chains):
        work, (task_name, label) = kinds[chain[0]], labels[chain[0]]
        module = workload.modules[work.module]
        net, job = _network(module), Job(work.sequence, work.batch, dtype)
        made.append(
            MetaOp(
                name=f"{task_name}/{label}{' head' if work.head else ''}", count=len(chain), curve=price(work),
                after=tuple(sorted(after[i])), task=task_name, weights=work.module,
                size=0.0 if work.head else 2.0 * work.batch * work.sequence * module.hidden,
            )
        )  # fmt: skip
        alone = np.ones(1, dtype=np.int64)
        tokens = float(work.batch) * work.sequence
        held.append(
            tokens * module.vocab * 6.0 if work.head else float(kept(net, job, alone, recompute)[0]) * len(chain)
        )
        works.append(work)
    params = {name: float(_params(module)) for name, module in workload.modules.items()}
    return Built(tuple(made), len(kinds), tuple(works), params, tuple(held))


def _network(module: Module) -> Network:
    return network_of(module.model(1, "workload.modules"))


def _params(module: Module) -> int:
    layer = _network(module).layers[0]
    return module.layers * layer.params + module.vocab * module.hidden


def _curve(module: Module, work: Work, devices: int, system: System, dtype: str, recompute: int) -> Curve:
    counts = np.arange(1, min(devices, work.batch) + 1, dtype=np.int64)
    job = Job(work.sequence, work.batch, dtype)
    if work.head:
        seconds = head_time(module.hidden, module.vocab, job, counts, system)
    else:
        seconds = layer_time(_network(module), job, counts, system, causal=module.causal, recompute=recompute)
    return curve([int(n) for n in counts], [float(t) for t in seconds])


def homes(built: Built, table: Timetable) -> dict[str, set[int]]:
    """Returns the devices that hold each module's weights."""
    found: dict[str, set[int]] = defaultdict(set)
    for slot in table.slots:
        found[built.graph[slot.op].weights].update(slot.devices)
    return dict(found)


def sync(built: Built, system: System, table: Timetable) -> float:
    """Returns seconds in which copies add up their gradients once all has run: of the device that takes longest.

    Modules on other devices add up side by side; a device that holds several does so one after the other.
    """
    busy: dict[int, float] = defaultdict(float)
    for name, devices in homes(built, table).items():
        nodes = {d // system.node for d in devices}
        size = np.array([built.params[name] * 4.0])
        ranks = np.array([len(devices)], dtype=np.int32)
        stride = np.ones(1, dtype=np.int32) if len(nodes) == 1 or len(devices) > len(nodes) else np.array([system.node])
        seconds = float(spread_time("all_reduce", size, ranks, stride.astype(np.int32), system)[0])
        for d in devices:
            busy[d] += seconds
    return max(busy.values(), default=0.0)


def memory(built: Built, table: Timetable) -> tuple[float, int]:
    """Returns (B of the fullest device, which it is): weights, gradients, optimizer, what backward passes need.

    The optimizer's states are shared out by the copies of a module (ZeRO 1).
    """
    held: dict[int, float] = defaultdict(lambda: RESERVE)
    for name, devices in homes(built, table).items():
        for d in devices:
            held[d] += built.params[name] * (6.0 + 12.0 / len(devices))
    for slot in table.slots:
        part = built.kept[slot.op] * slot.count / built.graph[slot.op].count / len(slot.devices)
        for d in slot.devices:
            held[d] += part
    fullest = max(held, key=lambda d: (held[d], -d))
    return held[fullest], fullest
