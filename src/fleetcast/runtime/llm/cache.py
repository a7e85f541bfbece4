"""The KV cache's memory: keys and values of every token, by layer and slot."""

from __future__ import annotations

from typing import Any

from fleetcast.base.errors import MissingExtra

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any


class Cache:
    """Keys and values as they are.

    Args:
        layers: that cache.
        slots: tokens that fit.
        heads: key and value heads.
        width: elements of a head.
        dtype: of torch.
        device: of torch.
    """

    def __init__(self, layers: int, slots: int, heads: int, width: int, dtype: Any, device: Any = "cpu") -> None:
        size = (layers, slots, heads, width)
        self.keys = torch.zeros(size, dtype=dtype, device=device)
        self.values = torch.zeros(size, dtype=dtype, device=device)

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Stores ``keys`` and ``values`` (tokens, heads, width) at ``slots`` (tokens,)."""
        self.keys[layer, slots] = keys
        self.values[layer, slots] = values

    def read(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the keys and values at ``slots``, each (*slots.shape, heads, width)."""
        return self.keys[layer, slots], self.values[layer, slots]
