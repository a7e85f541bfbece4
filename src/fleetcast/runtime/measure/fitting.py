"""From timed iterations to coefficients: what remains beside the products, told apart by what it grows with.

An iteration takes

    step + seq n + token t                          scheduling, Python, by sequences and tokens
    + head's sampling                               by tokens that come out and vocabulary
    + layers (passes over activations)              a fixed time each, and by tokens and widths
    + decode: base + each n + read X + multiply X   per layer, X tokens of context
    + prefill: base + pairs + tokens passed over    per layer and piece
    + products                                      forecast from their own measurement, times g(rows)

A library's call, which products of more than `FEW` rows are, takes longer in place than alone, where its code is warm:
by a time that is found as well. ``g`` is near 1: what products take in place over what they took alone. It is linear in
log(rows) between ``KNOTS``, and held to 1 by as much as a reading with an error of ``TRUST`` would hold it. All
coefficients are at least 0 and found together, by least squares on relative errors (Lawson and Hanson, "Solving Least
Squares Problems", 1974, chapter 23). Formats share what they can: all of them the host's constants, those with one
dtype of activations the passes over these, those with one dtype of the cache what decoding reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from fleetcast.cost.attention import pairs
from fleetcast.runtime.measure.passes import Timed
from fleetcast.runtime.measure.products import FEW

Array = NDArray[np.float64]
Found = Mapping[str, Mapping[str, float]]

HOST = ("step", "seq", "token")
ACTIVATIONS = ("launch", "stream", "logit", "piece", "pair", "passed")
"""What iterations consist of by the dtype of their activations."""
CACHE = ("decode", "each", "read", "multiply")
"""What they consist of by the dtype of their cache."""
KNOTS = (1.0, 4.0, 16.0, 64.0, 256.0)
TRUST, NOISE = 0.15, 0.07
"""Standard deviations, relative: of products in place from products alone, and of an iteration from its forecast."""
LIMITS = (0.5, 3.0)
"""Least and most that products take in place over what they took alone."""
_LEAST = 1e-3  # of an iteration's time: a forecast that is less is no better
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
        form: format of its matrices.
        dtype: of its activations.
        kv_dtype: of its cache.
        seconds: (n,) s.
        products: (n, len(KNOTS)) s of all their matrix products as forecast, by the knots that their rows lie between.
        fixed: (n,) s of that which no knot scales: calls.
        calls: (n,) products of more than `FEW` rows.
        parts: what else they contain, from `features`.
    """

    model: str
    form: str
    dtype: str
    kv_dtype: str
    seconds: Array
    products: Array
    fixed: Array
    calls: Array
    parts: Mapping[str, Array]

    def holds(self) -> dict[tuple[str, str], Array]:
        """Returns (n,) how much of each coefficient the iterations contain, by whose it is and its name."""
        found = {("host", name): self.parts[name] for name in HOST}
        found |= {(self.dtype, name): self.parts[name] for name in ACTIVATIONS}
        found |= {(f"kv {self.kv_dtype}", name): self.parts[name] for name in CACHE}
        found |= {(f"products {self.form}", str(k)): self.products[:, k] for k in range(len(KNOTS))}
        return found | {(f"calls {self.form}", "more"): self.calls}


def hats(rows: Array) -> Array:
    """Returns (n, len(KNOTS)): how much of each knot ``rows`` (n,) take, summing to 1; all of the end ones beyond."""
    place = np.interp(np.log(np.maximum(rows, 1.0)), np.log(KNOTS), np.arange(len(KNOTS)))
    return np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(len(KNOTS))))


def fit(cases: Sequence[Case]) -> Found:
    """Returns the coefficients, by whose they are ("host", "fp32", "kv fp32", "products fp32", ...) and their names."""
    contents = [case.holds() for case in cases]
    columns = list(dict.fromkeys(key for held in contents for key in held))
    blocks = [
        np.stack([held.get(key, np.zeros(len(case.seconds))) / case.seconds for key in columns], axis=1)
        for case, held in zip(cases, contents, strict=True)
    ]
    ours = np.array([whose.startswith("products") for whose, _ in columns])
    trusted = ours * (NOISE / TRUST)
    matrix = np.vstack([*blocks, np.diag(trusted)[ours]])
    left = np.concatenate([*(1.0 - case.fixed / case.seconds for case in cases), trusted[ours]])
    scale = np.linalg.norm(matrix, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    least, most = np.where(ours, LIMITS[0], 0.0), np.where(ours, LIMITS[1], np.inf)
    values = lsq_linear(matrix / scale, left, (least * scale, most * scale), method="bvls").x / scale
    values = np.clip(values, least, most)  # bounds are met to rounding only
    found: dict[str, dict[str, float]] = {}
    for (whose, name), value in zip(columns, values.tolist(), strict=True):
        found.setdefault(whose, {})[name] = value
    return found


def forecast(case: Case, found: Found) -> Array:
    """Returns s of a case's iterations by fitted coefficients."""
    return np.asarray(case.fixed + sum(found[whose][name] * held for (whose, name), held in case.holds().items()))


def in_place(found: Found, form: str, rows: Array) -> Array:
    """Returns what products of ``rows`` (n,) take in place over what they took alone."""
    known = found.get(f"products {form}", {})
    return np.asarray(hats(rows) @ [known.get(str(k), 1.0) for k in range(len(KNOTS))])


def called(found: Found, form: str, rows: Array) -> Array:
    """Returns s by which a call of a product of ``rows`` (n,) takes longer in place than alone."""
    return np.where(np.asarray(rows) > FEW, found.get(f"calls {form}", {"more": 0.0})["more"], 0.0)


def held_out(cases: Sequence[Case]) -> dict[str, Array]:
    """Returns log(forecast / measured) by format, each model forecast from a fit without it.

    Formats and caches that only one model was run in are left out: nothing is known of them without it.
    """
    errors: dict[str, list[Array]] = {}
    for model in dict.fromkeys(case.model for case in cases):
        found = fit([case for case in cases if case.model != model])
        for case in cases:
            if case.model == model and all(whose in found for whose, _ in case.holds()):
                share = np.maximum(forecast(case, found) / case.seconds, _LEAST)
                errors.setdefault(case.form, []).append(np.log(share))
    return {form: np.concatenate(rows) for form, rows in errors.items()}
