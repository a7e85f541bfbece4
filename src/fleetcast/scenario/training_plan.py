"""Plan of a training job: how the model, the batch and the optimizer are spread, and what is kept or recomputed.

Like the pools of a serving plan, every field is one value, a list of values to search, or left out: `plan` searches it
and `simulate` takes its default where there is one.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any

import msgspec

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.spec import Spec, convert, to_builtins

Table = dict[str, Any]

SCHEDULES = ("gpipe", "1f1b", "interleaved", "zero-bubble", "dualpipe")
"""In which order a pipeline's stages work through the micro-batches."""
RECOMPUTE = ("none", "selective", "full")
"""What is computed anew in the backward pass: nothing, attention's quadratic part, or whole layers."""
OFFLOADED = ("weights", "activations", "optimizer")
"""What may lie in the host's memory or on its disks."""
OVERLAPS = ("tensor", "pipeline", "data", "input", "optimizer")
"""What may be hidden behind computation: the messages of each kind of parallelism, data loading, optimizer."""
TENSOR_MESSAGES = ("all_reduce", "scatter_gather")
"""How tensor parallelism adds up: an all-reduce, or a reduce-scatter and an all-gather."""
PLACEMENTS = ("one", "server", "parameter-server", "all-reduce-local", "all-reduce-cluster")
"""Where the weights of a job with features travel, the 1w1g, 1wNg, PS/Worker, AllReduce-Local and AllReduce-Cluster of
Alibaba-PAI; `cost.breakdown` numbers them in this order."""
DTYPES = ("bf16", "fp16", "fp32", "fp8")

Degree = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Stage = Annotated[int, msgspec.Meta(ge=0, le=3)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Degrees = Degree | tuple[Degree, ...] | None
Flags = bool | tuple[bool, ...] | None
Words = str | tuple[str, ...] | None

DEGREES = ("tensor_parallel", "pipeline_parallel", "data_parallel", "context_parallel", "expert_parallel")


class Shards(Spec):
    """How many devices share each state of the model, the nearest ones, and how it travels; ``zero`` says it for all.

    Each of the first three is a number, or a list of them to search; of lists those ways count whose levels hold each
    other.

    Attributes:
        weights: devices that share the weights.
        gradients: that share the gradients; a multiple of ``weights``.
        optimizer: that share the optimizer's states; left out = all copies; a multiple of ``gradients``.
        second: that share a second copy of the weights for the pass back (ZeRO++); 0 = there is none.
        weight_format: of weights in messages: "bf16", "fp16", "fp8", "int8" or "int4".
        gradient_format: of gradients in messages.
    """

    weights: Degree | tuple[Degree, ...]
    gradients: Degree | tuple[Degree, ...]
    optimizer: Degrees = None
    second: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    weight_format: str = "bf16"
    gradient_format: str = "bf16"

    @property
    def decided(self) -> bool:
        """Whether no level is a list."""
        return not any(isinstance(getattr(self, name), tuple) for name in LEVELS)

    def ways(self) -> list[Shards]:
        """Returns every way to share that it lists, each decided: levels that are whole parts of the next."""
        listed = [_several(getattr(self, name)) for name in LEVELS]
        return [
            msgspec.structs.replace(self, weights=w, gradients=g, optimizer=o)
            for w, g, o in itertools.product(*listed)
            if g % w == 0 and (o is None or o % g == 0)
        ]


LEVELS = ("weights", "gradients", "optimizer")


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


FORMATS = ("bf16", "fp16", "fp32", "fp8", "int8", "int4")


class TrainingPlan(Spec):
    """How a model is trained. A tuple means: search these values; None means: not decided.

    Attributes:
        tensor_parallel: devices that split each layer.
        pipeline_parallel: stages that split the layers.
        data_parallel: copies of the model that split the batch; left out = what the other degrees leave of the fleet.
        context_parallel: devices that split each sequence.
        expert_parallel: ranks, of those that split the batch, that hold different experts.
        micro_batch: sequences of one forward pass.
        interleave: parts of the model that each stage holds, in turns; 1 = one piece.
        schedule: order of the pipeline's micro-batches.
        recompute: what the backward pass computes anew.
        sequence_parallel: norms and dropout split along the sequence by the tensor-parallel devices.
        zero: what data-parallel copies share out: 0 nothing, 1 the optimizer's states, 2 gradients too, 3 weights too.
        offload: what lies in the host's memory, as a list; to search, lists in a list.
        swap: on one device, weights, activations and the optimizer stream from its host and disks, and this share of
            a layer's activations, 0 to 1, is swapped, the rest computed again; "auto" = the share of the shortest
            iteration; left out = nothing streams, and `plan` tries.
        tensor_messages: how tensor parallelism adds up.
        overlap: what is hidden behind computation, as a list; to search, lists in a list.
        dtype: of the matrices that are multiplied.
        fused_attention: attention keeps no scores in memory, as FlashAttention does; left out = true, but for GPT's
            layers on V100s and A100s, whose published runs kept them.
        practice: a file that `fleetcast calibrate` wrote from measured iterations; left out = what is known of the
            device.
        shards: what copies share out level by level of the fleet, instead of ``zero``; "auto" = the quickest that
            fits.
        recover: what is done against failures: a policy of ``policy/recover``.
        place: on which group of a fleet of several each stage lies, and how many layers it holds: a policy of
            ``policy/place/stages``.
        placement: of a workload with features alone: "one" device, the devices of one "server" over its host link, a
            "parameter-server", or all-reduce within a server or over the cluster.
        islands: experts that train apart, without any messages between them; a list to search, 1 = one model on all.
    """

    tensor_parallel: Degrees = None
    pipeline_parallel: Degrees = None
    data_parallel: Degrees = None
    context_parallel: Degrees = None
    expert_parallel: Degrees = None
    micro_batch: Degrees = None
    interleave: Degrees = None
    schedule: Words = None
    recompute: Words = None
    sequence_parallel: Flags = None
    zero: Stage | tuple[Stage, ...] | None = None
    offload: tuple[str | tuple[str, ...], ...] | None = None
    swap: Share | str | None = None
    tensor_messages: Words = None
    overlap: tuple[str | tuple[str, ...], ...] | None = None
    dtype: Words = None
    fused_attention: Flags = None
    practice: str | None = None
    shards: Shards | str | None = None
    recover: Table | str | None = None
    islands: Degrees = None
    place: Table | str | None = None
    placement: Words = None

    def table(self) -> Table:
        """Returns the plan as the table that a scenario file holds."""
        table: Table = to_builtins(self)
        return table

    def label(self) -> str:
        """Returns a short name for tables: ``TP8 PP8 DP16 mb1 selective``."""
        parts = []
        for name, short in (
            ("tensor_parallel", "TP"), ("pipeline_parallel", "PP"), ("data_parallel", "DP"), ("context_parallel", "CP"),
            ("expert_parallel", "EP"), ("micro_batch", "mb"), ("interleave", "v"), ("zero", "ZeRO"),
        ):  # fmt: skip
            value = getattr(self, name)
            always = name in ("tensor_parallel", "pipeline_parallel", "data_parallel", "micro_batch")
            if isinstance(value, int) and (always or value > (0 if name == "zero" else 1)):
                parts.append(f"{short}{value}")
        streams = isinstance(self.swap, float)
        for name in ("schedule", "recompute"):
            value = getattr(self, name)
            if isinstance(value, str) and value not in ("1f1b", "interleaved", "none") and not streams:
                parts.append(value if name == "schedule" else f"{value} recompute")
        if self.sequence_parallel is True:
            parts.append("SP")
        if isinstance(self.shards, Shards) and self.shards.decided:
            parts.append(f"shards {self.shards.weights}/{self.shards.gradients}/{self.shards.optimizer or 'all'}")
        if streams:
            late = "" if "optimizer" in (self.overlap or ()) else ", optimizer after the pass back"
            parts.append(f"streamed, {self.swap:.0%} swapped{late}")
        elif self.offload and all(isinstance(name, str) for name in self.offload):
            parts.append(f"{'+'.join(str(name) for name in self.offload)} offloaded")
        if isinstance(self.islands, int) and self.islands > 1:
            parts.insert(0, f"{self.islands} islands of")
        return " ".join(parts)


CHOICES = (
    ("schedule", SCHEDULES), ("recompute", RECOMPUTE), ("offload", OFFLOADED), ("overlap", OVERLAPS),
    ("tensor_messages", TENSOR_MESSAGES), ("dtype", DTYPES),
    ("placement", PLACEMENTS),
)  # fmt: skip
"""The words that each key may hold."""


def read_training_plan(table: Table, path: str = "plan") -> TrainingPlan:
    """Returns the plan of a training scenario's ``[plan]`` table.

    Raises:
        SpecError: unknown key or word, a degree below 1, an empty list, or the same word twice.
    """
    plan = convert(table, TrainingPlan, path)
    for name in plan.__struct_fields__:
        if getattr(plan, name) == () and name not in ("offload", "overlap"):
            raise SpecError(
                f"{path}.{name}", "lists no value to search", value=[], limit="one value, or a list of some",
                hint="Leave it out to search what fits",
            )  # fmt: skip
    _check_shards(plan, path)
    if isinstance(plan.swap, str) and plan.swap != "auto":
        raise SpecError(
            f"{path}.swap", "is unknown", value=plan.swap, limit='a share from 0 to 1, or "auto"',
            hint='Write swap = "auto"',
        )  # fmt: skip
    for name, known in CHOICES:
        for word in words(getattr(plan, name)):
            if word not in known:
                raise SpecError(
                    f"{path}.{name}", "is unknown", value=word, limit=f"one of {', '.join(known)}",
                    hint=closest(word, known),
                )  # fmt: skip
    for name in ("offload", "overlap"):
        given = getattr(plan, name) or ()
        for item in (given, *(item for item in given if not isinstance(item, str))):
            twice = [word for i, word in enumerate(item) if word in item[:i]]
            if twice:
                raise SpecError(
                    f"{path}.{name}", "names the same twice", value=twice[0], limit="each once",
                    hint="Leave one of the two out",
                )  # fmt: skip
    return plan


def _check_shards(plan: TrainingPlan, path: str) -> None:
    """Refuses shards that are no whole parts of each other, unknown formats, and ``zero`` beside them."""
    shards = plan.shards
    if shards is None:
        return
    if isinstance(shards, str):
        if shards != "auto":
            raise SpecError(
                f"{path}.shards", "is unknown", value=shards, limit='"auto", or a table of weights and gradients',
                hint="Write e.g. shards = { weights = 2, gradients = 8 }",
            )  # fmt: skip
        return
    if plan.zero not in (None, 0):
        raise SpecError(
            f"{path}.zero", f"stands beside {path}.shards", value=plan.zero, limit="one of them says what is shared",
            hint="Leave zero out",
        )  # fmt: skip
    for name in LEVELS:
        if getattr(shards, name) == ():
            raise SpecError(
                f"{path}.shards.{name}", "lists no value to search", value=[], limit="one value, or a list of some",
                hint="Write a number of devices",
            )  # fmt: skip
    for name, below in (("gradients", "weights"), ("optimizer", "gradients")):
        wholes, parts = _several(getattr(shards, name)), _several(getattr(shards, below))
        if not any(whole is None or whole % part == 0 for whole in wholes for part in parts):
            said = " or ".join(map(str, parts))
            raise SpecError(
                f"{path}.shards.{name}", "is no multiple of the level below",
                value=wholes[0] if len(wholes) == 1 else list(wholes), limit=f"a multiple of {said}",
                hint="Levels hold each other: a pair, a node, the fleet",
            )  # fmt: skip
    for name in ("weight_format", "gradient_format"):
        value = getattr(shards, name)
        if value not in FORMATS:
            raise SpecError(
                f"{path}.shards.{name}", "is unknown", value=value, limit=f"one of {', '.join(FORMATS)}",
                hint=closest(value, FORMATS),
            )  # fmt: skip


def words(value: str | tuple[str | tuple[str, ...], ...] | None) -> tuple[str, ...]:
    """Returns every word of a field, those of lists in lists too."""
    if value is None or isinstance(value, str):
        return () if value is None else (value,)
    return tuple(word for item in value for word in ((item,) if isinstance(item, str) else item))
