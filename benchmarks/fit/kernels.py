"""Refits the kernel coefficients from measured tables and says how far off they are, beside their nulls.

    python -m benchmarks.fit.kernels            # writes src/fleetcast/cost/coefficients/*.toml, prints the errors
    python -m benchmarks.fit.kernels --dry      # errors only

Held out: a whole device (predicted with the mean of its architecture's others, or of all others where it is alone)
and a band of sizes (fitted without it). Needs the ``bench`` extra and ``FLEETCAST_DATA``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tomli_w

from benchmarks.fit import attend, products
from benchmarks.fit.solve import error, mean, rounded
from benchmarks.fit.tables import AIC, DEVICES, Measured, root
from fleetcast.cost.attention import Decode, Prefill
from fleetcast.cost.gemm import Gemm
from fleetcast.cost.moe import Experts
from fleetcast.cost.roofline import Chip

OUT = Path(__file__).parents[2] / "src" / "fleetcast" / "cost" / "coefficients"
Rows = Callable[[Path, str, str], "pd.DataFrame | None"]


@dataclass(frozen=True)
class Family:
    """A kernel family: where its rows come from, how it is fitted, predicted and beaten, and its size axis."""

    name: str
    kind: type
    dtypes: tuple[str, ...]
    rows: Rows
    fit: Callable[..., Any]
    predict: Callable[[pd.DataFrame, str, Chip, Any], np.ndarray]
    null: Callable[[pd.DataFrame, str, Chip], np.ndarray]
    band: Callable[[pd.DataFrame], pd.Series]


FAMILIES = (
    Family(
        "gemm", Gemm, ("bf16", "fp8", "fp8-block", "nvfp4"),
        products.gemm_rows, products.fit_gemm, products.predict_gemm, products.null_gemm,
        lambda f: (f["m"] > 128) & (f["m"] <= 1024),
    ),
    Family(
        "moe", Experts, ("bf16", "fp8", "fp8-block", "int4", "mxfp4", "nvfp4"),
        products.moe_rows, products.fit_moe, products.predict_moe, products.null_moe,
        lambda f: (f["num_tokens"] > 64) & (f["num_tokens"] <= 512),
    ),
    Family(
        "decode", Decode, ("bf16", "fp8"),
        attend.decode_rows, attend.fit_decode, attend.predict_decode,
        lambda f, _dtype, chip: attend.null_decode(f, chip),
        lambda f: (f["batch_size"] > 16) & (f["batch_size"] <= 128),
    ),
    Family(
        "prefill", Prefill, ("bf16", "fp8"),
        attend.prefill_rows, lambda f, _dtype, chip: attend.fit_prefill(f, chip),
        lambda f, _dtype, chip, c: attend.predict_prefill(f, chip, c),
        lambda f, _dtype, chip: attend.null_prefill(f, chip),
        lambda f: (f["isl"] >= 512) & (f["isl"] <= 2048),
    ),
)  # fmt: skip

Fitted = dict[str, dict[str, dict[str, Any]]]  # family -> dtype -> device -> coefficients
Report = list[dict[str, Any]]


def fit_all(data: Path) -> tuple[Fitted, Report]:
    """Returns every device's coefficients and one JSON-able record of errors per device, family and dtype."""
    fitted: Fitted = {}
    report: Report = []
    frames: dict[tuple[str, str, str], pd.DataFrame] = {}
    for family in FAMILIES:
        for dtype in family.dtypes:
            for device, measured in DEVICES.items():
                frame = family.rows(data, device, dtype)
                if frame is None:
                    continue
                frames[family.name, dtype, device] = frame
                c = _fit(family, frame, dtype, device, measured, fitted)
                fitted.setdefault(family.name, {}).setdefault(dtype, {})[device] = c
                report.append(_record(family, frame, dtype, device, measured, c, fitted))
    for record in report:
        _leave_device_out(record, fitted, frames)
    return fitted, report


def _fit(
    family: Family, frame: pd.DataFrame, dtype: str, device: str, measured: Measured, fitted: Fitted
) -> Any:
    if family.name == "gemm" and dtype == "fp8-block":
        near = fitted["gemm"].get("fp8", {}).get(device) or fitted["gemm"]["bf16"][device]
        return family.fit(frame, dtype, measured.chip, near)
    return family.fit(frame, dtype, measured.chip)


def _record(
    family: Family,
    frame: pd.DataFrame,
    dtype: str,
    device: str,
    measured: Measured,
    c: Any,
    fitted: Fitted,
) -> dict[str, Any]:
    time = frame["time"].to_numpy(np.float64)
    inside = family.band(frame).to_numpy()
    record: dict[str, Any] = {
        "family": family.name, "dtype": dtype, "device": device, "coefficients": rounded(asdict(c)),
        "fit": error(family.predict(frame, dtype, measured.chip, c), time),
        "null": error(family.null(frame, dtype, measured.chip), time),
    }  # fmt: skip
    if inside.sum() >= 50 and (~inside).sum() >= 200:
        other = _fit(family, frame[~inside], dtype, device, measured, fitted)
        held = frame[inside]
        record["band_out"] = error(
            family.predict(held, dtype, measured.chip, other), held["time"].to_numpy(np.float64)
        )
    return record


def _leave_device_out(
    record: dict[str, Any],
    fitted: Fitted,
    frames: dict[tuple[str, str, str], pd.DataFrame],
) -> None:
    name, dtype, device = record["family"], record["dtype"], record["device"]
    family = next(f for f in FAMILIES if f.name == name)
    others = {d: c for d, c in fitted[name][dtype].items() if d != device}
    if not others:
        return
    chip = DEVICES[device].chip
    kin = {d: c for d, c in others.items() if DEVICES[d].chip.architecture == chip.architecture}
    used = kin or others
    c = family.kind(**mean([asdict(c) for c in used.values()]))
    frame = frames[name, dtype, device]
    record["device_out"] = error(
        family.predict(frame, dtype, chip, c), frame["time"].to_numpy(np.float64)
    ) | {"from": sorted(used), "kin": bool(kin)}


def write(fitted: Fitted, report: Report, extra: dict[str, dict[str, Any]] | None = None) -> None:
    """Writes one file per device, per architecture (means) and ``generic.toml`` (mean over all devices)."""
    groups: dict[str, list[str]] = {device: [device] for device in DEVICES}
    for device, measured in DEVICES.items():
        groups.setdefault(measured.chip.architecture, []).append(device)
    groups["generic"] = [d for d in DEVICES if DEVICES[d].chip.architecture != "xe2"]
    for group, members in groups.items():
        tables: dict[str, dict[str, Any]] = {}
        spread: dict[str, float] = {}
        for name, by_dtype in fitted.items():
            for dtype, by_device in by_dtype.items():
                rows = [asdict(by_device[d]) for d in members if d in by_device]
                if rows:
                    tables.setdefault(name, {})[dtype] = rounded(mean(rows))
            key = "fit" if group in DEVICES else "device_out"
            seen = [
                r[key]["spread"]
                for r in report
                if r["family"] == name and r["device"] in members and key in r
            ]
            spread[name] = round(float(np.median(seen)), 3) if seen else 0.3
        used = sorted({f"{AIC}/{DEVICES[d].folder} vLLM {v}" for d in members
                       for v in set(DEVICES[d].versions.values())})  # fmt: skip
        content: dict[str, Any] = {
            "source": "; ".join(used) + " (ai-dynamo/aiconfigurator, Apache-2.0)",
            "spread": spread,
            "tables": tables,
        }
        if group in DEVICES:
            chip = DEVICES[group].chip
            content["reference"] = {"bandwidth": chip.bandwidth, "units": chip.units, "peak": dict(chip.peak)}
        for family, rows_by_group in (extra or {}).items():
            if group in rows_by_group:
                content["tables"][family] = rows_by_group[group]
        (OUT / f"{group}.toml").write_text(
            "# Written by benchmarks/fit/kernels.py; do not edit.\n" + tomli_w.dumps(content)
        )


def main() -> None:
    """Fits, prints the error table (or JSON) and writes the coefficient files."""
    data = root()
    if data is None:
        print("FLEETCAST_DATA not found: nothing to fit")
        return
    fitted, report = fit_all(data)
    if "--json" in sys.argv:
        print(json.dumps(report, indent=1))
    else:
        for r in report:
            line = f"{r['family']:8} {r['dtype']:10} {r['device']:14}"
            for key in ("fit", "band_out", "device_out", "null"):
                if key in r:
                    line += f" {key} {r[key]['median']:6.1%}/{r[key]['p90']:6.1%}"
            print(line, f"n {r['fit']['n']}")
    if "--dry" not in sys.argv:
        OUT.mkdir(exist_ok=True)
        write(fitted, report)


if __name__ == "__main__":
    main()
