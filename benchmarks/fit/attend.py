"""Fits decode and prefill attention, and the attention part of multi-head latent attention."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.fit.solve import fit
from benchmarks.fit.tables import DEVICES, columns, table
from fleetcast.cost.attention import (
    Decode,
    Prefill,
    decode_floor,
    decode_slope,
    prefill_pair,
    prefill_time,
    prefill_token,
    pairs,
)
from fleetcast.cost.roofline import Chip, format_of

DECODE_RANGE = {
    "launch": (1e-6, 1e-5, 2e-4), "head": (0.0, 2e-8, 1e-6), "base": (1e-6, 1.2e-5, 2e-4),
    "memory": (0.05, 0.85, 1.0), "compute": (0.02, 0.3, 1.0),
}  # fmt: skip
PREFILL_RANGE = {
    "launch": (1e-6, 1e-5, 3e-4), "compute": (0.02, 0.5, 1.0), "narrow": (0.02, 0.4, 1.0),
    "token": (0.0, 2.0, 20.0), "window": (0.0, 100.0, 2000.0),
}  # fmt: skip


def decode_rows(data: Path, device: str, dtype: str) -> pd.DataFrame | None:
    """Returns decode rows read from memory (over 1.5 caches) or near-empty, with their total context ``X``."""
    frame = table(data, device, "attention", "generation_attention")
    if frame is None:
        return None
    usual = frame["head_dim"].isin([64, 128]) & (frame["num_heads"] <= 16 * frame["num_key_value_heads"])
    frame = frame[(frame["dtype"] == dtype) & usual & (frame["window_size"].isin([0, 8192]))].copy()
    context = frame["step"] + 1
    seen = np.where(frame["window_size"] > 0, np.minimum(context, frame["window_size"]), context)
    frame["X"] = frame["batch_size"] * seen
    size = 2 * frame["num_key_value_heads"] * frame["head_dim"] * format_of(dtype).weight * frame["X"]
    frame["cold"] = size > 1.5 * DEVICES[device].cache
    frame = frame[frame["cold"] | (size < 2e6)]
    return frame if len(frame) >= 200 else None


def predict_decode(frame: pd.DataFrame, dtype: str, chip: Chip, c: Decode) -> np.ndarray:
    """Returns predicted seconds of every row."""
    names = ("batch_size", "X", "num_heads", "num_key_value_heads", "head_dim")
    n, x, q, kv, width = columns(frame, *names)
    affine = c.base + decode_slope(q, kv, width, dtype, chip, c) * x
    return np.asarray(np.maximum(decode_floor(n, kv, width, c), affine))


def fit_decode(frame: pd.DataFrame, dtype: str, chip: Chip) -> Decode:
    """Returns decode coefficients; rows read from memory count double."""
    part = frame.iloc[:: max(1, len(frame) // 6000)]
    time = part["time"].to_numpy(np.float64)
    weight = np.where(part["cold"], 2.0, 1.0)
    found = fit(
        lambda x: predict_decode(part, dtype, chip, Decode(**x)), DECODE_RANGE, time, weight
    )
    return Decode(**found)


def null_decode(frame: pd.DataFrame, chip: Chip) -> np.ndarray:
    """Returns what simulators without context use: time by batch size alone (its median)."""
    keys = ["batch_size", "num_key_value_heads", "num_heads", "head_dim"]
    return np.asarray(frame.groupby(keys)["time"].transform("median").to_numpy(np.float64))


def prefill_rows(data: Path, device: str, dtype: str) -> pd.DataFrame | None:
    """Returns prefill rows of 1 to 8 prompts of at least 16 tokens, head width 64 or 128."""
    frame = table(data, device, "attention", "context_attention")
    if frame is None:
        return None
    usual = frame["head_dim"].isin([64, 128]) & (frame["batch_size"] <= 8) & (frame["isl"] >= 16)
    grouped = frame["num_heads"] <= 16 * frame["num_key_value_heads"]
    frame = frame[(frame["dtype"] == dtype) & usual & grouped]
    return frame if len(frame) >= 200 else None


def predict_prefill(frame: pd.DataFrame, chip: Chip, c: Prefill) -> np.ndarray:
    """Returns predicted seconds of every row: one launch, work per prompt."""
    names = ("batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim", "window_size")
    n, length, q, kv, width, window = columns(frame, *names)
    one = prefill_time(length, 0.0, q, kv, width, chip, replace(c, launch=0.0), window)
    return np.asarray(c.launch + n * one)


def fit_prefill(frame: pd.DataFrame, chip: Chip) -> Prefill:
    """Returns prefill coefficients, windowed and narrow heads included."""
    part = frame.iloc[:: max(1, len(frame) // 6000)]
    time = part["time"].to_numpy(np.float64)
    found = fit(lambda x: predict_prefill(part, chip, Prefill(**x)), PREFILL_RANGE, time)
    return Prefill(**found)


def null_prefill(frame: pd.DataFrame, chip: Chip) -> np.ndarray:
    """Returns FLOPs over one fitted rate."""
    n, length, q, width, window = columns(
        frame, "batch_size", "isl", "num_heads", "head_dim", "window_size"
    )
    ideal = 4.0 * q * width * n * pairs(length, 0.0, window)
    time = frame["time"].to_numpy(np.float64)
    return np.asarray(ideal * np.exp(np.median(np.log(time / ideal))))


def latent_rows(data: Path, device: str, dtype: str, phase: str) -> pd.DataFrame | None:
    """Returns rows of DeepSeek's latent-attention module (projections included), bf16 projections."""
    frame = table(data, device, "mla", f"mla_{phase}_module")
    if frame is None:
        return None
    frame = frame[(frame["dtype"] == dtype) & (frame["gemm_type"] == "bfloat16")]
    return frame if len(frame) >= 200 else None


__all__ = [
    "decode_rows", "fit_decode", "fit_prefill", "latent_rows", "null_decode", "null_prefill",
    "predict_decode", "predict_prefill", "prefill_pair", "prefill_rows", "prefill_token",
]  # fmt: skip
