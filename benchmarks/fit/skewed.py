"""Skewed expert kernels predicted from balanced ones: what a router's distribution alone explains of measured times.

The tables hold every shape three times: with experts dealt round-robin ("balanced"), and with loads drawn from a power
law of exponent 1.01 or 1.2. Coefficients are fitted on balanced rows of *other* models; the skewed rows of a model are
then predicted from a distribution, and no skewed row is ever fitted.

The tables' generator (collector of ai-dynamo/aiconfigurator, Apache-2.0, read 2026) draws a weight per expert with
density x^-exponent on [1, 0.8 T], or on [0.01, 2] where T tokens make fewer choices than there are experts, scales the
weights to the choices, rounds, and times the rank with most rows. Its seeds are not recorded: `loads` draws anew.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.fit.products import MOE_RANGE, predict_moe
from benchmarks.fit.solve import error, fit
from benchmarks.fit.tables import columns
from fleetcast.cost.moe import Experts, busiest, distinct_experts, experts_time
from fleetcast.cost.placement import busiest_of, placed
from fleetcast.cost.roofline import Chip

Busy = tuple[np.ndarray, np.ndarray]
SHAPE = ["hidden_size", "inter_size", "num_experts", "topk"]
WORLD = ["num_tokens", "num_experts", "topk", "moe_ep_size"]
DRAWS = 16
RANGE = {name: bounds for name, bounds in MOE_RANGE.items() if name not in ("spread", "skew")}


def loads(exponent: float, tokens: int, experts: int, top_k: int) -> np.ndarray:
    """Returns ``DRAWS`` loads as the generator draws them: float64[draws, experts], chance to be chosen by a token."""
    low, high = (1.0, 0.8 * tokens) if tokens * top_k > experts else (0.01, 2.0)
    power = 1.0 - exponent
    stream = np.random.default_rng([round(100 * exponent), tokens, experts, top_k])
    drawn = (low**power + (high**power - low**power) * stream.random((DRAWS, experts))) ** (1.0 / power)
    chosen = top_k * drawn / drawn.sum(axis=1, keepdims=True)
    while (chosen > 1.0 + 1e-9).any():  # an expert is chosen once a token: what is over goes to the others
        full = chosen >= 1.0
        rest = np.where(full, 0.0, chosen)
        chosen = np.where(full, 1.0, rest * (top_k - full.sum(axis=1))[:, None] / rest.sum(axis=1, keepdims=True))
    return np.asarray(np.minimum(chosen, 1.0))


@cache
def modelled(exponent: float, tokens: int, experts: int, top_k: int, ranks: int) -> tuple[float, float]:
    """Returns rows and touched experts of the busiest rank by `cost.placement`, mean over draws."""
    t = np.array([float(tokens)])
    found = [
        busiest_of(row, ranks, placed(row, ranks, "contiguous"), t)[:2]
        for row in loads(exponent, tokens, experts, top_k)
    ]
    rows, touched = np.mean(found, axis=0)[:, 0]
    return float(rows), float(touched)


@cache
def dealt(exponent: float, tokens: int, experts: int, top_k: int, ranks: int) -> tuple[float, float]:
    """Returns the same where an expert gets its share of the tokens exactly, as the generator deals them out."""
    found = []
    for row in loads(exponent, tokens, experts, top_k):
        count = np.floor(row * tokens)
        left = tokens * top_k - int(count.sum())
        count[np.argsort(count - row * tokens, kind="stable")[:left]] += 1  # the largest fractions
        by = count.reshape(ranks, -1)
        worst = by[by.sum(axis=1).argmax()]
        found.append((worst.sum(), (worst > 0).sum()))
    rows, touched = np.mean(found, axis=0)
    return float(rows), float(touched)


def busy(frame: pd.DataFrame, how: str) -> Busy:
    """Returns rows and touched experts of the busiest rank.

    Args:
        frame: measured rows.
        how: "balanced" = as the tables deal them; "even" = a uniform router, which knows no skew; "model" or "dealt" =
            the power law in the row's column ``distribution``.
    """
    t, e, k, n = columns(frame, *WORLD)
    if how == "balanced":
        return t * k / n, np.maximum(np.ceil(np.minimum(e, t * k) / n - 1e-9), 1.0)
    if how == "even":
        return t * k / n, busiest(distinct_experts(t, e, k) / n, n, e / n)
    find = modelled if how == "model" else dealt
    exponents = frame["distribution"].str.rpartition("_")[2].astype(float)
    keys = zip(exponents, *(x.astype(int) for x in (t, e, k, n)), strict=True)
    rows, touched = np.array([find(*key) for key in keys]).T
    return rows, touched


def predict(frame: pd.DataFrame, dtype: str, chip: Chip, c: Experts, load: Busy) -> np.ndarray:
    """Returns predicted seconds."""
    t, h, w, e, k, n, tp = columns(frame, WORLD[0], *SHAPE, "moe_ep_size", "moe_tp_size")
    return experts_time(t, h, w, e, k, dtype, chip, c, expert_parallel=n, tensor_parallel=tp, busy=load)


def fit_balanced(frame: pd.DataFrame, dtype: str, chip: Chip, most: int = 3000) -> Experts:
    """Returns coefficients fitted on the balanced rows of ``frame``, without spread and skew."""
    frame = frame[frame["distribution"] == "balanced"]
    frame = frame.iloc[:: max(1, len(frame) // most)]
    load, time = busy(frame, "balanced"), frame["time"].to_numpy(np.float64)
    weight = np.where(frame["moe_ep_size"] == 1, 2.0, 1.0)
    found = []
    for sharp in (1, 2, 4):

        def trial(x: dict[str, Any], sharp: int = sharp) -> Any:
            return predict(frame, dtype, chip, Experts(sharp=sharp, **x), load)

        c = Experts(sharp=sharp, **fit(trial, RANGE, time, weight))
        found.append((error(predict(frame, dtype, chip, c, load), time)["median"], c))
    return min(found, key=lambda pair: pair[0])[1]


def held_out(
    frame: pd.DataFrame, dtype: str, chip: Chip, shipped: Experts, folds: int = 4, most: int = 4000
) -> pd.DataFrame:
    """Returns the skewed rows with a prediction per way of `busy`, by coefficients of other models' balanced rows.

    Args:
        frame: rows of one device and number format.
        dtype: number format.
        chip: device.
        shipped: coefficients that forecasts use, which were fitted on skewed rows together with a spread and a skew;
            columns "shipped ..." are by them, "shipped fit" with that spread and skew.
        folds: groups of models; those of a group are predicted from the others.
        most: skewed rows to predict, evenly taken.
    """
    shapes = frame[SHAPE].apply(tuple, axis=1)
    order = {shape: i for i, shape in enumerate(sorted(set(shapes)))}
    fold = shapes.map(order) % folds
    parts: list[Any] = []
    for i in range(folds):
        skewed = frame[(fold == i) & (frame["distribution"] != "balanced")]
        skewed = skewed.iloc[:: max(1, len(skewed) * folds // most)]
        c = fit_balanced(frame[fold != i], dtype, chip)
        part = skewed.copy()
        for how in ("even", "model", "dealt"):
            part[how] = predict(skewed, dtype, chip, c, busy(skewed, how))
        for how in ("even", "model"):
            part[f"shipped {how}"] = predict(skewed, dtype, chip, shipped, busy(skewed, how))
        part["shipped fit"] = predict_moe(skewed, dtype, chip, shipped)
        parts.append(part)
    return pd.concat(parts)
