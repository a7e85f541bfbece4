"""Muon for the matrices of the layers, AdamW for all else: fewer steps than AdamW alone.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024: the momentum of a matrix, made
orthogonal by a Newton-Schulz iteration, is its step. How this differs: the iteration is in fp32 (bf16 gains nothing on
a CPU), four rounds long, and runs once for all matrices of a size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetcast.base.errors import MissingExtra

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any
MOMENTUM, ROUNDS = 0.9, 4
SIZE: Final = 0.4
"""Root mean square of a matrix's step by the rate: twice AdamW's, which Liu et al., 2025, measured as about 0.2."""
_QUINTIC: Final = (3.4445, -4.7750, 2.0315)  # the paper's, as in torch.optim.Muon


class Optimiser:
    """Steps ``weights`` (by name) by their gradients, in place."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.sizes: dict[tuple[int, ...], list[Tensor]] = {}
        rest = []
        for name, value in weights.items():
            if name.startswith("model.layers.") and value.ndim == 2:
                self.sizes.setdefault(tuple(value.shape), []).append(value)
            else:
                rest.append(value)
        self.weights = list(weights.values())
        self.momenta = {size: torch.zeros(len(group), *size) for size, group in self.sizes.items()}
        self.rest = torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0, fused=True)

    def step(self, rate: float) -> None:
        """Takes one step at a learning rate and forgets the gradients."""
        for group in self.rest.param_groups:
            group["lr"] = rate
        self.rest.step()
        with torch.no_grad():
            for size, group in self.sizes.items():
                held = [(i, w) for i, w in enumerate(group) if w.grad is not None]
                if not held:
                    continue
                at = torch.tensor([i for i, _ in held])
                gradient = torch.stack([w.grad for _, w in held])
                momentum = self.momenta[size][at].lerp(gradient, 1 - MOMENTUM)
                self.momenta[size][at] = momentum
                moves = orthogonal(gradient.lerp(momentum, MOMENTUM)) * (rate * SIZE * max(size) ** 0.5)
                for (_, w), move in zip(held, moves, strict=True):
                    w -= move
        for w in self.weights:
            w.grad = None


def orthogonal(x: Tensor, rounds: int = ROUNDS) -> Tensor:
    """Returns matrices (..., a, b) with nearly the same singular vectors and singular values near 1."""
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    one, three, five = _QUINTIC
    for _ in range(rounds):
        square = x @ x.mT
        x = one * x + (three * square + five * (square @ square)) @ x
    return x.mT if tall else x
