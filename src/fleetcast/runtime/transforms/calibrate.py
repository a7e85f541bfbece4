"""What a model's matrices are multiplied with on a sample of text: the data that tells weights that matter apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.runtime.llm.shape import Shape
from fleetcast.runtime.training.forward import hidden

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any
Tokens = NDArray[np.integer[Any]]
WINDOWS, LENGTH = 64, 128
"""Of the sample: this many windows of this many tokens, evenly spread over the text."""
DAMPING: Final = 0.01
"""Share of the mean diagonal added to a second moment before it is inverted, as GPTQ does."""


def sample(tokens: Tokens) -> Iterator[Tensor]:
    """Yields batches (windows, length) of the sample.

    Raises:
        SpecError: fewer tokens than two windows.
    """
    length = LENGTH
    if len(tokens) < 2 * length:
        raise SpecError("text", "is too short to calibrate on", value=len(tokens), limit=f"{2 * length} tokens or more")
    starts = np.linspace(0, len(tokens) - length, min(WINDOWS, len(tokens) // length)).astype(int)
    for begin in range(0, len(starts), 16):
        yield torch.from_numpy(np.stack([tokens[s : s + length] for s in starts[begin : begin + 16]]).astype(np.int64))


def moments(shape: Shape, weights: Mapping[str, Tensor], tokens: Tokens) -> dict[str, Tensor]:
    """Returns, for every matrix of the layers, the second moment of its inputs: the mean of x x^T, (inputs, inputs)."""
    found: dict[str, Tensor] = {}
    seen = 0

    def watch(name: str, x: Tensor) -> None:
        rows = x.flatten(0, -2)
        found[name] = found.get(name, 0) + rows.T @ rows

    with torch.inference_mode():
        for batch in sample(tokens):
            hidden(shape, weights, batch, watch)
            seen += batch.numel()
        # cloned, so that what is computed from them later is an ordinary tensor
        return {name: (value / seen).clone() for name, value in found.items()}


def damped(moment: Tensor) -> Tensor:
    """Returns a second moment that can be inverted, in fp64."""
    wide = moment.double()
    return wide + torch.eye(len(wide), dtype=torch.float64) * (DAMPING * wide.diagonal().mean() + 1e-12)


def streams(shape: Shape, weights: Mapping[str, Tensor], tokens: Tokens) -> list[Tensor]:
    """Returns the residual stream (tokens, hidden) before the first layer and after each, on the sample."""
    with torch.inference_mode():
        parts = [hidden(shape, weights, batch) for batch in sample(tokens)]
        return [torch.cat([p[i].flatten(0, 1) for p in parts]) for i in range(len(parts[0]))]
