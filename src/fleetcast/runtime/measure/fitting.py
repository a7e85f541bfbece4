"""From timed iterations to coefficients: what remains beside the products, told apart by what it grows with.

An iteration takes

    step + seq n + token t                          scheduling, Python, by sequences and tokens
    + head's sampling                               by tokens that come out and vocabulary
    + layers (passes over activations)              a fixed time each, and by tokens and widths
    + decode: base + each n + read X + multiply X   per layer, X tokens of context
    + prefill: base + pairs + tokens passed over    per layer and piece
    + products                                      forecast from their own measurement, times g(rows)

``g`` is near 1: what an engine's products take in place, over what they took alone. It is linear in log(rows) between
``KNOTS``, and held to 1 by as much as a reading with an error of ``TRUST`` would hold it. All coefficients are at
least 0 and found together, by least squares on relative errors (Lawson and Hanson, "Solving Least Squares Problems",
1974, chapter 23). Formats share the host's constants; all else is each format's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost.attention import pairs
from fleetcast.runtime.measure.passes import Timed

Array = NDArray[np.float64]

HOST = ("step", "seq", "token")
OWN = ("launch", "stream", "logit", "decode", "each", "read", "multiply", "piece", "pair", "passed")
"""What a format's iterations consist of beside the host's part."""
KNOTS = (1.0, 4.0, 16.0, 64.0, 256.0)
TRUST, NOISE = 0.3, 0.07
"""Standard deviations, relative: of products in place from products alone, and of an iteration from its forecast."""
LAUNCHES = 5
"""Passes over activations that `cost.layers.block_terms` charges a layer."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What of a model the time of its iterations depends on, products aside."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int
    vocab: int


def features(size: Sizes, timed: Sequence[Timed], kv_bytes: float) -> dict[str, Array]:
    """Returns how much of each of ``HOST`` and ``OWN`` the iterations contain, each (n,).

    Args:
        size: of their model.
        timed: the iterations.
        kv_bytes: of one element of the cache.
    """
    n, context, piece, cached, emits = (
        np.array([getattr(t, name) for t in timed], dtype=np.float64)
        for name in ("decodes", "context", "piece", "cached", "emits")
    )
    tokens, some, layers = n + piece, (piece > 0) * 1.0, float(size.layers)
    passes = 8.0 * size.hidden + 4.0 * size.heads * size.head_dim + 3.0 * size.width  # elements, as `block_terms` has
    wide = size.heads * size.head_dim
    kv = size.kv_heads * size.head_dim
    attended = np.where(piece > 0, pairs(piece, cached), 0.0)
    return {
        "step": np.ones_like(n), "seq": n + some, "token": tokens,
        "launch": np.full_like(n, LAUNCHES * layers), "stream": layers * tokens * passes * 2.0,
        "logit": emits * size.vocab * 8.0,
        "decode": layers * (n > 0), "each": layers * n, "read": layers * context * 2.0 * kv * kv_bytes,
        "multiply": layers * context * 4.0 * wide,
        "piece": layers * some, "pair": layers * attended * 4.0 * wide,
        "passed": layers * 4.0 * (piece * wide + some * (piece + cached) * kv),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """The timed iterations of one model in one format.

    Attributes:
        model: its name.
        dtype: the format.
        seconds: (n,) s.
        products: (n, len(KNOTS)) s of all their matrix products as forecast, by the knots that their rows lie between.
        fixed: (n,) s of that which no knot scales.
        parts: what else they contain, from `features`.
    """

    model: str
    dtype: str
    seconds: Array
    products: Array
    fixed: Array
    parts: Mapping[str, Array]


def hats(rows: Array) -> Array:
    """Returns (n, len(KNOTS)): how much of each knot ``rows`` (n,) take, summing to 1; all of the end ones beyond."""
    place = np.interp(np.log(np.maximum(rows, 1.0)), np.log(KNOTS), np.arange(len(KNOTS)))
    return np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(len(KNOTS))))


def fit(cases: Sequence[Case]) -> dict[str, dict[str, float]]:
    """Returns the coefficients: of "host", and of each format, s per unit of each part, and g at "g0", "g1", ..."""
    dtypes = list(dict.fromkeys(case.dtype for case in cases))
    inner = [f"g{k}" for k in range(len(KNOTS))]
    columns = [("host", name) for name in HOST] + [(d, name) for d in dtypes for name in (*OWN, *inner)]
    blocks = []
    for case in cases:
        block = np.zeros((len(case.seconds), len(columns)))
        for j, (whose, name) in enumerate(columns):
            if whose in ("host", case.dtype):
                amount = case.products[:, inner.index(name)] if name in inner else case.parts[name]
                block[:, j] = amount / case.seconds
        blocks.append(block)
    trusted = np.array([float(name in inner) for _, name in columns]) * (NOISE / TRUST)
    believed = np.diag(trusted)[trusted > 0]
    matrix = np.vstack([*blocks, believed])
    scale = np.linalg.norm(matrix, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    left = np.concatenate([*(1.0 - case.fixed / case.seconds for case in cases), trusted[trusted > 0]])
    found = least_squares(matrix / scale, left) / scale
    result: dict[str, dict[str, float]] = {}
    for (whose, name), value in zip(columns, found.tolist(), strict=True):
        result.setdefault(whose, {})[name] = value
    return result


def forecast(case: Case, found: Mapping[str, Mapping[str, float]]) -> Array:
    """Returns s of a case's iterations by fitted coefficients."""
    own, rest = found[case.dtype], sum(found["host"][name] * case.parts[name] for name in HOST)
    products = case.products @ [own[f"g{k}"] for k in range(len(KNOTS))]
    return np.asarray(case.fixed + products + rest + sum(own[name] * case.parts[name] for name in OWN))


def held_out(cases: Sequence[Case]) -> dict[str, Array]:
    """Returns log(forecast / measured) by format, each model forecast from a fit without it."""
    errors: dict[str, list[Array]] = {}
    for model in dict.fromkeys(case.model for case in cases):
        rest = [case for case in cases if case.model != model]
        found = fit(rest)
        for case in cases:
            if case.model == model and case.dtype in found:
                errors.setdefault(case.dtype, []).append(np.log(forecast(case, found) / case.seconds))
    return {dtype: np.concatenate(rows) for dtype, rows in errors.items()}


def least_squares(a: Array, b: Array) -> Array:
    """Returns x >= 0 that makes ``|a x - b|`` least (Lawson and Hanson's active sets).

    Args:
        a: (m, n), columns of similar length.
        b: (m,).
    """
    n = a.shape[1]
    x = np.zeros(n)
    active = np.zeros(n, dtype=bool)
    gradient = a.T @ (b - a @ x)
    tolerance = 1e-10 * max(1.0, float(np.abs(gradient).max(initial=0.0)))
    for _ in range(10 * n):
        free = ~active & (gradient > tolerance)
        if not free.any():
            break
        active[np.where(free, gradient, -np.inf).argmax()] = True
        while True:
            trial = np.zeros(n)
            trial[active] = np.linalg.lstsq(a[:, active], b, rcond=None)[0]
            if trial[active].min() > 0:
                break
            low = active & (trial <= 0)
            step = float(np.min(x[low] / np.maximum(x[low] - trial[low], 1e-300)))
            x = x + step * (trial - x)
            active &= x > 1e-15
            x[~active] = 0.0
            if not active.any():
                trial = np.zeros(n)
                break
        x = trial
        gradient = a.T @ (b - a @ x)
    return x
