"""Norms of the residual stream and of heads, over the last axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm import cuda, native
from fleetcast.runtime.llm.families import decoder

try:
    import torch
    from torch.nn import functional
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any
Norm = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Rms:
    """RMSNorm, the mean square taken in fp32; torch rounds the quotient to ``weight``'s dtype first."""

    weight: Tensor
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        """Returns ``x`` normed."""
        if native.ready(x):
            return native.norm(x, self.weight, self.epsilon)
        if cuda.ready(x):
            return cuda.norm(x, self.weight, self.epsilon)
        wide = x.float()
        found = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)).to(self.weight.dtype)
        return (found * self.weight).to(x.dtype)


@dataclass(frozen=True)
class LayerNorm:
    """LayerNorm with a bias."""

    weight: Tensor
    bias: Tensor
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        """Returns ``x`` normed."""
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


def read_norm(kind: decoder.Norm, epsilon: float, tensor: Callable[[str], Tensor], name: str) -> Norm:
    """Returns the norm of that name; ``tensor`` gives weights by name."""
    weight = tensor(f"{name}.weight")
    if kind == "layer":
        return LayerNorm(weight, tensor(f"{name}.bias"), epsilon)
    # Gemma stores the weight less 1 and multiplies in fp32
    return Rms(weight.float() + 1.0 if kind == "rms+1" else weight, epsilon)
