"""Fits dense matrix products and expert products."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.fit.solve import error, fit
from benchmarks.fit.tables import DEVICES, columns, table
from fleetcast.cost.gemm import Gemm, gemm_time
from fleetcast.cost.moe import Experts, experts_time
from fleetcast.cost.roofline import Chip, format_of, peak

Trial = Callable[[dict[str, float]], np.ndarray]
GEMM_RANGE = {
    "launch": (2e-7, 4e-6, 1e-4), "depth": (0.0, 3e-7, 5e-6), "compute": (0.02, 0.7, 1.0),
    "memory": (0.05, 0.85, 1.0), "pad": (0.0, 0.5, 1.0), "wave": (0.0, 0.2, 1.0),
    "quant": (0.0, 4.0, 40.0), "quant_row": (0.0, 1000.0, 8000.0),
}  # fmt: skip
# Widths that language models have; smaller ones are launch times, and odd ones are not measured.
SMALLEST = 512


def gemm_rows(data: Path, device: str, dtype: str) -> pd.DataFrame | None:
    """Returns usable rows: model-sized, weights not in the cache, device-bound."""
    frame = table(data, device, "gemm", "gemm")
    if frame is None:
        return None
    frame = frame[(frame["dtype"] == dtype) & (frame["n"] >= SMALLEST) & (frame["k"] >= SMALLEST)]
    if len(frame) < 200:
        return None
    measured, form = DEVICES[device], format_of(dtype)
    size = frame["n"] * frame["k"] * form.weight
    # Faster than the memory could ever deliver them: the repeated weight stayed in the second-level
    # cache.
    warm = (size < 2 * measured.cache) & (size / frame["time"] > 0.85 * measured.chip.bandwidth)
    frame = frame[~warm]
    if dtype == "fp8-block":
        # Collected without CUDA graphs: small products show the host's launch time (60 us on H100,
        # 160-500 us on Blackwell), not the device's. Only rows well above that floor say anything.
        small = frame[(frame["n"] <= 1024) & (frame["k"] <= 1024) & (frame["m"] <= 512)]
        if len(small):
            frame = frame[frame["time"] > 1.3 * np.percentile(small["time"], 98)]
    return frame if len(frame) >= 200 else None


def predict_gemm(frame: pd.DataFrame, dtype: str, chip: Chip, c: Gemm) -> np.ndarray:
    """Returns predicted seconds of every row."""
    m, n, k = columns(frame, "m", "n", "k")
    return gemm_time(m, n, k, dtype, chip, c)


def null_gemm(frame: pd.DataFrame, dtype: str, chip: Chip) -> np.ndarray:
    """Returns the plain roofline with one fitted efficiency for both roofs, the model to beat."""
    m, n, k = columns(frame, "m", "n", "k")
    form = format_of(dtype)
    size = n * k * form.weight + m * k * form.activation + 2 * m * n
    ideal = np.maximum(2 * m * n * k / peak(chip, dtype), size / chip.bandwidth)
    time = frame["time"].to_numpy(np.float64)
    return np.asarray(ideal * np.exp(np.median(np.log(time / ideal))))


def fit_gemm(frame: pd.DataFrame, dtype: str, chip: Chip, near: Gemm | None = None) -> Gemm:
    """Returns the best coefficients over sharpness and tile.

    Args:
        frame: measured rows.
        dtype: number format.
        chip: the device.
        near: fixes launch, depth and memory (for tables that cannot show them).
    """
    sample = frame.iloc[:: max(1, len(frame) // 6000)]
    time = sample["time"].to_numpy(np.float64)
    free = dict(GEMM_RANGE)
    fixed: dict[str, Any] = {}
    tiles: tuple[int, ...] = (128, 256)
    if not format_of(dtype).quantised:
        fixed = {"pad": 0.0, "wave": 0.0, "quant": 0.0, "quant_row": 0.0}
        tiles = (128,)
    if near is not None:
        fixed |= {"launch": near.launch, "depth": near.depth, "memory": near.memory}
    for name in fixed:
        free.pop(name)
    best: tuple[float, Gemm] | None = None
    for sharp, tile in itertools.product((1, 2, 4), tiles):
        given = {"sharp": sharp, "tile": tile, **fixed}
        c = Gemm(**(given | fit(_gemm_trial(sample, dtype, chip, given), free, time)))
        score = error(predict_gemm(sample, dtype, chip, c), time)["median"]
        if best is None or score < best[0]:
            best = (score, c)
    assert best is not None
    return best[1]


def _gemm_trial(frame: pd.DataFrame, dtype: str, chip: Chip, given: dict[str, Any]) -> Trial:
    return lambda x: predict_gemm(frame, dtype, chip, Gemm(**(given | x)))


def _moe_trial(frame: pd.DataFrame, dtype: str, chip: Chip, sharp: int) -> Trial:
    return lambda x: predict_moe(frame, dtype, chip, Experts(sharp=sharp, **x))


def moe_rows(data: Path, device: str, dtype: str) -> pd.DataFrame | None:
    """Returns expert rows of gated models with shards of at least 128 columns."""
    frame = table(data, device, "moe", "moe", dtype)
    if frame is None:
        return None
    frame = frame[frame["dtype"] == dtype]
    shard = frame["inter_size"] / frame["moe_tp_size"]
    gated = (frame["inter_size"] != 1856) & (frame["topk"] < 16)
    frame = frame[gated & (shard >= 128) & (shard % 64 == 0)]
    return frame if len(frame) >= 100 else None


def predict_moe(frame: pd.DataFrame, dtype: str, chip: Chip, c: Experts) -> np.ndarray:
    """Returns predicted seconds; rows with a balanced router get spread 1 and no skew."""
    names = (
        "num_tokens",
        "hidden_size",
        "inter_size",
        "num_experts",
        "topk",
        "moe_ep_size",
        "moe_tp_size",
    )
    t, h, w, e, k, ep, tp = columns(frame, *names)
    even = (frame["distribution"] == "balanced").to_numpy()
    out = np.empty(len(frame))
    # A "balanced" table deals experts round-robin, so T tokens touch min(E, T top_k) of them.
    for rows, coefficients in ((even, replace(c, spread=1.0, skew=0.0)), (~even, c)):
        if rows.any():
            out[rows] = experts_time(
                t[rows], h[rows], w[rows], e[rows], k[rows], dtype, chip, coefficients,
                expert_parallel=ep[rows], tensor_parallel=tp[rows],
            )  # fmt: skip
    return out


MOE_RANGE = {
    "launch": (1e-6, 3e-5, 1e-3), "compute": (0.02, 0.5, 1.0), "memory": (0.05, 0.8, 1.0),
    "block": (0.0, 16.0, 256.0), "shuffle": (0.0, 6.0, 60.0), "spread": (0.3, 0.8, 1.0),
    "skew": (0.0, 0.3, 3.0),
}  # fmt: skip


def fit_moe(frame: pd.DataFrame, dtype: str, chip: Chip) -> Experts:
    """Returns expert coefficients fitted on the rows with a skewed router (what models do)."""
    keep = (frame["distribution"] != "balanced") & (frame["moe_ep_size"] <= 64)
    frame = frame[keep]
    part = frame.iloc[:: max(1, len(frame) // 6000)]
    time = part["time"].to_numpy(np.float64)
    # Most servers cut experts by tensor parallelism; the tables hold three times more
    # expert-parallel rows.
    weight = np.where(part["moe_ep_size"] == 1, 2.0, 1.0)
    best: tuple[float, Experts] | None = None
    for sharp in (1, 2, 4):
        found = fit(_moe_trial(part, dtype, chip, sharp), MOE_RANGE, time, weight)
        c = Experts(sharp=sharp, **found)
        score = error(predict_moe(part, dtype, chip, c), time)["median"]
        if best is None or score < best[0]:
            best = (score, c)
    assert best is not None
    return best[1]


def null_moe(frame: pd.DataFrame, dtype: str, chip: Chip) -> np.ndarray:
    """Returns a roofline that reads all local experts, with one fitted efficiency."""
    plain = Experts(launch=0.0, compute=1.0, memory=1.0, sharp=8)
    names = ("num_experts", "moe_ep_size", "hidden_size", "inter_size", "moe_tp_size")
    e, ep, h, w, tp = columns(frame, *names)
    ideal = np.maximum(
        predict_moe(frame, dtype, chip, plain),
        e / ep * 3 * h * w / tp * format_of(dtype).weight / chip.bandwidth,
    )
    time = frame["time"].to_numpy(np.float64)
    return np.asarray(ideal * np.exp(np.median(np.log(time / ideal))))
