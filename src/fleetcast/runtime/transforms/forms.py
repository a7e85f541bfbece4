"""The forms that a matrix is stored in: plain, integers in groups, a bitmap and its values, two factors.

Integers are laid out as the ``pack-quantized`` files of compressed-tensors, which vLLM reads: ``weight_packed`` int32
(outputs, inputs x bits / 32), the first value in the lowest bits, each raised by half its range; ``weight_scale``
(outputs, groups); ``weight_shape``. The other two forms are our own; no engine multiplies them as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetcast.base.errors import MissingExtra, SpecError, Unsupported

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any
INTEGERS, BITMAP, FACTORS = "compressed-tensors", "fleetcast-bitmap", "fleetcast-factors"
"""The forms by their ``quant_method``."""
_MARKS: Final = {INTEGERS: ".weight_packed", BITMAP: ".weight_bitmap", FACTORS: ".weight_left"}
_SHIFTS: Final = tuple(range(8))


def dense(tensors: Mapping[str, Tensor], storage: Mapping[str, Any] | None) -> dict[str, Tensor]:
    """Returns every tensor plain; what is plain already is passed on.

    Args:
        tensors: by the names of the file.
        storage: what the config says of their form; None = all are plain.

    Raises:
        SpecError: a part of a matrix is missing or does not fit. Unsupported: a form that is not one of ours.
    """
    if storage is None:
        return dict(tensors)
    method = storage.get("quant_method")
    if method not in _MARKS or (method == INTEGERS and storage.get("format") != "pack-quantized"):
        known = f"{INTEGERS} (pack-quantized), {BITMAP}, {FACTORS}"
        raise Unsupported(f"config.quantization_config: {method} is not unpacked here", f"Known: {known}")
    mark, found = _MARKS[method], {}
    unpack = {INTEGERS: _integers, BITMAP: _bitmap, FACTORS: _factors}[method]
    for name, value in tensors.items():
        stem, _, last = name.rpartition(".")
        if name.endswith(mark):
            try:
                found[f"{stem}.weight"] = unpack(tensors, stem)
            except (KeyError, RuntimeError) as error:
                raise SpecError(f"tensor {name}", f"cannot be unpacked: {error}", hint="Transform it anew") from None
        elif not last.startswith("weight_"):
            found[name] = value
    return found


def pack_integers(weight: Tensor, scale: Tensor, bits: int) -> dict[str, Tensor]:
    """Returns the parts of a matrix (outputs, inputs) in ``bits`` (4 or 8) a weight, by ``scale`` (outputs, groups)."""
    outputs, inputs = weight.shape
    top = 1 << (bits - 1)
    steps = weight.float().reshape(outputs, scale.shape[1], -1) / scale.float()[..., None]
    whole = (steps.round().clamp(-top, top - 1) + top).to(torch.uint8).reshape(outputs, inputs)
    octets = whole[:, 0::2] | whole[:, 1::2] << 4 if bits == 4 else whole
    size = torch.tensor([outputs, inputs])
    return {"packed": octets.contiguous().view(torch.int32), "scale": scale, "shape": size}


def _integers(tensors: Mapping[str, Tensor], stem: str) -> Tensor:
    packed, scale = tensors[f"{stem}.weight_packed"], tensors[f"{stem}.weight_scale"]
    outputs, inputs = tensors[f"{stem}.weight_shape"].tolist()
    octets = packed.view(torch.uint8)
    bits = octets.shape[1] * 8 // inputs
    if bits == 4:
        octets = torch.stack([octets & 15, octets >> 4], dim=-1).flatten(1)
    whole = octets.float() - (1 << (bits - 1))
    return (whole.reshape(outputs, scale.shape[1], -1) * scale.float()[..., None]).reshape(outputs, inputs)


def pack_bitmap(weight: Tensor, kept: Tensor) -> dict[str, Tensor]:
    """Returns which elements of a matrix are ``kept``, a bit each (inputs a multiple of 8), and those elements."""
    bits = kept.reshape(len(kept), -1, 8).to(torch.uint8)
    octets = sum(bits[..., i] << i for i in _SHIFTS)
    return {"bitmap": octets, "values": weight[kept]}


def _bitmap(tensors: Mapping[str, Tensor], stem: str) -> Tensor:
    bitmap, values = tensors[f"{stem}.weight_bitmap"], tensors[f"{stem}.weight_values"]
    kept = torch.stack([bitmap >> i & 1 for i in _SHIFTS], dim=-1).flatten(1).bool()
    found = torch.zeros(kept.shape, dtype=values.dtype)
    found[kept] = values
    return found


def pack_factors(left: Tensor, right: Tensor, dtype: Any) -> dict[str, Tensor]:
    """Returns the factors of a matrix: ``left`` (outputs, rank) times ``right`` (rank, inputs)."""
    return {"left": left.to(dtype), "right": right.to(dtype)}


def _factors(tensors: Mapping[str, Tensor], stem: str) -> Tensor:
    return tensors[f"{stem}.weight_left"].float() @ tensors[f"{stem}.weight_right"].float()
