"""Pipelines in closed form: how long their stages idle, and how many micro-batches each holds.

With f, b, w = seconds of a stage's forward pass, of its whole backward pass and of the part of it that makes weights'
gradients, p stages, v pieces per stage and m micro-batches:

    GPipe, 1F1B     (p-1)(f+b)               GPipe: Huang and others, NeurIPS 2019; 1F1B: PipeDream-Flush, ICML 2021
    interleaved     (p-1)(f+b)/v             Narayanan and others, SC 2021
    zero-bubble H1  (p-1)(f+b-2w)            Qi and others, ICLR 2024
    DualPipe        (p/2-1)(f&b + b - 3w)    DeepSeek-V3, 2024; f&b = a forward and a backward pass at once

Interleaving asks for micro-batches in whole rounds of p (Megatron-LM); the first stage then holds 1 + (p-1)/(pv) times
what it holds under 1F1B. `sim.training` runs the same schedules as events.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleetcast.cost.training.plans import SCHEDULES

Array = NDArray[np.float64]
GPIPE, PLAIN, INTERLEAVED, ZERO_BUBBLE, DUALPIPE = range(len(SCHEDULES))


ENDS = 2
"""Places of layers that embedding and head may take in a pipeline of equal pieces (Llama 3: 126 layers on 128)."""


def whole_pieces(depth: int, pipeline: int, pieces: int) -> bool:
    """Returns whether layers fill the pieces of all stages, but for a place each that embedding and head may take."""
    places = -(-depth // (pipeline * pieces)) * pipeline * pieces
    return places - depth <= ENDS


def light_ends(depth: int, pipeline: ArrayLike, pieces: ArrayLike) -> tuple[Array, Array]:
    """Returns how many layers fewer than the fullest the (first, last) stage holds: 0 or 1, arrays.

    Where stages lack a layer or two, the head takes one's place, and the embedding the other's: a balanced pipeline
    (BLOOM, 70 layers on 12 stages; Llama 3, 126 on 16).
    """
    p, v = np.asarray(pipeline), np.asarray(pieces)
    spare = -(-depth // (p * v)) * p * v - depth
    light = (p > 1) & (spare > 0) & (spare <= ENDS) & (spare < p)
    return (light & (spare == ENDS)).astype(np.float64), light.astype(np.float64)


def idle_weights(schedule: ArrayLike, pipeline: ArrayLike, interleave: ArrayLike) -> tuple[Array, Array, Array]:
    """Returns how many forward, backward and weight-gradient passes of a stage its bubble is as long as.

    Arrays that broadcast: codes of ``SCHEDULES``, stages, pieces per stage.
    """
    kind, p, v = (np.asarray(x) for x in (schedule, pipeline, interleave))
    dual = kind == DUALPIPE
    rounds = np.where(dual, np.maximum(p / 2.0 - 1.0, 0.0), p - 1.0) / np.where(kind == INTERLEAVED, v, 1)
    backward = np.where(dual, 2.0 * rounds, rounds)
    saved = np.where(dual, 3.0 * rounds, np.where(kind == ZERO_BUBBLE, 2.0 * rounds, 0.0))
    return rounds.astype(np.float64), np.asarray(backward, dtype=np.float64), np.asarray(saved, dtype=np.float64)


def bubble(
    schedule: ArrayLike, pipeline: ArrayLike, interleave: ArrayLike, forward: ArrayLike, backward: ArrayLike,
    weights: ArrayLike,
) -> Array:  # fmt: skip
    """Returns seconds that a stage idles in an iteration, never below zero.

    Args:
        schedule: codes of ``SCHEDULES``.
        pipeline: stages.
        interleave: pieces per stage.
        forward: s of one micro-batch's forward pass on a stage, all its pieces.
        backward: s of its whole backward pass.
        weights: s of the part of it that makes the gradients of weights.
    """
    f, b, w = idle_weights(schedule, pipeline, interleave)
    total = f * np.asarray(forward) + b * np.asarray(backward) - w * np.asarray(weights)
    return np.asarray(np.maximum(total, 0.0))


def in_flight(
    schedule: ArrayLike, pipeline: ArrayLike, interleave: ArrayLike, micro_batches: ArrayLike, stage: int = 0
) -> Array:  # fmt: skip
    """Returns the micro-batches whose activations a stage holds at once, in whole stages, at most all of them.

    The first stage holds most; ``stage`` = 1 is the second. DualPipe's stages hold p + 1 each, of two directions.
    """
    kind, p, v, m = (np.asarray(x) for x in (schedule, pipeline, interleave, micro_batches))
    few = np.minimum(np.where(kind == ZERO_BUBBLE, p, np.maximum(p - stage, 1)), m).astype(np.float64)
    turns = np.minimum(p + (p - 1.0 - 2.0 * stage) / np.maximum(v, 1), m)
    held = np.where(kind == INTERLEAVED, np.where(v > 1, turns, few), few)
    held = np.where(kind == GPIPE, m, held)
    return np.asarray(np.where(kind == DUALPIPE, np.minimum(p + 1.0, 2.0 * m), held), dtype=np.float64)


def last_in_flight(schedule: ArrayLike, pipeline: ArrayLike, interleave: ArrayLike, micro_batches: ArrayLike) -> Array:
    """Returns the micro-batches whose activations the last stage holds at once, in whole stages."""
    kind, p, v, m = (np.asarray(x) for x in (schedule, pipeline, interleave, micro_batches))
    turns = np.minimum(np.where(v > 1, ((v - 1) * p + 1.0) / np.maximum(v, 1), 1.0), m)
    held = np.where(kind == INTERLEAVED, turns, 1.0)
    held = np.where(kind == GPIPE, m, held)
    held = np.where(kind == ZERO_BUBBLE, np.minimum(p, m), held)
    return np.asarray(np.where(kind == DUALPIPE, np.minimum(p + 1.0, 2.0 * m), held), dtype=np.float64)
