"""Matrices that activations are multiplied with, each in the form that its dtype is fastest in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fleetcast.base.errors import MissingExtra

try:
    import torch
    from torch.nn import functional
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any


class Linear(Protocol):
    """Maps (tokens, inputs) to (tokens, outputs)."""

    def __call__(self, x: Tensor) -> Tensor:
        """Returns ``x`` times the matrix, plus the bias."""
        ...


@dataclass(frozen=True)
class Plain:
    """A matrix as it is: ``weight`` (outputs, inputs) and ``bias`` (outputs,) or None, in the dtype of activations."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """Returns ``x`` times the matrix, plus the bias."""
        return functional.linear(x, self.weight, self.bias)


def joined(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Linear:
    """Returns several projections of one input, as one: their outputs stand one after the other."""
    if len(weights) == 1:
        return Plain(weights[0], biases[0])
    if all(b is None for b in biases):
        return Plain(torch.cat(list(weights)), None)
    filled = [w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases, strict=True)]
    return Plain(torch.cat(list(weights)), torch.cat(filled))
