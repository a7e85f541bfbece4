"""Measured kernel tables as arrays with one vocabulary: seconds, elements, our device ids and dtype names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fleetcast.cost.roofline import Chip

AIC = "serving/aiconfigurator/perf"


def root() -> Path | None:
    """Returns the folder of measured data (``FLEETCAST_DATA``), or None where it is absent."""
    path = Path(os.environ.get("FLEETCAST_DATA", "../shared/data"))
    return path if path.is_dir() else None


@dataclass(frozen=True)
class Measured:
    """One measured device: its data sheet, second-level cache and where its tables lie."""

    chip: Chip
    cache: float
    folder: str
    versions: dict[str, str]


def _chip(name: str, arch: str, bandwidth: float, units: int, **peaks: float) -> Chip:
    return Chip(name, arch, bandwidth, units, {k: v * 1e12 for k, v in peaks.items()})


V24 = dict.fromkeys(("gemm", "attention", "moe"), "0.24.0")
V22 = dict.fromkeys(("gemm", "attention", "moe", "mla"), "0.22.0")
# Data sheets: dense peak rates in TFLOP/s, memory bandwidth, multiprocessors, second-level cache.
DEVICES: dict[str, Measured] = {
    m.chip.id: m
    for m in (
        Measured(
            _chip("a100-80g-sxm", "ampere", 2.039e12, 108, bf16=312, fp16=312, int8=624, fp32=19.5),
            40e6, "a100_sxm", dict.fromkeys(("gemm", "attention", "moe"), "0.14.0"),
        ),
        Measured(
            _chip("h100-sxm", "hopper", 3.35e12, 132, bf16=989, fp16=989, fp8=1979, int8=1979),
            50e6, "h100_sxm", V24,
        ),
        Measured(
            _chip("h200", "hopper", 4.8e12, 132, bf16=989, fp16=989, fp8=1979, int8=1979),
            50e6, "h200_sxm", {**V24, "mla": "0.22.0"},
        ),
        Measured(_chip("l40s", "ada", 0.864e12, 142, bf16=362, fp16=362, fp8=733, int8=733), 96e6, "l40s", V24),
        Measured(
            _chip("b200", "blackwell", 8e12, 148, bf16=2250, fp16=2250, fp8=4500, int8=4500, nvfp4=9000),
            126e6, "b200_sxm", V22,
        ),
        Measured(
            _chip("gb200", "blackwell", 8e12, 152, bf16=2500, fp16=2500, fp8=5000, int8=5000, nvfp4=10000),
            126e6, "gb200", V22,
        ),
        Measured(
            _chip("rtx-pro-6000", "blackwell-rtx", 1.792e12, 188, bf16=503.8, fp16=503.8, fp8=1007.6, nvfp4=2015.2),
            128e6, "rtx_pro_6000_server", V24,
        ),
        Measured(
            _chip("arc-b60", "xe2", 0.456e12, 20, bf16=98.3, fp16=98.3, int8=197),
            18e6, "b60", dict.fromkeys(("gemm", "attention", "moe"), "0.20.0"),
        ),
    )
}  # fmt: skip
DTYPE = {
    "bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8-block", "nvfp4": "nvfp4",
    "int4_wo": "int4", "w4a16_mxfp4": "mxfp4",
}  # fmt: skip


def table(data: Path, device: str, family: str, file: str) -> pd.DataFrame | None:
    """Returns one parquet table with ``time`` in seconds and our dtype names, or None where there is none."""
    measured = DEVICES[device]
    version = measured.versions.get(family)
    path = data / AIC / measured.folder / family / "vllm" / str(version) / f"{file}_perf.parquet"
    if version is None or not path.is_file():
        return None
    frame = pd.read_parquet(path)
    frame["time"] = frame["latency"] * 1e-3
    for column in ("gemm_dtype", "moe_dtype", "kv_cache_dtype"):
        if column in frame:
            frame["dtype"] = frame[column].map(DTYPE)
    if "window_size" not in frame:
        frame["window_size"] = 0
    return frame.dropna(subset=["dtype"])


def columns(frame: pd.DataFrame, *names: str) -> tuple[np.ndarray, ...]:
    """Returns columns as float arrays."""
    return tuple(frame[name].to_numpy(np.float64) for name in names)
