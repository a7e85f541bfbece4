"""What makes a model fit: each technique's precondition, predicted effect and quality cost, with sources.

A technique is a function from a `Case` to the `Change` it makes, or to the sentence that says why it does not apply.
Two tables name them: `FORMATS` store the same weights in fewer bits, `SHAPES` keep fewer layers, another model, or a
part of the weights elsewhere; a shape goes with any format. What a folder can be made smaller by also names the
transform that does it, as `fleetcast transform` takes it.

After Xu et al., "On-Device Language Models: A Comprehensive Review", 2024: compression (quantisation, pruning,
distillation), adaptive depth, and collaboration with slower memory. How this differs: the review names no effect in
bytes; here each is computed from the model's tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path
from typing import Literal

import msgspec

from fleetcast.base.files import read_text
from fleetcast.base.spec import Spec, convert, read_toml
from fleetcast.base.units import BytesPerSecond
from fleetcast.scenario.fleet.catalog import link
from fleetcast.scenario.fleet.devices import Device
from fleetcast.scenario.workload.catalog import models
from fleetcast.scenario.workload.exits import families
from fleetcast.scenario.workload.models import Model
from fleetcast.scenario.workload.precision import BITS, QUALITY, QUANTISED
from fleetcast.search.tiers.family import runs, whole

PRUNED = 0.25
"""Share of the layers that pruning removes."""
LEAST_LAYERS = 8
UNKNOWN = "unknown"
TRANSFORMED = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""The architectures whose folders `fleetcast transform` takes."""
_STORAGE = Path(__file__).with_name("storage.toml")


class Storage(Spec):
    """How fast the devices in ``names`` (ids or kinds) read their storage."""

    names: tuple[str, ...]
    bandwidth: BytesPerSecond
    source: str


class _Storages(Spec):
    storage: tuple[Storage, ...]


@dataclass(frozen=True)
class Case:
    """A model to run on a device."""

    model: Model
    device: Device


@dataclass(frozen=True)
class Change:
    """What a technique makes of a case.

    Attributes:
        model: that runs instead.
        dtype: of its weights, as in a plan.
        spill: where weights go that do not fit: "" nowhere, "host memory" or "storage".
        rate: B/s at which those come back.
        quality: what is known of the quality lost, or "unknown".
        source: who measured that, on what.
        transform: what ``fleetcast transform`` is told to do it; "" = no checkpoint need change; None = it cannot.
    """

    model: Model
    dtype: str = "auto"
    spill: Literal["", "host memory", "storage"] = ""
    rate: float = 0.0
    quality: str = "none"
    source: str = ""
    transform: str | None = ""


def as_published(case: Case) -> Change | str:
    """The checkpoint as it is."""
    return Change(case.model)


def quantise_fp8(case: Case) -> Change | str:
    """Weights in 8-bit floating point, activations too where the silicon multiplies them."""
    if BITS[case.model.dtype] <= 8:
        return f"the checkpoint's weights are {case.model.dtype} already"
    if "fp8" in case.device.peak:
        return Change(case.model, "fp8", quality=QUALITY["fp8"], source=QUANTISED)
    if case.device.kind == "gpu" and case.device.architecture == "ampere":
        return Change(case.model, "fp8-weights", quality=QUALITY["fp8-weights"], source=QUANTISED)
    return "the device does not multiply fp8, and no kernel is known that stores fp8 and multiplies 16 bits on it"


def quantise_int8(case: Case) -> Change | str:
    """Weights and activations in 8-bit integers."""
    if BITS[case.model.dtype] <= 8:
        return f"the checkpoint's weights are {case.model.dtype} already"
    if "int8" not in case.device.peak:
        return "the device does not multiply int8"
    return Change(case.model, "int8", quality=QUALITY["int8"], source=QUANTISED, transform="quantise-int8")


def quantise_int4(case: Case) -> Change | str:
    """Weights in 4-bit integers with a scale per group of 128, multiplied in 16 bits."""
    if BITS[case.model.dtype] <= 4:
        return f"the checkpoint's weights are {case.model.dtype} already"
    if BITS[case.model.dtype] < 16:
        return f"the checkpoint is {case.model.dtype}: quantise the unquantised one"
    return Change(case.model, "int4", quality=QUALITY["int4"], source=QUANTISED, transform="quantise-int4")


def whole_model(case: Case) -> Change | str:
    """All layers, all in the device's memory."""
    return Change(case.model)


def exit_early(case: Case) -> Change | str:
    """The second deepest exit of a familial model, without what lies above it."""
    family = next((f for f in families().values() if f.trunk == case.model.id), None)
    if family is None:
        return f"no exits were trained for {case.model.id}"
    last, kept = family.exits[-1], family.exits[-2]
    said = f"{kept.quality:.1%} right instead of {last.quality:.1%}"
    return Change(runs(case.model, whole(kept.layers)), quality=said, source=family.source, transform=None)


def prune(case: Case) -> Change | str:
    """A quarter of the layers removed, those before the last."""
    model = case.model
    if model.layers < LEAST_LAYERS:
        return f"{model.layers} layers are too few to remove some"
    cut = ceil(PRUNED * model.layers)
    pattern = model.pattern[: model.layers - cut - 1] + model.pattern[-1:]
    return Change(
        msgspec.structs.replace(model, pattern=pattern),
        quality=f"{UNKNOWN} for this model; minimal on question answering up to half the layers, once fine-tuned",
        source="Gromov et al., ICLR 2025", transform="prune",
    )  # fmt: skip


def distil(case: Case) -> Change | str:
    """A smaller model of the catalogue as the student: the largest with the same class and vocabulary."""
    base = case.model.params()
    students = [
        m for m in models().values()
        if m.architecture == case.model.architecture and m.vocab == case.model.vocab and m.params() < 0.9 * base
        and not m.precision.parts
    ]  # fmt: skip
    if not students:
        return "the catalogue has no smaller model of its class and vocabulary"
    student = max(students, key=lambda m: m.params())
    quality = f"{UNKNOWN}: that of {student.id}, better by what the teacher adds"
    return Change(student, quality=quality, transform=f"distil student={student.id}")


def offload(case: Case) -> Change | str:
    """Layers that do not fit lie in the host's memory and cross its link in every iteration."""
    host = link(case.device.host_link)
    if host.kind not in ("pcie", "nvlink") or case.device.kind == "cpu":
        return "the device's memory is the host's: there is no other to move layers to"
    return Change(case.model, spill="host memory", rate=host.bandwidth)


def stream(case: Case) -> Change | str:
    """Layers that do not fit are read from storage in every iteration."""
    found = storage_of(case.device)
    return Change(case.model, spill="storage", rate=found.bandwidth, source=found.source)


Technique = Callable[[Case], Change | str]
FORMATS: dict[str, Technique] = {
    "as published": as_published, "quantise-fp8": quantise_fp8, "quantise-int8": quantise_int8,
    "quantise-int4": quantise_int4,
}  # fmt: skip
"""From wide to narrow."""
SHAPES: dict[str, Technique] = {
    "whole": whole_model, "exit": exit_early, "prune": prune, "distil": distil, "offload": offload, "stream": stream,
}  # fmt: skip


def storage_of(device: Device) -> Storage:
    """Returns what is known of a device's storage, or of its kind's."""
    rows = _storages()
    return rows.get(device.id) or rows[device.kind]


@cache
def _storages() -> dict[str, Storage]:
    table = convert(read_toml(read_text(_STORAGE), _STORAGE.name), _Storages, "storage")
    return {name: row for row in table.storage for name in row.names}
