"""Measured kernel tables in one vocabulary: seconds, elements, our device ids and dtypes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fleetcast.cost.roofline import Chip
from fleetcast.scenario.fleet.catalog import device

AIC = "serving/aiconfigurator/perf"


def root() -> Path | None:
    """Returns the folder of measured data (``FLEETCAST_DATA``), or None where it is absent."""
    path = Path(os.environ.get("FLEETCAST_DATA", "../shared/data"))
    return path if path.is_dir() else None


@dataclass(frozen=True)
class Measured:
    """One measured device: catalogue id, folder of its tables, their vLLM versions."""

    device: str
    folder: str
    versions: dict[str, str]

    @property
    def chip(self) -> Chip:
        """The device's roofs, from the catalogue."""
        found = device(self.device)
        return Chip(found.id, found.architecture, found.bandwidth, found.units, dict(found.peak))

    @property
    def cache(self) -> float:
        """Bytes of second-level cache."""
        return float(device(self.device).l2)


_V14 = dict.fromkeys(("gemm", "attention", "moe"), "0.14.0")
_V20 = dict.fromkeys(("gemm", "attention", "moe"), "0.20.0")
_V22 = dict.fromkeys(("gemm", "attention", "moe", "mla"), "0.22.0")
_V24 = dict.fromkeys(("gemm", "attention", "moe"), "0.24.0")
DEVICES: dict[str, Measured] = {
    m.device: m
    for m in (
        Measured("a100-80g-sxm", "a100_sxm", _V14),
        # Version 0.24's per-tensor fp8 experts run a CUTLASS path on Hopper that is slower than 16
        # bit (2.5 ms where Triton takes 0.37): servers avoid it, so H200 has version 0.22's and
        # H100 takes Hopper's.
        Measured("h100-sxm", "h100_sxm", {**_V24, "moe fp8": ""}),
        Measured("h200-sxm", "h200_sxm", {**_V24, "mla": "0.22.0", "moe fp8": "0.22.0"}),
        Measured("l40s", "l40s", _V24),
        Measured("b200-sxm", "b200_sxm", _V22),
        Measured("gb200", "gb200", _V22),
        Measured("rtx-pro-6000-server", "rtx_pro_6000_server", _V24),
        Measured("b60", "b60", _V20),
    )
}
DTYPE = {
    "bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8-block", "nvfp4": "nvfp4",
    "int4_wo": "int4", "w4a16_mxfp4": "mxfp4",
}  # fmt: skip


def table(data: Path, name: str, family: str, file: str, dtype: str = "") -> pd.DataFrame | None:
    """Returns one table with ``time`` in seconds and our dtypes, or None where there is none."""
    measured = DEVICES[name]
    version = measured.versions.get(f"{family} {dtype}", measured.versions.get(family))
    path = data / AIC / measured.folder / family / "vllm" / str(version) / f"{file}_perf.parquet"
    if not version or not path.is_file():
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
