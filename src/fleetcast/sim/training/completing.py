"""What a training plan leaves open, filled in; what cannot be, refused by the divisor that fails.

The rules, where a key is left out:

- ``tensor_parallel``, ``pipeline_parallel``, ``context_parallel``, ``expert_parallel``, ``micro_batch``,
  ``interleave``: 1.
- ``data_parallel``: the devices that the other degrees leave.
- ``schedule``: "interleaved" with more than one piece of a stage, else "1f1b".
- ``sequence_parallel``: true with tensor parallelism; it costs no time and saves memory. False for GPT's layers that
  are recomputed in full on V100s and A100s, as in SC 2021; those overlap no gradients in a pipeline either.
- ``zero``: 1 with several copies; sharing out the optimizer's states sends the same bytes. 2 where a pipeline fits
  without recompute only so, as Llama 3's did.
- ``recompute``: the least that fits: "none", "selective", "full"; "full" where nothing does.
- ``swap``: nothing streams. Where something does, ``micro_batch`` is the batch, ``offload`` everything, ``recompute``
  "full" (of what is not swapped), and the optimizer runs beside the pass back too.
- ``offload``: nothing. ``overlap``: gradients are added up while the last ones are made.
- ``tensor_messages``: "scatter_gather" with sequence parallelism, else "all_reduce".
- ``dtype``: "bf16" where the devices multiply in it, else "fp16".
- ``fused_attention``: true, but for GPT as Megatron-LM trained it on V100s and A100s (no gate, ZeRO below 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import build
from fleetcast.cost.training.memory import fits as held
from fleetcast.cost.training.plans import OFFLOADED, OVERLAPS, RECOMPUTE, SCHEDULES, TENSOR_MESSAGES, Plans, plans
from fleetcast.cost.training.schedule import whole_pieces
from fleetcast.cost.training.unlike import share_filled
from fleetcast.policy import recover
from fleetcast.policy.place import stages as place
from fleetcast.scenario.training_plan import TrainingPlan
from fleetcast.sim.training.mixed import held_by, iterate
from fleetcast.sim.training.setting import Setting

ONES = ("tensor_parallel", "pipeline_parallel", "context_parallel", "expert_parallel", "micro_batch", "interleave")
_SHORT = {"tensor": "tensor_parallel", "pipeline": "pipeline_parallel", "data": "data_parallel",
          "context": "context_parallel", "expert": "expert_parallel"}  # fmt: skip


@dataclass(frozen=True)
class Completed:
    """A complete plan, and in sentences what was filled in."""

    plan: TrainingPlan
    notes: tuple[str, ...]


def complete(state: Setting, plan: TrainingPlan, path: str = "plan") -> Completed:
    """Returns ``plan`` with every choice made.

    Raises:
        SpecError: a list of several values, or a degree that does not divide what it splits.
    """
    fields = {name: alone(plan, name, path) for name in plan.__struct_fields__}
    filled: list[str] = []
    streams = fields["swap"] is not None

    def fill(name: str, value: Any, why: str = "") -> None:
        if fields[name] is None:
            fields[name] = value
            filled.append(f"{name} {_shown(value)}{f' ({why})' if why else ''}")

    if streams:
        fill("micro_batch", state.workload.batch, "weights stream once each way")
        fill("recompute", "full", "what is not swapped")
        fill("offload", OFFLOADED)
        fill("overlap", ("data", "optimizer"))
        check_streaming(state, fields, path)
    ones = [name for name in ONES if fields[name] is None]
    for name in ones:
        fields[name] = 1
    if ones:
        filled.append(f"{', '.join(ones)} 1")
    check_split(state, fields, path)
    fixed = int(np.prod([fields[n] for n in ("tensor_parallel", "pipeline_parallel", "context_parallel")]))
    if fields["data_parallel"] is None and state.group.count % fixed:
        words = " x ".join(f"{n} {fields[n]}" for n in DEGREES if fields[n] and fields[n] > 1)
        raise SpecError(
            path, f"splits a copy of the model over {fixed:,} devices ({words}), which do not divide the fleet",
            value=fixed, limit=f"a divisor of the fleet's {state.group.count:,} devices",
            hint="Change a degree or fleet.devices",
        )  # fmt: skip
    fill("data_parallel", max(1, state.group.count // fixed), "what is left of the fleet")
    check_degrees(state, fields, path)
    fill("schedule", "interleaved" if fields["interleave"] > 1 else "1f1b")
    check_schedule(state, fields, path)
    several = fields["data_parallel"] * fields["context_parallel"] > 1
    fill("zero", *_least_zero(state, fields) if several and fields["shards"] is None else (0,))
    kept = _keeps_scores(state, fields["zero"])
    first = kept and fields["recompute"] == "full"
    early = "GPT recomputed in full on this generation of devices, as Megatron-LM did" if first else ""
    fill(
        "sequence_parallel", fields["tensor_parallel"] > 1 and not first, early if fields["tensor_parallel"] > 1 else ""
    )
    fill("tensor_messages", "scatter_gather" if fields["sequence_parallel"] else "all_reduce")
    fill("offload", ())
    fill("overlap", ("data",) if not first or fields["pipeline_parallel"] == 1 else (),
         early if fields["pipeline_parallel"] > 1 else "")  # fmt: skip
    fill("fused_attention", not kept, "GPT under Megatron-LM on this generation of devices" if kept else "")
    fill("dtype", state.dtype)
    state.job(fields["dtype"])
    for family, named in ((place, "place"), (recover, "recover")):
        if fields[named] is not None:
            build(family, fields[named], f"{path}.{named}")
    if fields["recompute"] is None:
        fill("recompute", _least_recompute(state, fields), "the least that fits")
    made = TrainingPlan(**fields)
    return Completed(made, (f"left out of the plan and filled in: {'; '.join(filled)}",) if filled else ())


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "+".join(value) or "none" if isinstance(value, tuple) else str(value)


def columns(*given: TrainingPlan) -> Plans:
    """Returns complete plans as columns."""

    def column(name: str) -> list[int]:
        return [int(getattr(plan, name)) for plan in given]

    def codes(name: str, known: tuple[str, ...]) -> list[int]:
        return [known.index(getattr(plan, name)) for plan in given]

    def bits(name: str, known: tuple[str, ...]) -> list[int]:
        return [sum(1 << known.index(word) for word in set(getattr(plan, name))) for plan in given]

    made = {short: np.asarray(column(long)) for short, long in _SHORT.items()}
    made |= {n: np.asarray(column(n)) for n in ("micro_batch", "interleave", "sequence_parallel", "zero")}
    return plans(
        **made, schedule=np.asarray(codes("schedule", SCHEDULES)), recompute=np.asarray(codes("recompute", RECOMPUTE)),
        tensor_messages=np.asarray(codes("tensor_messages", TENSOR_MESSAGES)),
        offload=np.asarray(bits("offload", OFFLOADED)), overlap=np.asarray(bits("overlap", OVERLAPS)),
        fused=np.asarray(column("fused_attention")),
    )  # fmt: skip


def decided(rows: Plans, i: int, dtype: str, like: TrainingPlan | None = None) -> TrainingPlan:
    """Returns the ``i``-th row as a complete plan.

    Args:
        rows: columns.
        i: which.
        dtype: of its products.
        like: gives what columns do not hold (``BESIDE``); None = nothing.
    """

    def words(code: int, known: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(word for bit, word in enumerate(known) if code >> bit & 1)

    whole: dict[str, Any] = {long: int(getattr(rows, short)[i]) for short, long in _SHORT.items()}
    whole |= {n: int(getattr(rows, n)[i]) for n in ("micro_batch", "interleave", "zero")}
    made = TrainingPlan(
        **whole, schedule=SCHEDULES[rows.schedule[i]], recompute=RECOMPUTE[rows.recompute[i]],
        sequence_parallel=bool(rows.sequence_parallel[i]), offload=words(int(rows.offload[i]), OFFLOADED),
        tensor_messages=TENSOR_MESSAGES[rows.tensor_messages[i]], overlap=words(int(rows.overlap[i]), OVERLAPS),
        dtype=dtype, fused_attention=bool(rows.fused[i]),
    )  # fmt: skip
    return made if like is None else msgspec.structs.replace(made, **{name: getattr(like, name) for name in BESIDE})


def check_split(state: Setting, fields: dict[str, Any], path: str = "plan") -> None:
    """Refuses degrees that do not divide what they split of the model and its sequences.

    Raises:
        SpecError: names the degree, what it should divide, and what does.
    """
    net, work = state.network, state.workload
    tensor, pipeline, context = (fields[n] for n in ("tensor_parallel", "pipeline_parallel", "context_parallel"))
    for layer in net.layers:
        if layer.heads:
            _divides(path, "tensor_parallel", tensor, layer.heads, "attention heads")
            if layer.kv_heads % tensor and tensor % layer.kv_heads:
                _divides(path, "tensor_parallel", tensor, layer.kv_heads, "key and value heads")
        for wide in (layer.ffn, layer.expert_ffn):
            if wide:
                _divides(path, "tensor_parallel", tensor, wide, "elements of the feed-forward part")
    _divides(path, "tensor_parallel", tensor, net.hidden, "elements of the residual stream")
    if pipeline > net.depth:
        raise SpecError(
            f"{path}.pipeline_parallel", "is more than there are layers", value=pipeline, limit=f"at most {net.depth}",
            hint="Each stage needs a layer",
        )  # fmt: skip
    if context > 1 and work.sequence % (2 * context):
        raise SpecError(
            f"{path}.context_parallel", f"does not cut the {work.sequence:,} tokens of a sequence in two for each rank",
            value=context, limit="1" if work.sequence % 2 else f"one of {_some_divisors(work.sequence // 2)}",
            hint="Leave it out: fleetcast plan searches what fits",
        )  # fmt: skip


def check_degrees(state: Setting, fields: dict[str, Any], path: str = "plan") -> None:
    """Refuses degrees whose product is not the fleet, or which do not divide the batch or the experts.

    Raises:
        SpecError: names the degree, what it should divide, and what does.
    """
    net, work = state.network, state.workload
    tensor, pipeline = fields["tensor_parallel"], fields["pipeline_parallel"]
    data, context, expert = fields["data_parallel"], fields["context_parallel"], fields["expert_parallel"]
    used = tensor * pipeline * data * context
    if used != state.group.count:
        words = " x ".join(f"{name} {fields[name]}" for name in DEGREES if fields[name] > 1) or "every degree is 1"
        left = state.group.count // (tensor * pipeline * context)
        fitting = left * tensor * pipeline * context == state.group.count
        raise SpecError(
            f"{path}.data_parallel", f"makes the plan take {used:,} devices ({words})", value=data,
            limit=f"the fleet has {state.group.count:,}",
            hint=f"Write data_parallel = {left}, or leave it out" if fitting and left
            else f"Choose degrees whose product divides {state.group.count:,}, or change fleet.devices",
        )  # fmt: skip
    _divides("workload", "batch", data, work.batch, "", whole=f"data_parallel = {data}")
    share = work.batch // data
    if share % fields["micro_batch"]:
        raise SpecError(
            f"{path}.micro_batch", f"does not divide the {share} sequences of a copy", value=fields["micro_batch"],
            limit=f"batch {work.batch} / data_parallel {data} = {share}, so one of {_some_divisors(share)}",
            hint="Leave it out: 1",
        )  # fmt: skip
    if expert > 1:
        if not net.experts:
            raise SpecError(
                f"{path}.expert_parallel", "spreads experts, and the model has none", value=expert, limit="1",
                hint="Leave it out",
            )  # fmt: skip
        _divides(path, "expert_parallel", expert, net.experts, "experts")
        _divides(path, "expert_parallel", expert, data * context, "ranks that split the batch or its sequences")


BESIDE = ("practice", "recover", "place", "islands", "shards", "swap")
"""Keys that no column of plans holds."""
DEGREES = ("tensor_parallel", "pipeline_parallel", "data_parallel", "context_parallel")


def check_schedule(state: Setting, fields: dict[str, Any], path: str = "plan") -> None:
    """Refuses a schedule that the pipeline cannot follow.

    Raises:
        SpecError: pieces that do not divide, or a schedule that wants other degrees.
    """
    pipeline, pieces, kind = fields["pipeline_parallel"], fields["interleave"], fields["schedule"]
    depth, micro = state.network.depth, state.workload.batch // fields["data_parallel"] // fields["micro_batch"]
    if pieces > 1:
        if pipeline == 1:
            raise SpecError(
                f"{path}.interleave", "cuts the stages of a pipeline, and there is one stage", value=pieces, limit="1",
                hint="Raise pipeline_parallel, or leave it out",
            )  # fmt: skip
        if not whole_pieces(depth, pipeline, pieces):
            raise SpecError(
                f"{path}.interleave", f"does not divide the layers: {depth} over {pipeline} stages of {pieces} pieces",
                value=pieces, limit=_pieces(depth, pipeline), hint="Change interleave or pipeline_parallel",
            )  # fmt: skip
        if micro % pipeline:
            raise SpecError(
                f"{path}.interleave", f"works through whole rounds of {pipeline} micro-batches, and there are {micro}",
                value=pieces, limit=f"micro-batches of a copy in multiples of {pipeline}",
                hint="Change workload.batch, micro_batch or data_parallel, or leave interleave out",
            )  # fmt: skip
        if kind != "interleaved":
            raise SpecError(
                f"{path}.schedule", f"takes stages in one piece, and interleave is {pieces}", value=kind,
                limit='"interleaved"', hint="Leave one of the two out",
            )  # fmt: skip
    elif kind == "interleaved":
        raise SpecError(
            f"{path}.schedule", "needs stages of several pieces", value=kind, limit="interleave from 2",
            hint=f"Write e.g. interleave = 2, where {depth} layers allow it",
        )  # fmt: skip
    if kind == "dualpipe" and (pipeline % 2 or micro < 2 * pipeline):
        raise SpecError(
            f"{path}.schedule", f"sends micro-batches in from both ends, and there are {micro} for {pipeline} stages",
            value=kind, limit="an even number of stages, and two micro-batches for each", hint='Or write "1f1b"',
        )  # fmt: skip


def check_streaming(state: Setting, fields: dict[str, Any], path: str = "plan") -> None:
    """Refuses a model that streams to several devices, in several passes, or in part.

    Raises:
        SpecError: names the key.
    """
    batch = state.workload.batch
    if state.group.count > 1:
        raise SpecError(
            f"{path}.swap", "streams a model through one device", value=fields["swap"],
            limit=f"a fleet of one device, and it has {state.group.count:,}", hint="Leave swap out, or write offload",
        )  # fmt: skip
    for name, only, why in (
        ("micro_batch", batch, "each pass would stream the model anew"),
        ("recompute", "full", "what is not swapped is computed again"),
        ("offload", OFFLOADED, "all of the model streams"), ("shards", None, "there is one copy"),
    ):  # fmt: skip
        value = fields[name]
        same = set(value) == set(only) if isinstance(only, tuple) and isinstance(value, tuple) else value == only
        if not same:
            raise SpecError(
                f"{path}.{name}", f"does not go with {path}.swap: {why}", value=value,
                limit="left out" if only is None else str(list(only) if isinstance(only, tuple) else only),
                hint="Leave it out",
            )  # fmt: skip


def alone(plan: TrainingPlan, name: str, path: str = "plan") -> Any:
    """Returns the one value of a field.

    Raises:
        SpecError: it lists several.
    """
    value = getattr(plan, name)
    if name in ("offload", "overlap"):
        if value is None or all(isinstance(word, str) for word in value):
            return value
        if len(value) == 1:
            return value[0]
    elif not isinstance(value, tuple):
        return value
    elif len(value) == 1:
        return value[0]
    raise SpecError(
        f"{path}.{name}", "lists several values", value=[list(v) if isinstance(v, tuple) else v for v in value],
        limit="one value to simulate", hint="Search them with: fleetcast plan",
    )  # fmt: skip


def _divides(path: str, name: str, part: int, number: int, what: str, whole: str = "") -> None:
    if number % part == 0:
        return
    if whole:  # the number is what the scenario says, and the part comes from elsewhere
        near = max(1, round(number / part)) * part
        raise SpecError(
            f"{path}.{name}", f"does not divide over {whole}", value=number,
            limit=f"a multiple of {part}, such as {near}",
            hint="Change the batch, or the degrees that leave so many copies",
        )  # fmt: skip
    raise SpecError(
        f"{path}.{name}", f"does not divide the {number:,} {what}", value=part,
        limit=f"one of {_some_divisors(number)}", hint="Leave it out: fleetcast plan searches what fits",
    )  # fmt: skip


def _some_divisors(number: int) -> str:
    found = [n for n in range(1, min(number, 4096) + 1) if number % n == 0]
    return ", ".join(map(str, found[:12])) + (", ..." if len(found) > 12 else "")


def _pieces(depth: int, pipeline: int) -> str:
    most = -(-depth // pipeline)
    return f"one of {', '.join(str(n) for n in range(1, most + 1) if whole_pieces(depth, pipeline, n))}"


def _keeps_scores(state: Setting, zero: int) -> bool:
    """Whether attention keeps its scores where the plan does not say: as published runs of its kind did.

    Megatron-LM's GPT on V100s and A100s, SC 2021 to MegaScale's baseline, kept them; layers with gates came after
    FlashAttention, PyTorch's FSDP calls a fused kernel, and nobody trained on later devices without one.
    """
    plain = all(layer.dropout for layer in state.network.layers)
    return plain and zero < 3 and state.group.device.architecture in ("volta", "ampere")


def _least_zero(state: Setting, fields: dict[str, Any]) -> tuple[int, str]:
    """ZeRO 1; 2 where a pipeline that recomputes nothing does not fit otherwise, and with it does, as Llama 3 ran."""
    if fields["pipeline_parallel"] == 1 or fields["recompute"] not in (None, "none"):
        return 1, ""
    given = {"sequence_parallel": fields["tensor_parallel"] > 1, "offload": (), "overlap": (), "fused_attention": True,
             "tensor_messages": TENSOR_MESSAGES[0], "recompute": "none"}  # fmt: skip
    known = {name: value for name, value in fields.items() if value is not None}
    tried = columns(*(TrainingPlan(**{**given, **known, "zero": zero}) for zero in (1, 2)))
    one, two = held(state.network, state.job(fields["dtype"]), tried, state.system)
    return (2, "nothing is recomputed then") if two and not one else (1, "")


def _least_recompute(state: Setting, fields: dict[str, Any]) -> str:
    """The least recompute with which the plan fits, "full" where none does."""
    tried = columns(*(TrainingPlan(**{**fields, "recompute": kind}) for kind in RECOMPUTE))
    job, groups = state.job(fields["dtype"]), state.tree.groups
    stages = held_by(groups, tried) if len(groups) > 1 and fields["islands"] is None else None
    if stages is None:
        fits = held(state.network, job, tried, state.system)
        return RECOMPUTE[int(np.argmax(fits))] if fits.any() else "full"
    policy = build(place, fields["place"] or "nic_aware", "plan.place")
    for i, kind in enumerate(RECOMPUTE[:-1]):
        happened = iterate(state.tree, state.network, job, tried.take([i]), policy, stages, state.systems)
        system = state.systems[happened.placement.groups[happened.fullest]]
        if share_filled({name: np.asarray([room]) for name, room in happened.room.items()}, system)[0] <= 1.0:
            return kind
    return RECOMPUTE[-1]
