"""Refits the kernel coefficients from measured tables; prints errors beside their nulls.

    python -m benchmarks.fit.kernels            # writes cost/coefficients/*.toml, prints errors
    python -m benchmarks.fit.kernels --dry      # errors only

Held out: a whole device (predicted with the mean of its architecture's others, or of all others
where it is alone) and a band of sizes (fitted without it). Needs the ``bench`` extra and
``FLEETCAST_DATA``.
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

from benchmarks.fit import attend, layers, products, siblings
from benchmarks.fit.solve import error, mean, rounded
from benchmarks.fit.tables import DEVICES, Measured, root
from fleetcast.cost.attention import Decode, Prefill
from fleetcast.cost.gemm import Gemm
from fleetcast.cost.moe import Experts
from fleetcast.cost.roofline import Chip

OUT = Path(__file__).parents[2] / "src" / "fleetcast" / "cost" / "coefficients"
Rows = Callable[[Path, str, str], "pd.DataFrame | None"]


@dataclass(frozen=True)
class Family:
    """A kernel family: rows, fit, prediction, null, and the band of sizes held out."""

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
    """Returns every device's coefficients and JSON-able error records."""
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


def _fit(family: Family, frame: pd.DataFrame, dtype: str, device: str, measured: Measured, fitted: Fitted) -> Any:
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
    if "cold" in frame:  # near-empty caches only set the floor
        frame = frame[frame["cold"]]
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
        record["band_out"] = error(family.predict(held, dtype, measured.chip, other), held["time"].to_numpy(np.float64))
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
    frame = frame[frame["cold"]] if "cold" in frame else frame
    record["device_out"] = error(family.predict(frame, dtype, chip, c), frame["time"].to_numpy(np.float64)) | {
        "from": sorted(used),
        "kin": bool(kin),
    }


def beside(data: Path, fitted: Fitted) -> tuple[siblings.Tables, Report]:
    """Returns what ``siblings`` fits, with its error records."""
    gemms = {d: c for d, c in fitted["gemm"]["bf16"].items()}
    launches = {d: c.launch for d, c in fitted["prefill"]["bf16"].items()}
    parts = (
        siblings.latent(data, gemms, launches),
        siblings.streams(data),
        siblings.small_products(data, gemms),
        siblings.draw(data),
    )
    return siblings.merged(*(p[0] for p in parts)), [r for p in parts for r in p[1]]


def write(tables: siblings.Tables, report: Report) -> None:
    """Writes one file per device, per architecture and for the generic device (means).

    Args:
        tables: family -> device (or group, which then is kept as it is) -> dtype -> coefficients.
        report: error records, whose spreads become intervals.
    """
    every = DEVICES | layers.SMALL
    groups: dict[str, list[str]] = {device: [device] for device in every}
    for device, measured in every.items():
        groups.setdefault(measured.chip.architecture, []).append(device)
    groups["generic"] = [d for d in every if every[d].chip.architecture not in ODD]
    for group, members in groups.items():
        rows: dict[str, dict[str, Any]] = {}
        spread: dict[str, float] = {}
        for family, by_device in tables.items():
            own = by_device.get(group)
            known = [by_device[d] for d in members if d in by_device]
            dtypes = sorted({dtype for table in known for dtype in table})
            means = {t: rounded(mean([k[t] for k in known if t in k])) for t in dtypes}
            if own or means:
                rows[family] = own or means
                spread[family] = _spread(family, members, "fit" if group in every else "device_out", report)
        content: dict[str, Any] = {"source": _sources(members), "spread": spread, "tables": rows}
        if group in every:
            chip = every[group].chip
            peaks = {k: float(f"{v:.6g}") for k, v in chip.peak.items()}
            content["reference"] = {"bandwidth": chip.bandwidth, "units": chip.units, "peak": peaks}
        text = "# Written by benchmarks/fit/kernels.py; do not edit.\n" + tomli_w.dumps(content)
        (OUT / f"{group}.toml").write_text(text)


# Not averaged into the generic device: another vendor's or another decade's software.
ODD = ("xe2", "tpu-v6e", "volta")


def _spread(family: str, members: list[str], key: str, report: Report) -> float:
    for name in (key, "device_out", "fit"):
        seen = [
            r[name]["spread"]
            for r in report
            if r["family"] == FAMILY_OF.get(family, family) and r["device"] in members and name in r
        ]
        if seen:
            return round(float(np.median(seen)), 3)
    return 0.3


FAMILY_OF = {"draw": "power"}


def _sources(members: list[str]) -> str:
    parts = []
    for d in members:
        if d in DEVICES:
            versions = ", ".join(sorted(set(DEVICES[d].versions.values()) - {""}))
            parts.append(f"aiconfigurator {DEVICES[d].folder} vLLM {versions} (Apache-2.0)")
        if d in layers.VIDUR:
            parts.append(f"Vidur compute {layers.VIDUR[d]} (MIT)")
        if d in layers.LAYERS or d in layers.OLD:
            parts.append(f"LLMServingSim {layers.LAYERS.get(d) or layers.OLD[d]} (MIT)")
        if d.startswith("v100"):
            parts.append("APEX V100-PCIE-16GB gemm_0 (MIT)")
    return "; ".join(parts)


def main() -> None:
    """Fits, prints the error table (or JSON) and writes the coefficient files."""
    data = root()
    if data is None:
        print("FLEETCAST_DATA not found: nothing to fit")
        return
    fitted, report = fit_all(data)
    extra, more = beside(data, fitted)
    report += more
    if "--json" in sys.argv:
        print(json.dumps(report, indent=1))
    else:
        print(siblings.frame_of(report).to_string(index=False))
    if "--dry" in sys.argv:
        return
    OUT.mkdir(exist_ok=True)
    big: siblings.Tables = {
        family: {d: {t: rounded(asdict(c[d])) for t, c in by.items() if d in c} for d in DEVICES}
        for family, by in fitted.items()
    }
    big = {f: {d: t for d, t in by.items() if t} for f, by in big.items()}
    write(siblings.merged(big, extra), report)


if __name__ == "__main__":
    main()
