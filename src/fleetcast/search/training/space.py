"""The space of training plans: every way to spread a model, a batch and an optimizer over a fleet's devices.

A plan is a *layout* (degrees, micro-batch, pieces, schedule: what divisibility ties together) and a *choice*
(recompute, sharding, offload, messages, overlap: what goes with every layout). The space is their product: a plan's
number is ``layout x choices + choice``, and columns are made of numbers, a chunk at a time, so that the space is never
held as a whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError
from fleetcast.cost.training.network import Network
from fleetcast.cost.training.plans import (
    OFFLOADED,
    OVERLAPS,
    RECOMPUTE,
    SCHEDULES,
    TENSOR_MESSAGES,
    Plans,
    code,
)
from fleetcast.cost.training.schedule import whole_pieces
from fleetcast.scenario.training_plan import DEGREES, TrainingPlan

Column = NDArray[np.int32]
LAYOUT = ("tensor", "pipeline", "data", "context", "expert", "micro_batch", "interleave", "schedule")
CHOICE = ("recompute", "sequence_parallel", "zero", "offload", "tensor_messages", "overlap", "fused")
_PIECEWISE = SCHEDULES.index("interleaved")
_DUAL = SCHEDULES.index("dualpipe")


@dataclass(frozen=True)
class Question:
    """What the space depends on.

    Attributes:
        network: the model.
        sequence: tokens of a sequence.
        batch: sequences of an iteration.
        devices: how many the plans take.
        plan: what is decided, what is listed, what is open.
    """

    network: Network
    sequence: int
    batch: int
    devices: int
    plan: TrainingPlan


@dataclass(frozen=True)
class Space:
    """All plans of a question.

    Attributes:
        layouts: columns of ``LAYOUT``, one row per layout.
        choices: columns of ``CHOICE``, one row per choice.
    """

    layouts: dict[str, Column]
    choices: dict[str, Column]

    def __len__(self) -> int:
        """Returns how many plans."""
        return len(self.layouts["tensor"]) * self.per_layout

    @property
    def per_layout(self) -> int:
        """How many plans share a layout."""
        return len(self.choices["recompute"])

    def only(self, kept: NDArray[np.bool_]) -> Space:
        """Returns the space of these layouts alone."""
        return Space({name: column[kept] for name, column in self.layouts.items()}, self.choices)

    def plans(self, numbers: NDArray[np.int64]) -> Plans:
        """Returns the plans of these numbers, as columns."""
        layout, choice = np.divmod(numbers, self.per_layout)
        columns: dict[str, Column] = {name: self.layouts[name][layout] for name in LAYOUT}
        columns |= {name: self.choices[name][choice] for name in CHOICE}
        columns["expert_tensor"] = columns["tensor"]
        return Plans(**{f.name: columns[f.name] for f in fields(Plans)})


def space(question: Question, path: str = "plan") -> Space:
    """Returns the space of a question.

    Raises:
        SpecError: a degree that divides nothing, or degrees whose product is not the number of devices; names the
            divisor.
    """
    found = list(_layouts(question))
    if not found:
        raise explain(question, path)
    table = np.asarray(found, dtype=np.int32)
    layouts = {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(LAYOUT)}
    axes = _choices(question.plan)
    grid = np.asarray(list(itertools.product(*axes)), dtype=np.int32)
    choices = {name: np.ascontiguousarray(grid[:, i]) for i, name in enumerate(CHOICE)}
    return Space(layouts, choices)


def _choices(plan: TrainingPlan) -> tuple[list[int], ...]:
    """Returns the codes that each of ``CHOICE`` may take: those decided or listed, else the ones worth a search."""
    recompute = [RECOMPUTE.index(word) for word in _listed(plan.recompute)] or list(range(len(RECOMPUTE)))
    parallel = [int(flag) for flag in _listed(plan.sequence_parallel)] or [0, 1]
    zero = [int(level) for level in _listed(plan.zero)] or [0, 1, 2, 3]
    offload = sets(plan.offload, OFFLOADED) or list(range(1 << len(OFFLOADED)))
    messages = [TENSOR_MESSAGES.index(word) for word in _listed(plan.tensor_messages)] or [0]
    overlap = sets(plan.overlap, OVERLAPS) or [code(OVERLAPPED, OVERLAPS)]
    fused = [int(flag) for flag in _listed(plan.fused_attention)] or [1]
    return recompute, parallel, zero, offload, messages, overlap, fused


OVERLAPPED: tuple[str, ...] = ("data",)
"""What a plan hides behind computation where it does not say: the engines' default, gradients while they are made."""


def sets(value: tuple[str | tuple[str, ...], ...] | None, known: Sequence[str]) -> list[int]:
    """Returns the bits of each set that a field lists; a list of words is one set, None is no set."""
    if value is None:
        return []
    if all(isinstance(item, str) for item in value):
        return [code([str(item) for item in value], known)]
    return [code((item,) if isinstance(item, str) else item, known) for item in value]


SEARCHED = ("1f1b", "interleaved", "zero-bubble")
"""Schedules that a plan may follow where it does not say: those that engines run. GPipe is never quicker than 1F1B;
DualPipe holds every weight twice, and is searched where it is named."""


def _listed(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def divisors(number: int) -> list[int]:
    """Returns the divisors of a number, growing."""
    low = [n for n in range(1, int(number**0.5) + 1) if number % n == 0]
    return low + [number // n for n in reversed(low) if n * n != number]


def _layouts(q: Question) -> Iterator[tuple[int, ...]]:
    """Yields the rows of ``LAYOUT`` that divisibility lets through."""
    for tensor in _within(q.plan.tensor_parallel, q.devices):
        if not fits_tensor(q.network, tensor):
            continue
        for pipeline in _within(q.plan.pipeline_parallel, q.devices // tensor):
            if not fits_pipeline(q.network, pipeline):
                continue
            rest = q.devices // tensor // pipeline
            for context in _within(q.plan.context_parallel or 1, rest):
                if not fits_context(q.sequence, context):
                    continue
                data = rest // context
                if data not in (_listed(q.plan.data_parallel) or (data,)) or q.batch % data:
                    continue
                for expert in _experts(q, data * context):
                    yield from (
                        (tensor, pipeline, data, context, expert, micro, pieces, schedule)
                        for micro, pieces, schedule in _steps(q, pipeline, data)
                    )


def _within(asked: int | tuple[int, ...] | None, room: int) -> list[int]:
    """Returns the degrees that divide ``room``: those asked for, or all."""
    return [n for n in (_listed(asked) or divisors(room)) if room % n == 0]


def _experts(q: Question, ranks: int) -> list[int]:
    """Returns the degrees of expert parallelism over so many ranks."""
    if not q.network.experts:
        return [n for n in _listed(q.plan.expert_parallel) or (1,) if n == 1]
    return [n for n in _within(q.plan.expert_parallel, ranks) if q.network.experts % n == 0]


def _steps(q: Question, pipeline: int, data: int) -> Iterator[tuple[int, int, int]]:
    """Yields (micro-batch, pieces of a stage, schedule) of one layout."""
    share = q.batch // data
    wanted = [SCHEDULES.index(word) for word in _listed(q.plan.schedule) or SEARCHED]
    for micro in _within(q.plan.micro_batch, share):
        count = share // micro
        for pieces in _listed(q.plan.interleave) or divisors(-(-q.network.depth // pipeline)):
            for schedule in schedules(pipeline, pieces, count, q.network.depth):
                if schedule in wanted or pipeline == 1:
                    yield micro, pieces, schedule


def schedules(pipeline: int, pieces: int, micro_batches: int, depth: int) -> list[int]:
    """Returns the codes of the schedules that a pipeline may follow.

    Interleaving takes whole rounds of micro-batches (Megatron-LM) and layers that divide; DualPipe an even number of
    stages and two micro-batches for each.
    """
    if pipeline == 1:
        return [SCHEDULES.index("1f1b")] if pieces == 1 else []
    if pieces > 1:
        whole = whole_pieces(depth, pipeline, pieces) and micro_batches % pipeline == 0
        return [_PIECEWISE] if whole else []
    found = [SCHEDULES.index(name) for name in ("gpipe", "1f1b", "zero-bubble")]
    return [*found, _DUAL] if pipeline % 2 == 0 and micro_batches >= 2 * pipeline else found


def fits_tensor(network: Network, tensor: int) -> bool:
    """Returns whether each rank gets whole heads, of keys too or a copy of one, and an equal part of each layer."""
    for layer in network.layers:
        keys = layer.kv_heads
        uneven = layer.heads % tensor or (keys % tensor and tensor % max(keys, 1))
        if layer.heads and uneven:
            return False
        if layer.ffn % tensor or layer.expert_ffn % tensor:
            return False
    return network.hidden % tensor == 0


def fits_pipeline(network: Network, pipeline: int) -> bool:
    """Returns whether each stage gets a layer, and the fullest no more than one more than an equal share."""
    return pipeline <= network.depth


def fits_context(sequence: int, context: int) -> bool:
    """Returns whether each rank gets two equal pieces of a sequence, from its head and its tail, as causality asks."""
    return context == 1 or sequence % (2 * context) == 0


def explain(q: Question, path: str = "plan") -> SpecError:
    """Returns the error of a question whose space is empty: the first divisor that fails."""
    asked = {name: _listed(getattr(q.plan, name)) for name in DEGREES}
    net = q.network
    rules = (
        ("tensor_parallel", lambda n: fits_tensor(net, n), f"{net.layers[0].heads} heads, hidden {net.hidden}"),
        ("pipeline_parallel", lambda n: fits_pipeline(net, n), f"{net.depth} layers"),
        ("context_parallel", lambda n: fits_context(q.sequence, n), f"two pieces each of {q.sequence} tokens"),
        ("expert_parallel", lambda n: n == 1 or (net.experts and net.experts % n == 0), f"{net.experts} experts"),
        ("data_parallel", lambda n: q.batch % n == 0, f"a batch of {q.batch}"),
    )
    for name, rule, whole in rules:
        if asked[name] and not any(rule(n) for n in asked[name]):
            return SpecError(
                f"{path}.{name}", "does not divide what it splits", value=_shown(asked[name]),
                limit=f"divisors of {whole}" if name != "pipeline_parallel" else f"at most {whole}",
                hint="Leave it out: the search takes what fits",
            )  # fmt: skip
    known = [n for name in DEGREES[:4] for n in asked[name][:1]]
    product = int(np.prod(known)) if known else 1
    if known and (q.devices % product or (len(known) == 4 and product != q.devices)):
        words = " x ".join(f"{name} {asked[name][0]}" for name in DEGREES[:4] if asked[name])
        return SpecError(
            path, f"takes {product} devices: {words}", value=product, limit=f"a divisor of the fleet's {q.devices}",
            hint="Change a degree or fleet.devices, or leave data_parallel out",
        )  # fmt: skip
    freed = msgspec.structs.replace(q.plan, schedule=None, interleave=None)
    if freed != q.plan and next(_layouts(replace(q, plan=freed)), None) is not None:
        return SpecError(
            f"{path}.schedule", "suits no layout", value=_shown(_listed(q.plan.schedule) or _listed(q.plan.interleave)),
            limit="interleave takes layers that fill stages x interleave, and micro-batches by stages; "
            "dualpipe an even number of stages and twice as many micro-batches",
            hint="Leave schedule and interleave out",
        )  # fmt: skip
    if q.plan.micro_batch is not None:
        return SpecError(
            f"{path}.micro_batch", "does not divide the sequences of a copy", value=_shown(_listed(q.plan.micro_batch)),
            limit=f"batch {q.batch} = data_parallel x micro_batch x a whole number", hint="Write 1, or leave it out",
        )  # fmt: skip
    return SpecError(
        "workload.batch", "splits over no layout of the fleet", value=q.batch,
        limit=f"a multiple of the copies that {q.devices} devices make", hint="Change the batch or fleet.devices",
    )  # fmt: skip


def _shown(values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else list(values)
