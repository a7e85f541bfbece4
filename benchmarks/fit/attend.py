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
    latent_slope,
    pairs,
    prefill_time,
)
from fleetcast.cost.gemm import Gemm, gemm_time
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
    """Returns decode rows read from memory or near-empty, with their total context ``X``."""
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
    found = fit(lambda x: predict_decode(part, dtype, chip, Decode(**x)), DECODE_RANGE, time, weight)
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
    n, length, q, width, window = columns(frame, "batch_size", "isl", "num_heads", "head_dim", "window_size")
    ideal = 4.0 * q * width * n * pairs(length, 0.0, window)
    time = frame["time"].to_numpy(np.float64)
    return np.asarray(ideal * np.exp(np.median(np.log(time / ideal))))


LATENT = {"rank": 512.0, "rope": 64.0, "hidden": 7168.0, "query": 1536.0, "nope": 128.0}


def latent_rows(data: Path, device: str, dtype: str, phase: str) -> pd.DataFrame | None:
    """Returns rows of DeepSeek's latent-attention module (projections included, in bf16)."""
    frame = table(data, device, "mla", f"mla_{phase}_module")
    if frame is None:
        return None
    frame = frame[(frame["dtype"] == dtype) & (frame["gemm_type"] == "bfloat16")].copy()
    return frame if len(frame) >= 200 else None


def latent_growth(data: Path, device: str, dtype: str) -> pd.DataFrame | None:
    """Returns how decode time grows with context: ``X`` more tokens cost ``time`` more.

    The module's time with a near-empty cache is its projections and launches; only growth over
    caches larger than the second-level cache, and at least a fifth of the whole, is kept.
    """
    frame = latent_rows(data, device, dtype, "generation")
    if frame is None:
        return None
    keys = ["num_heads", "batch_size"]
    frame = frame.groupby([*keys, "step"], as_index=False)["time"].median()
    first = frame.loc[frame.groupby(keys)["step"].idxmin(), [*keys, "step", "time"]]
    frame = frame.merge(first, on=keys, suffixes=("", "_0"))
    frame["X"] = frame["batch_size"] * (frame["step"] - frame["step_0"])
    grown = frame["time"] - frame["time_0"]
    size = frame["X"] * (LATENT["rank"] + LATENT["rope"]) * format_of(dtype).weight
    keep = (size > 1.5 * DEVICES[device].cache) & (grown > 0.2 * frame["time"])
    frame["time"] = grown
    return frame[keep] if keep.sum() >= 50 else None


def predict_latent(frame: pd.DataFrame, dtype: str, chip: Chip, c: Decode) -> np.ndarray:
    """Returns predicted growth of every row."""
    heads, x = columns(frame, "num_heads", "X")
    slope = latent_slope(heads, LATENT["rank"], LATENT["rope"], dtype, chip, c)
    return np.asarray(slope * x)


def fit_latent(frame: pd.DataFrame, dtype: str, chip: Chip, kernel: Decode) -> Decode:
    """Returns latent decode coefficients: roofs from the growth, fixed times from ``kernel``."""
    roofs = {k: DECODE_RANGE[k] for k in ("memory", "compute")}
    time = frame["time"].to_numpy(np.float64)
    found = fit(lambda x: predict_latent(frame, dtype, chip, replace(kernel, **x)), roofs, time)
    return replace(kernel, **found)


def flash_latent(data: Path) -> pd.DataFrame:
    """Returns FlashMLA's decode kernel alone on H100 (APEX fork), total context as ``X``."""
    frame = pd.read_csv(data / "serving/apex/fork_glassml_H100_flash_mla.csv.gz")
    frame = frame.rename(columns={"num_heads_q": "num_heads"})
    frame["X"] = frame["batch_size"] * frame["cache_seqlen"]
    frame["time"] = frame["time(us)"] * 1e-6
    return frame


def predict_flash(frame: pd.DataFrame, chip: Chip, c: Decode) -> np.ndarray:
    """Returns predicted seconds of every row of the kernel alone."""
    return np.asarray(np.maximum(c.launch, c.base + predict_latent(frame, "bf16", chip, c)))


def fit_flash(frame: pd.DataFrame, chip: Chip) -> Decode:
    """Returns latent decode coefficients of the kernel alone."""
    ranges = {k: v for k, v in DECODE_RANGE.items() if k != "head"}
    time = frame["time"].to_numpy(np.float64)
    found = fit(lambda x: predict_flash(frame, chip, Decode(head=0.0, **x)), ranges, time)
    return Decode(head=0.0, **found)


LATENT_PREFILL = {
    "launch": (1e-6, 3e-5, 1e-3), "compute": (0.02, 0.6, 0.9), "token": (0.0, 5.0, 100.0),
}  # fmt: skip
LATENT_WIDTH = 160.0  # mean of the 192-wide keys and the 128-wide values


def latent_projections(frame: pd.DataFrame, chip: Chip, c: Gemm) -> np.ndarray:
    """Returns seconds of the module's five matrix products by their own coefficients."""
    n, length, heads = columns(frame, "batch_size", "isl", "num_heads")
    tokens, wide = n * length, LATENT["rank"] + LATENT["rope"]
    shapes = (
        (LATENT["query"] + wide, LATENT["hidden"]),
        (heads * 192.0, LATENT["query"]),
        (heads * 256.0, LATENT["rank"]),
        (LATENT["hidden"], heads * LATENT["nope"]),
    )
    return np.asarray(sum(gemm_time(tokens, out, into, "bf16", chip, c) for out, into in shapes))


def predict_latent_prefill(frame: pd.DataFrame, chip: Chip, c: Prefill, rest: np.ndarray) -> np.ndarray:
    """Returns predicted seconds of the module: projections ``rest`` and attention."""
    n, length, heads = columns(frame, "batch_size", "isl", "num_heads")
    one = prefill_time(length, 0.0, heads, heads, LATENT_WIDTH, chip, replace(c, launch=0.0))
    return np.asarray(c.launch + rest + n * one)


def fit_latent_prefill(frame: pd.DataFrame, chip: Chip, rest: np.ndarray) -> Prefill:
    """Returns latent prefill coefficients, prompts of 256 tokens and more."""
    time = frame["time"].to_numpy(np.float64)

    def model(x: dict[str, float]) -> np.ndarray:
        return predict_latent_prefill(frame, chip, Prefill(narrow=x["compute"], **x), rest)

    x = fit(model, LATENT_PREFILL, time)
    return Prefill(narrow=x["compute"], **x)
