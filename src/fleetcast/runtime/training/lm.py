"""Trains a small language model: Muon and AdamW under a cosine, windows drawn from one stream of tokens.

With a number of steps and one thread, equal arguments give equal weights, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.runtime.llm.shape import Shape
from fleetcast.runtime.training.forward import forward
from fleetcast.runtime.training.muon import Optimiser

try:
    import torch
    from torch.nn import functional
except ImportError:
    raise MissingExtra("torch", "torch") from None

Tensor = Any
Tokens = NDArray[np.integer[Any]]
Loss = Callable[[Shape, Mapping[str, Tensor], Tensor, Tensor], Tensor]
"""Of a shape, its weights, inputs and targets, both (batch, length): the number to lower."""
WARMUP, FLOOR, CLIP = 0.05, 0.1, 1.0
"""Share of the steps in which the rate rises; the rate's last value by its highest; gradient norm."""


@dataclass(frozen=True)
class Score:
    """How well a model foresees the next token.

    Attributes:
        loss: nat per token.
        accuracy: share of tokens that were the likeliest.
        tokens: that were foretold.
    """

    loss: float
    accuracy: float
    tokens: int


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        weights: by name, fp32.
        losses: of each step's batch, nat per token (of the objective, where another was given).
        held: score on tokens that were not trained on; None if there were none.
        steps: that were made.
        seconds: that took.
    """

    weights: dict[str, Tensor]
    losses: tuple[float, ...]
    held: Score | None
    steps: int
    seconds: float


def next_token(shape: Shape, weights: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean cross-entropy of the next token, nat."""
    return functional.cross_entropy(forward(shape, weights, inputs).flatten(0, 1).float(), targets.flatten())


def initial(shape: Shape, seed: int = 0) -> dict[str, Tensor]:
    """Returns random fp32 weights: matrices by their inputs, those that write the residual stream by depth too."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for name, size in shape.tensors():
        if name.endswith("bias"):
            found[name] = torch.zeros(size)
        elif len(size) == 1:
            found[name] = torch.ones(size)
        else:
            scale = size[1] ** -0.5
            if name.startswith("model.embed"):
                scale = 0.1 if shape.tied else 1.0  # as large as what layers add to it, or tokens drown in that
            elif name == "lm_head.weight":
                scale = 0.02
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                scale /= (2 * len(shape.windows)) ** 0.5
            found[name] = torch.randn(size, generator=draw) * scale
    return found


def train(
    shape: Shape,
    tokens: Tokens,
    *,
    steps: int = 0,
    seconds: float = 0.0,
    batch: int = 16,
    length: int = 128,
    rate: float = 1e-2,
    seed: int = 0,
    held: Tokens | None = None,
    weights: Mapping[str, Tensor] | None = None,
    loss: Loss = next_token,
    progress: Callable[[int, float], None] | None = None,
) -> Trained:
    """Returns a model trained on ``tokens``.

    Args:
        shape: of the model.
        tokens: one stream of ids.
        steps: to make; or
        seconds: to train for, which makes the result depend on the machine's speed.
        batch: windows a step.
        length: tokens of a window.
        rate: highest learning rate, AdamW's; Muon's steps follow it (`muon.SIZE`).
        seed: of first weights and windows.
        held: tokens to score the result on; without them the last tenth of ``tokens`` is kept back.
        weights: to go on from, by name; they stay as they are.
        loss: to lower; cross-entropy of the next token unless said.
        progress: is told (step, loss) after each step.

    Raises:
        SpecError: neither or both of ``steps`` and ``seconds``; a token outside the vocabulary; too few tokens.
    """
    if (steps > 0) == (seconds > 0):
        limit = "steps or seconds, one of them above 0"
        raise SpecError("train", "needs a length", value=(steps, seconds), limit=limit)
    stream = np.asarray(tokens)
    if held is None:
        cut = len(stream) - max(len(stream) // 10, length + 1)
        stream, held = stream[: max(0, cut)], stream[max(0, cut) :]
    _check(stream, shape, length, "tokens")
    begun, made, losses = time.perf_counter(), 0, []
    found = {name: value.detach().float().clone() for name, value in (weights or initial(shape, seed)).items()}
    leaves = [value.requires_grad_() for value in found.values()]
    optimiser = Optimiser(found)
    draw = np.random.default_rng(seed)
    data = torch.from_numpy(stream.astype(np.int64))
    while (done := made / steps if steps else (time.perf_counter() - begun) / seconds) < 1:
        factor = min(1.0, max(done, 1e-3) / WARMUP) * (FLOOR + (1 - FLOOR) * (1 + cos(pi * done)) / 2)
        starts = torch.from_numpy(draw.integers(0, len(stream) - length, batch))
        windows = data[starts[:, None] + torch.arange(length + 1)]
        value = loss(shape, found, windows[:, :-1], windows[:, 1:])
        value.backward()
        torch.nn.utils.clip_grad_norm_(leaves, CLIP)
        optimiser.step(rate * factor)
        made += 1
        losses.append(float(value.detach()))
        if progress is not None:
            progress(made, losses[-1])
    final = {name: value.detach() for name, value in found.items()}
    scored = score(shape, final, held, length=length) if len(held) > length else None
    return Trained(final, tuple(losses), scored, made, time.perf_counter() - begun)


def score(shape: Shape, weights: Mapping[str, Tensor], tokens: Tokens, *, length: int = 128, windows: int = 0) -> Score:
    """Returns how well a model foresees ``tokens``, cut into windows that do not overlap.

    Args:
        shape: of the model.
        weights: by name.
        tokens: one stream of ids.
        length: tokens of a window; the first of each is given, not foretold.
        windows: to score, evenly spread over the stream; 0 = all.

    Raises:
        SpecError: a token outside the vocabulary; fewer tokens than one window takes.
    """
    stream = np.asarray(tokens)
    _check(stream, shape, length, "tokens")
    starts = np.arange(0, len(stream) - length, length)
    if 0 < windows < len(starts):
        starts = starts[np.linspace(0, len(starts) - 1, windows).astype(int)]
    data = torch.from_numpy(stream.astype(np.int64))
    total, right, count = 0.0, 0, 0
    with torch.inference_mode():
        for begin in range(0, len(starts), 16):
            at = torch.from_numpy(starts[begin : begin + 16])
            rows = data[at[:, None] + torch.arange(length + 1)]
            said, targets = forward(shape, weights, rows[:, :-1]).flatten(0, 1).float(), rows[:, 1:].flatten()
            total += float(functional.cross_entropy(said, targets, reduction="sum"))
            right += int((said.argmax(-1) == targets).sum())
            count += len(targets)
    return Score(total / count, right / count, count)


def _check(stream: Tokens, shape: Shape, length: int, path: str) -> None:
    if len(stream) <= length:
        raise SpecError(path, "are too few", value=len(stream), limit=f"more than a window of {length}")
    low, high = int(stream.min()), int(stream.max())
    if low < 0 or high >= shape.vocab:
        value = low if low < 0 else high
        raise SpecError(path, "hold one outside the vocabulary", value=value, limit=f"0 to {shape.vocab - 1}")
