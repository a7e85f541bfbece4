"""How weights are stored and multiplied: the dtypes that engines offer and what a checkpoint says.

A quantised checkpoint is never quantised whole: routers, norms, embeddings and the LM head stay in
16 bits, and every group of weights carries a scale. `Precision` says which parts are covered and
what a scale costs, so that memory is the checkpoint's own to within a percent.

Sources of the formats: OCP Microscaling Formats v1.0 (mxfp4: one 8-bit scale per 32), NVIDIA NVFP4
(one fp8 scale per 16), DeepSeek-V3 technical report section 3.3 (fp8: one fp32 scale per 128 x 128
block), GPTQ/AWQ (int4: fp16 scale and 4-bit zero point per group).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from fleetcast.base.errors import SpecError, Unsupported, closest
from fleetcast.base.spec import Spec

BITS: Final[Mapping[str, int]] = {
    "fp32": 32,
    "bf16": 16,
    "fp16": 16,
    "fp8": 8,
    "int8": 8,
    "int4": 4,
    "mxfp4": 4,
    "nvfp4": 4,
}
"""Bits of one element, scales not counted."""

LINEAR: Final = ("attention", "recurrence", "ffn", "shared", "experts")
"""The parts that a weight quantiser covers unless told otherwise."""

DTYPES: Final = (
    "auto",
    "fp32",
    "bf16",
    "fp16",
    "fp8",
    "fp8-weights",
    "int8",
    "int4",
    "mxfp4",
    "nvfp4",
)
"""What `dtype` may say in a plan."""

_TORCH: Final = {
    "float32": "fp32",
    "float": "fp32",
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
}
_HINT: Final = "Set plan.dtype to what the engine quantises to, and take the unquantised config.json"


class Precision(Spec):
    """Dtypes of a model's weights.

    Attributes:
        weights: dtype of the covered matrices, a key of `BITS`.
        parts: which parts are covered; nothing for an unquantised model.
        rest: dtype of all other weights.
        activations: dtype in which the covered matrices are multiplied.
        group: weights that share one scale; 0 = so many that scales weigh nothing.
        scale: bytes of one scale with its zero point.
        block: outputs and inputs of a block that shares a scale; engines cut such weights between blocks only.
            (0, 0) = scales do not span outputs.
        kv: KV-cache dtype that the checkpoint asks for; "" = that of ``rest``.
        method: the checkpoint's own name of the method; "" = not quantised.
    """

    weights: str
    parts: tuple[str, ...] = ()
    rest: str = "bf16"
    activations: str = "bf16"
    group: int = 0
    scale: float = 0.0
    block: tuple[int, int] = (0, 0)
    kv: str = ""
    method: str = ""

    def bytes_per_weight(self, part: str) -> float:
        """Returns bytes of one matrix element of ``part``, its share of the scales included."""
        if part not in self.parts:
            return BITS[self.rest] / 8
        return BITS[self.weights] / 8 + (self.scale / self.group if self.group else 0.0)

    def stored(self, part: str) -> str:
        """Returns the dtype in which matrices of ``part`` are stored."""
        return self.weights if part in self.parts else self.rest

    def multiplied(self, part: str) -> str:
        """Returns the dtype in which matrices of ``part`` are multiplied."""
        return self.activations if part in self.parts else self.rest


QUANTISED = "Kurtic et al., ACL 2025, over Llama 3.1 8B to 405B"
QUALITY: Mapping[str, str] = {
    "fp8": "effectively none", "fp8-weights": "effectively none", "int8": "1 to 3 % of the score where well tuned",
    "int4": "about that of int8 where well tuned",
}  # fmt: skip
"""Quality lost by quantising 16-bit weights so, as `QUANTISED` measured it; what is not here is unknown."""


def quality_lost(dtype: str) -> str:
    """Returns what is known of the quality that weights of ``dtype`` lose, with its source."""
    return f"{QUALITY[dtype]} ({QUANTISED})" if dtype in QUALITY else "unknown"


def as_engine(dtype: str, checkpoint: Precision, path: str = "plan.dtype") -> Precision:
    """Returns the precision that an engine serves when told ``dtype``.

    Args:
        dtype: one of `DTYPES`. ``auto`` is the checkpoint's; an fp32 checkpoint is then served in
            16 bits, as vLLM, SGLang and TensorRT-LLM do. ``fp8`` quantises weights and activations,
            ``int8`` too; ``fp8-weights`` and ``int4`` only weights.
        checkpoint: what is loaded. Asking a checkpoint for the dtype that it has already keeps its
            own groups.
        path: where ``dtype`` stands, for errors.

    Raises:
        SpecError: an unknown dtype, or more bits than the checkpoint holds.
    """
    if dtype not in DTYPES:
        raise SpecError(
            path,
            "is unknown",
            value=dtype,
            limit=f"one of {', '.join(DTYPES)}",
            hint=closest(dtype, DTYPES),
        )
    rest = "fp16" if checkpoint.rest == "fp32" else checkpoint.rest
    if dtype == "auto":
        if checkpoint.parts:
            return checkpoint
        return Precision(weights=rest, rest=rest, activations=rest)
    if checkpoint.parts:
        if dtype == checkpoint.weights:
            return checkpoint
        if dtype == f"{checkpoint.weights}-weights":
            return msgspec.structs.replace(checkpoint, activations=rest)
        if BITS[dtype.removesuffix("-weights")] > BITS[checkpoint.weights]:
            raise SpecError(
                path,
                f"is wider than the checkpoint, whose weights are {checkpoint.weights}",
                value=dtype,
                hint="Use 'auto', or name the unquantised model",
            )
    if dtype in ("fp32", "bf16", "fp16"):
        return Precision(weights=dtype, rest=dtype, activations=dtype)
    group, scale, activations = {
        "fp8": (0, 0.0, "fp8"),
        "fp8-weights": (0, 0.0, rest),
        "int8": (0, 0.0, "int8"),
        "int4": (128, 2.5, rest),
        "mxfp4": (32, 1.0, rest),
        "nvfp4": (16, 1.0, "nvfp4"),
    }[dtype]
    return Precision(
        weights=dtype.removesuffix("-weights"),
        parts=LINEAR,
        rest=rest,
        activations=activations,
        group=group,
        scale=scale,
    )


def torch_dtype(name: object, path: str) -> str:
    """Returns our name of a ``torch_dtype``; a config that names none is fp32, PyTorch's default.

    Raises:
        SpecError: not a floating dtype that we know.
    """
    if name is None:
        return "fp32"
    found = _TORCH.get(name.removeprefix("torch.")) if isinstance(name, str) else None
    if found is None:
        raise SpecError(path, "is not a dtype that we know", value=name, limit=f"one of {', '.join(_TORCH)}")
    return found


def of_checkpoint(table: object, rest: str, layers: int, path: str) -> Precision:
    """Returns the precision that a ``quantization_config`` describes.

    Args:
        table: the value of ``quantization_config``, None if absent.
        rest: dtype of what is not quantised.
        layers: how many layers the model has; a name that is exempt in the middle layer is exempt
            in all.
        path: of the table, for errors.

    Raises:
        SpecError: malformed. Unsupported: a method that we cannot size.
    """
    if table is None:
        return Precision(weights=rest, rest=rest, activations=rest)
    if not isinstance(table, Mapping):
        raise SpecError(path, "must be a table", value=table, hint=_HINT)
    method = table.get("quant_method")
    kv = "fp8" if _asks_fp8_kv(table) else ""
    weights, group, scale, activations = _format(method, table, rest, path)
    parts = ("experts",) if method == "mxfp4" else LINEAR
    exempt = _exempt(table, layers)
    return Precision(
        weights=weights,
        parts=tuple(p for p in parts if p not in exempt),
        rest=rest,
        activations=activations,
        group=group,
        scale=scale,
        block=_block(method, table, path),
        kv=kv,
        method=str(method),
    )


def _format(method: object, table: Mapping[str, Any], rest: str, path: str) -> tuple[str, int, float, str]:
    """Returns weight dtype, weights per scale, bytes per scale, dtype of multiplication."""
    match method:
        case "fp8":
            rows, columns = _block(method, table, path)
            return "fp8", rows * columns, 4.0 if rows else 0.0, "fp8"
        case "fbgemm_fp8":
            return "fp8", 0, 0.0, "fp8"
        case "mxfp4":
            return "mxfp4", 32, 1.0, rest
        case "gptq" | "awq":
            bits = _whole(table.get("bits", table.get("w_bit", 4)), f"{path}.bits")
            if bits not in (4, 8):
                raise Unsupported(f"{path}: {method} with {bits} bits is not sized here", "Use 4 or 8 bits")
            group = table.get("group_size", table.get("q_group_size", 128))
            size = 0 if group == -1 else _whole(group, f"{path}.group_size")
            return f"int{bits}", size, 2 + bits / 8, rest
        case "bitsandbytes":
            if table.get("load_in_8bit") is True:
                return "int8", 0, 0.0, rest
            return "int4", 64, 4.0, rest
        case "modelopt" | "modelopt_fp4":
            algorithm = table.get("quant_algo", "NVFP4" if method == "modelopt_fp4" else None)
            if algorithm == "FP8":
                return "fp8", 0, 0.0, "fp8"
            if algorithm == "NVFP4":
                return "nvfp4", 16, 1.0, "nvfp4"
        case "compressed-tensors":
            return _compressed_tensors(table, rest, path)
    raise Unsupported(
        f"{path}: quantisation {method!r} is not known here",
        f"Known: fp8, fbgemm_fp8, mxfp4, gptq, awq, bitsandbytes, modelopt (FP8, NVFP4), compressed-tensors. {_HINT}",
    )


def _block(method: object, table: Mapping[str, Any], path: str) -> tuple[int, int]:
    """Returns outputs and inputs of a block with one scale; (0, 0) where scales are per tensor, channel or group."""
    if method == "fp8":
        block, where = table.get("weight_block_size"), f"{path}.weight_block_size"
    elif method == "compressed-tensors":
        block, where = _first_group(table, path)[1].get("block_structure"), f"{path}.config_groups.block_structure"
    else:
        return 0, 0
    if block is None:
        return 0, 0
    outputs, inputs = block if isinstance(block, list | tuple) and len(block) == 2 else (0, 0)
    return _whole(outputs, where), _whole(inputs, where)


def _first_group(table: Mapping[str, Any], path: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Returns the first group of a compressed-tensors table, and what it says of weights."""
    groups = table.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    if not isinstance(first, Mapping) or not isinstance(weights, Mapping):
        raise SpecError(f"{path}.config_groups", "must name a group with its weights", value=groups, limit="a table")
    return first, weights


def _compressed_tensors(table: Mapping[str, Any], rest: str, path: str) -> tuple[str, int, float, str]:
    first, weights = _first_group(table, path)
    where = f"{path}.config_groups.weights"
    bits, kind = (
        _whole(weights.get("num_bits"), f"{where}.num_bits"),
        str(weights.get("type", "int")),
    )
    name = {(8, "float"): "fp8", (8, "int"): "int8", (4, "int"): "int4", (4, "float"): "nvfp4"}.get((bits, kind))
    if name is None:
        raise Unsupported(f"{where}: {bits} bits of {kind} are not known here", _HINT)
    only_weights = first.get("input_activations") is None
    activations = rest if only_weights else name
    rows, columns = _block("compressed-tensors", table, path)
    if rows:
        return name, rows * columns, 4.0, activations
    size = weights.get("group_size")
    if size is None or size == -1:
        return name, 0, 0.0, activations
    scale = 1.0 if name == "nvfp4" else 2.0 + (0.0 if weights.get("symmetric", True) else bits / 8)
    return name, _whole(size, f"{where}.group_size"), scale, activations


def _exempt(table: Mapping[str, Any], layers: int) -> set[str]:
    """Returns parts whose modules the checkpoint leaves in 16 bits.

    Patterns are searched for the modules' names, not run: a config file brings no regular
    expression into play.
    """
    names: list[str] = []
    for key in ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules"):
        listed = table.get(key)
        if isinstance(listed, list | tuple):
            names += [str(name) for name in listed]
    found = set()
    for name in names:
        layer = re.search(r"layers\.(\d{1,6})\b", name)
        if layer and int(layer[1]) != layers // 2:
            continue
        if "self_attn" in name or "self_attention" in name:
            found.add("attention")
        if "shared_expert" in name and "gate" not in name.rsplit("shared_expert", 1)[1].replace("gate_proj", ""):
            found.add("shared")
        if "mlp" in name and "expert" not in name and ("_proj" in name or name.rstrip(".*").endswith("mlp")):
            found.add("ffn")
    return found


def _asks_fp8_kv(table: Mapping[str, Any]) -> bool:
    scheme = table.get("kv_cache_scheme")
    named = isinstance(scheme, Mapping) and scheme.get("num_bits") == 8 and scheme.get("type") == "float"
    return named or table.get("kv_cache_quant_algo") == "FP8"


def _whole(value: object, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1 << 20:
        raise SpecError(path, "must be a whole number", value=value, limit=f"1 to {1 << 20}", hint=_HINT)
    return value
