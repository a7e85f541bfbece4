"""The KV cache's memory: keys and values of every token, by layer and slot.

"int8" is xFasterTransformer's: every head of every token has a scale of its own, max |x| / 127 over its elements, and
an element is round(x / scale), ties to even; a head of zeros has scale 1 (arXiv 2407.07304, 2024). Its bytes are
(width + 4) / (4 width) of fp32's.
"""

from __future__ import annotations

from typing import Any

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm.linear import size_of

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any


class Cache:
    """Keys and values, as they are or in int8 with their scales.

    Args:
        layers: that cache.
        slots: tokens that fit.
        heads: key and value heads.
        width: elements of a head.
        dtype: of torch, that they are held in.
        device: of torch.

    Attributes:
        keys: (layers, slots, heads, width).
        values: the same.
        scales: (2, layers, slots, heads) fp32 of keys and of values, for int8; else None.
    """

    def __init__(self, layers: int, slots: int, heads: int, width: int, dtype: Any, device: Any = "cpu") -> None:
        size = (layers, slots, heads, width)
        self.keys = torch.zeros(size, dtype=dtype, device=device)
        self.values = torch.zeros(size, dtype=dtype, device=device)
        self.scales = torch.ones((2, *size[:3]), device=device) if dtype == torch.int8 else None

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        return size_of(self.keys, self.values, self.scales)

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Stores ``keys`` and ``values`` (tokens, heads, width) at ``slots`` (tokens,)."""
        for i, (held, given) in enumerate(((self.keys, keys), (self.values, values))):
            if self.scales is None:
                held[layer, slots] = given.to(held.dtype)
            else:
                held[layer, slots], self.scales[i, layer, slots] = quantised(given)

    def read(self, layer: int, slots: Tensor, dtype: Any = None) -> tuple[Tensor, Tensor]:
        """Returns the keys and values at ``slots``, each (*slots.shape, heads, width), in a dtype; None = fp32."""
        dtype = dtype or torch.float32
        if self.scales is None:
            return self.keys[layer, slots].to(dtype), self.values[layer, slots].to(dtype)
        keys, values = (held[layer, slots].float() for held in (self.keys, self.values))
        scales = self.scales[:, layer, slots, :, None]
        return (keys * scales[0]).to(dtype), (values * scales[1]).to(dtype)


def quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns ``x`` (..., width) in int8 and its scales (...), fp32."""
    wide = x.float()
    most = wide.abs().amax(-1)
    some = most > 0
    factor = torch.where(some, 127.0 / most, torch.ones_like(most))
    return (wide * factor[..., None]).round_().to(torch.int8), torch.where(some, most / 127.0, torch.ones_like(most))
