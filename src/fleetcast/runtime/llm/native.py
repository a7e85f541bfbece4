"""The package's own kernels (`kernels.decoder`) on tensors: taken where they are built and the tensors are the CPU's.

Every caller has torch's own operations to fall back on, which compute the same to rounding.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

from fleetcast.base.errors import MissingExtra

try:
    import torch
    from torch.nn import functional
except ImportError:
    raise MissingExtra("torch", "torch") from None
kernels: Any
try:
    from fleetcast.kernels import decoder as kernels
except ImportError:
    kernels = None

Tensor = Any

KINDS: Final = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2, torch.uint8: 3}
"""How the kernels number what elements are; two int4 weights share a uint8."""

PANEL: Final = 64
"""Outputs of a panel of bf16 weights."""


def ready(x: Tensor) -> bool:
    """Whether the kernels are built and can take a tensor."""
    return kernels is not None and x.is_cpu and x.dtype in KINDS and x.is_contiguous()


def address(x: Tensor | None) -> int:
    """Returns where a tensor's elements begin; 0 for none."""
    return 0 if x is None else int(x.data_ptr())


def settled(x: Tensor) -> Tensor:
    """Returns a tensor that stays, after asking for huge pages under it: reading it then takes up to a tenth less."""
    if ready(x):
        kernels.settle(x.data_ptr(), x.numel() * x.element_size())
    return x


def linear(x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """Returns ``x`` (rows, inputs) times a matrix of any kind, plus a fp32 ``bias``, in the dtype of ``x``."""
    (rows, inputs), outputs = x.shape, weight.shape[0]
    out = x.new_empty(rows, outputs)
    kernels.linear(
        KINDS[weight.dtype], KINDS[x.dtype], rows, outputs, inputs, x.data_ptr(), weight.data_ptr(),
        address(scale), address(bias), out.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return out


def panels(packed: Tensor, weight: Tensor) -> int:
    """Returns the bytes of a panel of ``packed``, oneDNN's layout of ``weight`` (outputs, inputs); 0 = it is another.

    Panels hold 64 outputs. What oneDNN chose is looked at, since it does not promise any layout; where it is the one
    that our own kernel reads, huge pages are asked for.
    """
    if kernels is None or not kernels.pairs() or not hasattr(torch.ops.mkldnn, "data_ptr"):
        return 0
    (outputs, inputs), at, size = weight.shape, torch.ops.mkldnn.data_ptr(packed), torch.ops.mkldnn._nbytes(packed)
    count = (outputs + PANEL - 1) // PANEL
    held = size // (2 * count * PANEL)
    if size != 2 * count * PANEL * held or held % 2 or held < inputs:
        return 0
    kernels.settle(at, size)
    found = torch.frombuffer((ctypes.c_char * size).from_address(at), dtype=torch.int16)
    laid = functional.pad(weight.view(torch.int16), (0, held - inputs, 0, count * PANEL - outputs))
    laid = laid.view(count, PANEL, held // 2, 2).transpose(1, 2)
    return size // count if torch.equal(found.view(laid.shape), laid) else 0


def panelled(x: Tensor, packed: Tensor, outputs: int, panel: int, bias: Tensor | None) -> Tensor:
    """Returns bf16 ``x`` times a matrix whose panels have so many bytes, plus a fp32 ``bias``."""
    rows, inputs = x.shape
    out = x.new_empty(rows, outputs)
    kernels.panels(
        rows, outputs, inputs, panel, x.data_ptr(), torch.ops.mkldnn.data_ptr(packed), address(bias), out.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return out


def norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Returns the RMS norm of ``x`` over its last axis."""
    out = torch.empty_like(x)
    width = x.shape[-1]
    kernels.norm(
        KINDS[x.dtype], KINDS[weight.dtype], x.data_ptr(), 0, weight.data_ptr(), out.data_ptr(), x.numel() // width,
        width, torch.get_num_threads(), epsilon,
    )  # fmt: skip
    return out


def gate(x: Tensor, gelu: bool) -> Tensor:
    """Returns act(first half of each row) times the second half; act is silu, or gelu by tanh."""
    rows, width = x.shape[0], x.shape[1] // 2
    out = x.new_empty(rows, width)
    kernels.gate(KINDS[x.dtype], int(gelu), x.data_ptr(), out.data_ptr(), rows, width, torch.get_num_threads())
    return out
