"""Spaces of training plans drawn at random, and their best plan found by loops: the oracle of the search.

Nothing is shared with the search but the measured curves that both look up: degrees are tried one by one, rules are
written out, every plan is costed alone with plain numbers (`tests.cost.training.plain`), and the least is kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from fleetcast.cost.training import network as networks
from fleetcast.cost.training import system as systems
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.plans import plans
from fleetcast.cost.training.system import System
from fleetcast.scenario.fleet.spec import Fleet
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.training_plan import TrainingPlan
from fleetcast.scenario.workload.training import Shape
from fleetcast.search.training.exhaust import exhaust
from fleetcast.search.training.space import Question, space
from tests.cost.training import plain

OPEN = ("recompute", "sequence_parallel", "zero", "offload", "tensor_messages", "overlap", "fused_attention")
LAYOUT = ("tensor", "pipeline", "data", "expert", "micro_batch", "interleave", "schedule")
LARGEST = 10_000


@dataclass(frozen=True)
class Case:
    """A space small enough for loops."""

    question: Question
    shape: Shape
    job: Job
    system: System


@dataclass(frozen=True)
class Best:
    """What loops found: how many plans, how many fit, and s of the best iteration of each layout that has one."""

    plans: int
    fits: int
    layouts: dict[tuple[Any, ...], float]

    @property
    def seconds(self) -> float:
        """Seconds of the best iteration of all; infinite = none fits."""
        return min(self.layouts.values(), default=float("inf"))


def divide(number: int) -> list[int]:
    """Returns the divisors of a number."""
    return [n for n in range(1, number + 1) if number % n == 0]


def case(seed: int, largest: int = LARGEST) -> Case:
    """Returns a space of at most so many plans, drawn by ``seed``: model, batch, devices, open choices."""
    rng = np.random.default_rng(seed)
    while True:
        heads = int(rng.choice([4, 6, 8, 12, 16, 32]))
        shape = Shape(
            layers=int(rng.choice([2, 3, 4, 6, 8, 12, 24])), hidden=heads * int(rng.choice([64, 96, 128])), heads=heads,
            kv_heads=int(rng.choice(divide(heads))), gated=bool(rng.integers(2)),
            experts=int(rng.choice([0, 0, 4, 8])), vocab=int(rng.choice([32000, 51200])),
        )  # fmt: skip
        devices, device = int(rng.choice([1, 2, 4, 8, 16, 24, 32])), str(rng.choice(["a100-40g-sxm", "h100-sxm", "l4"]))
        sequence, batch = int(rng.choice([1024, 2048, 4096])), int(rng.choice([4, 8, 12, 16, 32]))
        some: dict[str, Any] = {}
        openness = rng.uniform(0.3, 1.0)
        for name, values in (
            ("recompute", ("none", "selective", "full")), ("zero", (0, 1, 2, 3)), ("sequence_parallel", (False, True)),
            ("tensor_messages", ("all_reduce", "scatter_gather")), ("fused_attention", (True, False)),
            ("offload", ((), ("optimizer",), ("activations", "weights"))),
            ("overlap", ((), ("data",), ("tensor", "pipeline"), ("data", "optimizer"))),
        ):  # fmt: skip
            some[name] = tuple(v for v in values if rng.random() < openness) or (values[0],)
        question = Question(networks.of(shape.model(sequence)), sequence, batch, devices, TrainingPlan(**some))
        found = Case(
            question, shape, Job(sequence, batch), systems.of(resolve(Fleet(devices=f"{devices}x {device}")).groups[0])
        )
        if 0 < sum(1 for _ in every(question, shape, largest)) <= largest:
            return found


def every(q: Question, shape: Shape, limit: int = LARGEST) -> Iterator[dict[str, Any]]:
    """Yields every plan that the rules let through, at most ``limit`` and one more."""
    layer, keys = q.network.layers[0], shape.kv_heads or shape.heads
    choices = [dict(zip(OPEN, row, strict=True)) for row in itertools.product(*(getattr(q.plan, n) for n in OPEN))]
    count = 0
    for tensor, pipeline in itertools.product(divide(q.devices), divide(q.devices)):
        if q.devices % (tensor * pipeline) or pipeline > shape.layers or shape.heads % tensor:
            continue
        if (keys % tensor and tensor % keys) or any(
            n % tensor for n in (q.network.hidden, layer.ffn, layer.expert_ffn)
        ):
            continue
        data = q.devices // tensor // pipeline
        if q.batch % data:
            continue
        for expert, micro in itertools.product(divide(data) if shape.experts else [1], divide(q.batch // data)):
            if shape.experts and shape.experts % expert:
                continue
            for pieces, schedule in orders(pipeline, shape.layers, q.batch // data // micro):
                for choice in choices:
                    yield {
                        "tensor": tensor, "pipeline": pipeline, "data": data, "expert": expert, "micro_batch": micro,
                        "interleave": pieces, "schedule": schedule, **choice,
                    }  # fmt: skip
                    count += 1
                    if count > limit:
                        return


def orders(pipeline: int, layers: int, micro_batches: int) -> list[tuple[int, str]]:
    """Returns (pieces of a stage, schedule) that so many stages may follow."""
    if pipeline == 1:
        return [(1, "1f1b")]
    found = [(1, "1f1b"), (1, "zero-bubble")]
    for pieces in range(2, layers + 1):
        each, parts = -(-layers // pipeline), pipeline * pieces
        spare = min(n * parts - layers for n in range(1, layers + 1) if n * parts >= layers)
        if each % pieces == 0 and spare <= 2 and micro_batches % pipeline == 0:  # embedding and head take a place each
            found.append((pieces, "interleaved"))
    return found


def best(found: Case) -> Best:
    """Returns the best plan of every layout, every plan costed alone."""
    net, job, system = found.question.network, found.job, found.system
    total, fitting, layouts = 0, 0, dict[tuple[Any, ...], float]()
    with remembered(system):
        for one in every(found.question, found.shape):
            plan = as_plan(one)
            total += 1
            device, host = plain.room(net, job, plan, system)
            if device > system.memory or host > system.host_memory:
                continue
            fitting += 1
            key = tuple(getattr(plan, name) for name in LAYOUT)
            taken = plain.seconds(net, job, plan, system)["total"]
            layouts[key] = min(taken, layouts.get(key, taken))
    return Best(total, fitting, layouts)


def searched(found: Case) -> Best:
    """Returns what the search itself says of the space."""
    q = found.question
    result = exhaust(space(q), q.network, found.job, found.system)
    rows = np.stack([result.space.layouts[name] for name in LAYOUT], axis=1).tolist()
    values = {
        tuple(r): float(v) for r, v, i in zip(rows, result.value, result.best.tolist(), strict=True) if i >= 0
    }  # fmt: skip
    return Best(result.checked, result.fits, values)


def apart(one: Best, other: Best) -> float:
    """Returns the largest relative difference of a layout's best; infinite where counts or layouts differ."""
    if (one.plans, one.fits, one.layouts.keys()) != (other.plans, other.fits, other.layouts.keys()):
        return float("inf")
    return max((abs(other.layouts[key] / taken - 1.0) for key, taken in one.layouts.items()), default=0.0)


def as_plan(one: dict[str, Any]) -> plain.Plan:
    """Returns a plan's words as numbers."""
    fused = int(one["fused_attention"])
    return plain.Plan(plans(**{k: v for k, v in one.items() if k != "fused_attention"}, fused=fused), 0)


@contextmanager
def remembered(system: System) -> Iterator[None]:
    """Lets the oracle look up a curve once for each argument: pure functions that all plans ask the same few things."""
    known = plain.product, plain.collective
    product = lru_cache(maxsize=None)(lambda m, n, k, dtype: known[0](m, n, k, dtype, system))
    collective = lru_cache(maxsize=None)(lambda name, size, n, apart: known[1](name, size, n, apart, system))
    plain.product = lambda m, n, k, dtype, system: product(m, n, k, dtype)
    plain.collective = lambda operation, size, ranks, stride, system: collective(operation, size, ranks, stride)
    try:
        yield
    finally:
        plain.product, plain.collective = known
