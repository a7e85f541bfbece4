"""Coefficients beside the big families: latent attention, streams, small devices, power."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.fit import attend, layers, power, products
from benchmarks.fit.solve import error, fit, mean, rounded
from benchmarks.fit.tables import DEVICES
from fleetcast.cost.gemm import Gemm
from fleetcast.cost.roofline import Chip, Stream, stream_time

Tables = dict[str, dict[str, dict[str, Any]]]  # family -> device or group -> dtype -> coefficients
Report = list[dict[str, Any]]
STREAM_RANGE = {"launch": (1e-7, 2e-6, 1e-4), "memory": (0.05, 0.7, 1.0)}


def latent(data: Path, gemms: dict[str, Gemm], launches: dict[str, float]) -> tuple[Tables, Report]:
    """Returns latent attention's coefficients of every device with such tables.

    Args:
        data: the measured data.
        gemms: 16-bit product coefficients by device.
        launches: launch of ordinary prefill attention by device (the module's own is its host's).
    """
    tables: Tables = {"latent_decode": {}, "latent_prefill": {}}
    report: Report = []
    h100 = DEVICES["h100-sxm"].chip
    alone = attend.flash_latent(data)
    kernel = attend.fit_flash(alone, h100)
    time = alone["time"].to_numpy(np.float64)
    tables["latent_decode"]["h100-sxm"] = {"bf16": rounded(asdict(kernel))}
    null = np.full(len(time), np.median(time))
    report.append(_record("latent_decode", "bf16", "h100-sxm", kernel,
                          attend.predict_flash(alone, h100, kernel), time, null))  # fmt: skip
    for device, measured in DEVICES.items():
        for dtype in ("bf16", "fp8"):
            grown = attend.latent_growth(data, device, dtype)
            if grown is not None:
                c = attend.fit_latent(grown, dtype, measured.chip, kernel)
                time = grown["time"].to_numpy(np.float64)
                null = grown.groupby("batch_size")["time"].transform("median").to_numpy()
                tables["latent_decode"].setdefault(device, {})[dtype] = rounded(asdict(c))
                seen = attend.predict_latent(grown, dtype, measured.chip, c)
                report.append(_record("latent_decode", dtype, device, c, seen, time, null))
            whole = attend.latent_rows(data, device, dtype, "context")
            if whole is None:
                continue
            whole = whole[whole["isl"] * whole["batch_size"] >= 256]
            rest = attend.latent_projections(whole, measured.chip, gemms[device])
            p = attend.fit_latent_prefill(whole, measured.chip, rest)
            time = whole["time"].to_numpy(np.float64)
            seen = attend.predict_latent_prefill(whole, measured.chip, p, rest)
            tables["latent_prefill"].setdefault(device, {})[dtype] = rounded(
                asdict(replace(p, launch=launches[device]))
            )
            report.append(_record("latent_prefill", dtype, device, p, seen, time, rest))
    return tables, report


def streams(data: Path) -> tuple[Tables, Report]:
    """Returns element-wise coefficients of every device with layer profiles."""
    tables: Tables = {"stream": {}}
    report: Report = []
    for device, measured in (DEVICES | layers.SMALL).items():
        rows = layers.streams_of(data, device)
        if rows is None:
            continue
        size, time = rows["size"].to_numpy(np.float64), rows["time"].to_numpy(np.float64)
        chip = measured.chip
        # Where a kernel beats the memory its input was still in the cache: bytes there say nothing
        # of memory.
        cold = size / time < chip.bandwidth
        found = fit(_stream_trial(size[cold], chip), STREAM_RANGE, time[cold])
        c = Stream(**found)
        tables["stream"][device] = {"any": rounded(asdict(c))}
        null = size / chip.bandwidth
        report.append(_record("stream", "any", device, c, stream_time(size, chip, c), time, null))
    return tables, report


def _stream_trial(size: np.ndarray, chip: Chip) -> products.Trial:
    return lambda x: stream_time(size, chip, Stream(**x))


def small_products(data: Path, big: dict[str, Gemm]) -> tuple[Tables, Report]:
    """Returns products of devices that only layer profiles cover, and errors across laboratories.

    Args:
        data: the measured data.
        big: coefficients fitted on the kernel tables, tried here on layer profiles from other
            laboratories.
    """
    tables: Tables = {"gemm": {}}
    report: Report = []
    for device, measured in (layers.SMALL | DEVICES).items():
        rows = layers.products_of(data, device)
        if rows is None:
            continue
        chip = measured.chip
        if device in big:
            for lab, part in rows.groupby(rows["source"].str.split().str[0]):
                time = part["time"].to_numpy(np.float64)
                seen = products.predict_gemm(part, "bf16", chip, big[device])
                report.append({"family": "gemm", "dtype": "bf16", "device": device,
                               "other_laboratory": error(seen, time) | {"rows": str(lab)},
                               "null": error(products.null_gemm(part, "bf16", chip), time)})  # fmt: skip
            continue
        c = products.fit_gemm(rows, "bf16", chip)
        time = rows["time"].to_numpy(np.float64)
        tables["gemm"][device] = {"bf16": rounded(asdict(c))}
        seen = products.predict_gemm(rows, "bf16", chip, c)
        record = _record("gemm", "bf16", device, c, seen, time, products.null_gemm(rows, "bf16", chip))
        kin = [asdict(g) for d, g in big.items() if DEVICES[d].chip.architecture == chip.architecture]
        other = Gemm(**mean(kin or [asdict(g) for g in big.values()]))
        record["device_out"] = error(products.predict_gemm(rows, "bf16", chip, other), time)
        report.append(record)
    return tables, report


def draw(data: Path) -> tuple[Tables, Report]:
    """Returns power shares by device and group."""
    groups, report = power.fit_all(data)
    return {"draw": groups}, report


def _record(
    family: str,
    dtype: str,
    device: str,
    c: Any,
    predicted: np.ndarray,
    time: np.ndarray,
    null: np.ndarray,
) -> dict[str, Any]:
    scaled = null * np.exp(np.median(np.log(time / null)))
    return {"family": family, "dtype": dtype, "device": device, "coefficients": rounded(asdict(c)),
            "fit": error(predicted, time), "null": error(scaled, time)}  # fmt: skip


def merged(*parts: Tables) -> Tables:
    """Returns all tables in one."""
    out: Tables = {}
    for part in parts:
        for family, rows in part.items():
            for device, by_dtype in rows.items():
                out.setdefault(family, {}).setdefault(device, {}).update(by_dtype)
    return out


def frame_of(records: Report) -> pd.DataFrame:
    """Returns the records as a table of medians, for people."""
    keys = ("fit", "band_out", "device_out", "other_laboratory", "family_out", "null")
    rows = []
    for r in records:
        row = {k: r.get(k, "") for k in ("family", "dtype", "device", "op", "kernels")}
        row |= {k: f"{r[k]['median']:.1%} / {r[k]['p90']:.1%}" if k in r else "" for k in keys}
        row["n"] = next((r[k]["n"] for k in keys if k in r), 0)
        rows.append(row)
    return pd.DataFrame(rows)
