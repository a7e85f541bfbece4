"""Matrices that activations are multiplied with, each in the form that its format is fastest in.

Formats, and the bytes of a weight:

- "fp32": 4. "bf16": 2, laid out anew for the CPU's matrix units (oneDNN's layout) where it has any. A kernel of our own
  reads that layout as well, where the processor multiplies pairs of bf16, so that there is one copy.
- "int8": 1, and 4 for every output. A weight is q s, q = round(w / s), s = max |w| / 127 over the output's weights.
- "int4": 0.625. Groups of 32 inputs of an output share a scale and a middle, both bf16: a weight is (q - 8) s + m, with
  s = (max - min) / 15. Matrices whose inputs are no multiple of 32 are int8.

int8 and int4 quantise weights only: activations are bf16 and sums fp32. Products of few rows, as decode steps are, run
on kernels of our own (`native`), which add up in the same order however many rows there are; others run on torch, from
weights that are widened as they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm import cuda, native

try:
    import torch
    from torch.nn import functional
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any
Format = Literal["fp32", "bf16", "int8", "int4"]

GROUP: Final = 32
"""Inputs that share a scale in int4."""

FEW: Final = 8
"""Rows up to which the kernels of our own are the faster ones; measured on 2 cores with AVX-512."""

PACKED_FOR: Final = 256
"""Rows that oneDNN lays bf16 weights out for; measured to be as fast for one row."""


class Linear(Protocol):
    """Maps (tokens, inputs) to (tokens, outputs)."""

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Returns ``x`` times the matrix, plus the bias."""
        ...


@dataclass(frozen=True)
class Plain:
    """A matrix as it is: ``weight`` (outputs, inputs) and ``bias`` (outputs,) or None, in the dtype of activations."""

    weight: Tensor
    bias: Tensor | None

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        return size_of(self.weight, self.bias)

    def __call__(self, x: Tensor) -> Tensor:
        """Returns ``x`` times the matrix, plus the bias."""
        if x.shape[0] <= FEW and native.ready(x) and x.dtype == self.weight.dtype:
            return native.linear(x, self.weight, None, None if self.bias is None else self.bias.float())
        if x.shape[0] > 1 and _oneapi(x) and x.dtype == torch.float32:
            # oneDNN's fp32 products: as fast as MKL's on Intel's processors, twice as fast on others
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class Packed:
    """A bf16 matrix in oneDNN's layout. ``size`` is (outputs, inputs), ``panel`` the bytes of a panel (`native`)."""

    weight: Tensor
    bias: Tensor | None
    size: tuple[int, int]
    panel: int

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        return 2 * self.size[0] * self.size[1] + size_of(self.bias)

    def __call__(self, x: Tensor) -> Tensor:
        """Returns ``x`` times the matrix, plus the bias."""
        if self.panel and x.shape[0] <= FEW and native.ready(x) and native.kernels.pairs():
            bias = None if self.bias is None else self.bias.float()
            return native.panelled(x, self.weight, self.size[0], self.panel, bias)
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


@dataclass(frozen=True)
class _Rounded:
    """A matrix of whole numbers with scales."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        return size_of(self.weight, self.scale, self.bias)

    def __call__(self, x: Tensor) -> Tensor:
        """Returns ``x`` times the matrix, plus the bias."""
        if x.shape[0] <= FEW and native.ready(x):
            return native.linear(x, self.weight, self.scale, self.bias)
        few = x.shape[0] <= cuda.FEW and cuda.ready(x)
        found = cuda.multiply(x, self.weight, self.scale) if few else self.widened(x)
        return found if self.bias is None else found.add_(self.bias)

    def widened(self, x: Tensor) -> Tensor:
        """Returns ``x`` times the matrix by torch's own product, without the bias."""
        raise NotImplementedError


@dataclass(frozen=True)
class Int8(_Rounded):
    """``weight`` (outputs, inputs) int8, ``scale`` (outputs,) fp32, ``bias`` (outputs,) fp32 or None."""

    def widened(self, x: Tensor) -> Tensor:
        """Returns the product; whole numbers up to 127 are exact in bf16, so that only the sums are rounded."""
        return functional.linear(x, self.weight.to(x.dtype)).mul_(self.scale)


@dataclass(frozen=True)
class Int4(_Rounded):
    """Two weights a byte: byte i of a group of 32 holds weight i (low) and weight i + 16 (high).

    ``weight`` is (outputs, inputs / 2) uint8, ``scale`` (outputs, inputs / 32, 2) bf16: scale and middle.
    """

    def widened(self, x: Tensor) -> Tensor:
        """Returns the product with weights that are rounded to the dtype of ``x``."""
        return functional.linear(x, self.wide(x.dtype))

    def wide(self, dtype: Any) -> Tensor:
        """Returns the weights as (outputs, inputs) of a dtype."""
        groups = self.weight.unflatten(1, (-1, GROUP // 2))
        q = torch.cat([groups & 15, groups >> 4], dim=2).to(torch.float32) - 8.0
        return (q * self.scale[..., :1] + self.scale[..., 1:]).flatten(1).to(dtype)


def joined(weights: Sequence[Tensor], biases: Sequence[Tensor | None], form: Format | None = None) -> Linear:
    """Returns several projections of one input, as one: their outputs stand one after the other.

    Args:
        weights: (outputs, inputs) each, in the dtype of activations.
        biases: (outputs,) or None.
        form: to hold them in; None = as they are, in one copy with the tensor that came if it was one.
    """
    weight = weights[0] if len(weights) == 1 else torch.cat(list(weights))
    filled = [w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases, strict=True)]
    bias = None if all(b is None for b in biases) else torch.cat(filled)
    if form in ("int8", "int4"):
        wide = None if bias is None else bias.float()
        return int4(weight, wide) if form == "int4" and weight.shape[1] % GROUP == 0 else int8(weight, wide)
    if form == "bf16" and _oneapi(weight) and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR)
        return Packed(packed, bias, (int(weight.shape[0]), int(weight.shape[1])), native.panels(packed, weight))
    return Plain(native.settled(weight), bias)


def int8(weight: Tensor, bias: Tensor | None) -> Int8:
    """Returns a matrix rounded to int8, with a scale for every output; an output of zeros has scale 1."""
    wide = weight.float()
    most = wide.abs().amax(1)
    scale = torch.where(most > 0, most / 127.0, torch.ones_like(most))
    q = (wide / scale[:, None]).round_().clamp_(-127, 127).to(torch.int8)
    return Int8(native.settled(q), scale, bias)


def int4(weight: Tensor, bias: Tensor | None) -> Int4:
    """Returns a matrix rounded to int4; its inputs must be a multiple of `GROUP`."""
    groups = weight.float().unflatten(1, (-1, GROUP))
    low, high = groups.amin(2), groups.amax(2)
    # rounded before they are used, so that each weight is rounded to what it will be read as
    scale = torch.where(high > low, (high - low) / 15.0, torch.ones_like(low)).to(torch.bfloat16)
    middle = (low + 8.0 * scale.float()).to(torch.bfloat16)
    q = ((groups - middle.float()[..., None]) / scale.float()[..., None] + 8.0).round_().clamp_(0, 15).to(torch.uint8)
    half = GROUP // 2
    packed = (q[..., :half] | (q[..., half:] << 4)).flatten(1).contiguous()
    return Int4(native.settled(packed), torch.stack([scale, middle], 2), bias)


def size_of(*tensors: Tensor | None) -> int:
    """Returns the bytes of tensors."""
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def _oneapi(x: Tensor) -> bool:
    return bool(x.is_cpu and torch.backends.mkldnn.is_available())
