"""Collective operations: measured curves, and latency and bandwidth per kind of link.

python -m benchmarks.fit.links            # writes src/fleetcast/cost/coefficients/*.links.toml
"""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tomli_w

from benchmarks.fit.solve import error, fit, mean, rounded
from benchmarks.fit.tables import AIC, root
from fleetcast.cost.collectives import Affine, volume
from fleetcast.scenario.fleet.catalog import device, link

OUT = Path(__file__).parents[2] / "src" / "fleetcast" / "cost" / "coefficients"
PLAIN = "nccl_all_reduce"
NAMES = {"alltoall": "all_to_all", "sendrecv": "send"}
# device: (folder, NCCL version, vLLM version of the custom all-reduce); the link is the catalogue's
# default.
MEASURED = {
    "a100-80g-sxm": ("a100_sxm", "nccl/2.27.3", "0.14.0"),
    "h100-sxm": ("h100_sxm", "nccl/2.27.3", "0.24.0"),
    "h200-sxm": ("h200_sxm", "nccl/2.26.2", "0.24.0"),
    "b200-sxm": ("b200_sxm", "nccl/2.28.9", "0.24.0"),
    "gb200": ("gb200", "nccl/2.29.2", "0.24.0"),
    "l40s": ("l40s", "nccl/2.27.3", "0.22.0"),
    "b60": ("b60", "oneccl/2021.17.2", "0.20.0"),
}
APEX = {"h100-sxm": "H100-SXM", "h200-sxm": "H200-SXM"}
"""Devices with collectives of APEX, and their name there."""


def joined(name: str) -> tuple[str, float]:
    """Returns kind and bandwidth (B/s) of a device's default link inside a node."""
    found = link(device(name).link)
    return found.kind, found.bandwidth


RANGES = {"launch": (0.0, 8e-6, 5e-3), "hop": (0.0, 1e-6, 2e-3), "efficiency": (0.01, 0.7, 1.0)}
SHARED = {"shared": (0.0, 1.0, 3.0)}
"""Over PCIe ranks share bridges and the link between sockets: what each reaches falls with their number."""


def rows_of(data: Path, name: str) -> pd.DataFrame:
    """Returns one device's collectives: operation, ranks, bytes, seconds (best of repeated runs).

    ``message_size`` counts elements (the same sizes in APEX's tables, which say kilobytes, agree
    so). All_reduce of vLLM's custom kernel under a CUDA graph replaces NCCL's where it is faster,
    as vLLM itself chooses; NCCL's own is kept as ``nccl_all_reduce`` for servers that switched it off,
    from APEX's tables where there are any: the NCCL of vLLM 0, on the machines whose servers we forecast.
    """
    folder, nccl, custom = MEASURED[name]
    where = data / AIC / folder / "comm"
    frames = []
    for path in (where / nccl).glob("*.parquet"):
        frame = pd.read_parquet(path)
        frame = frame[frame["nccl_dtype"] == "half"]
        frames.append(frame[["op_name", "num_gpus", "message_size", "latency"]])
        if name not in APEX:
            plain = frames[-1][frames[-1]["op_name"] == "all_reduce"]
            frames.append(plain.assign(op_name=PLAIN))
    for path in (where / "vllm" / custom).glob("*.parquet"):
        frame = pd.read_parquet(path)
        graph = frame["backend"] == "vllm_graph"
        frame = frame[graph] if graph.any() else frame
        frames.append(frame[["op_name", "num_gpus", "message_size", "latency"]])
    all_rows = pd.concat(frames)
    all_rows["op"] = all_rows["op_name"].replace(NAMES)
    all_rows["size"] = all_rows["message_size"] * 2.0
    all_rows["time"] = all_rows["latency"] * 1e-3
    best = all_rows.groupby(["op", "num_gpus", "size"], as_index=False)["time"].min()
    best = best.rename(columns={"num_gpus": "ranks"})
    if name in APEX:
        old = apex_rows(data, APEX[name])
        old = old[(old["op"] == "all_reduce") & (old["num_nodes"] == 1) & (old["dtype"] == "half")]
        best = pd.concat([best, old.assign(op=PLAIN)[best.columns]])
    return best


def apex_rows(data: Path, name: str) -> pd.DataFrame:
    """Returns APEX's collectives of one device ("H100-SXM", "H200-SXM" or "V100-PCIE")."""
    frames = []
    with tarfile.open(data / "serving/apex/comm_profiles.tar.gz") as archive:
        for member in archive.getmembers():
            if name in member.name and member.name.endswith(".csv"):
                handle = archive.extractfile(member)
                assert handle is not None
                frame = pd.read_csv(handle)
                frame["op"] = NAMES.get(Path(member.name).stem, Path(member.name).stem)
                frames.append(frame)
    rows = pd.concat(frames)
    rows = rows[(rows["size(kb)"] > 0) & (rows["time(us)"] > 0)]
    return rows.assign(
        ranks=rows["num_nodes"] * rows["num_gpus_per_node"],
        size=rows["size(kb)"] * 1024.0,
        time=rows["time(us)"] * 1e-6,
    )


def ethernet_rows(data: Path) -> pd.DataFrame:
    """Returns V100 collectives over 2 and 4 nodes of one GPU: 10 Gb/s, by its own sends."""
    rows = apex_rows(data, "V100-PCIE")
    rows = rows[(rows["num_nodes"] > 1) & (rows["num_gpus_per_node"] == 1)]
    return rows[["op", "ranks", "size", "time"]]


def affine_time(rows: pd.DataFrame, c: Affine, operation: str, bandwidth: float) -> np.ndarray:
    """Returns predicted seconds of every row."""
    n, size = rows["ranks"].to_numpy(np.float64), rows["size"].to_numpy(np.float64)
    return np.asarray(c.launch + c.hop * (n - 1) + size * volume(operation, n) / (c.reached(n) * bandwidth))


def fit_affine(rows: pd.DataFrame, operation: str, bandwidth: float, kind: str = "") -> Affine:
    """Returns the coefficients of one operation; one number of ranks tells no hop from the launch.

    Only over PCIe (``kind``) may what each rank reaches fall with their number.
    """
    time = rows["time"].to_numpy(np.float64)
    several = rows["ranks"].nunique() > 1
    free = RANGES if several else {k: v for k, v in RANGES.items() if k != "hop"}
    ranges = free | (SHARED if several and kind == "pcie" else {})
    found = fit(lambda x: affine_time(rows, Affine(**({"hop": 0.0} | x)), operation, bandwidth), ranges, time)
    return Affine(**({"hop": 0.0} | found))


def null_time(rows: pd.DataFrame, operation: str, bandwidth: float) -> np.ndarray:
    """Returns volume over one fitted bandwidth: no latency."""
    ideal = affine_time(rows, Affine(launch=0.0, hop=0.0, efficiency=1.0), operation, bandwidth)
    return np.asarray(ideal * np.exp(np.median(np.log(rows["time"].to_numpy() / ideal))))


def _knots(rows: pd.DataFrame) -> tuple[list[float], dict[str, dict[str, list[float]]]]:
    sizes = sorted(set(rows["size"]))
    sizes = [s for s in sizes if s <= 16384 or s >= 2**20 or np.log2(s) % 1 < 0.01]
    keep = [s for i, s in enumerate(sizes) if 4096 <= s <= 2**26 or i % 2 == 0 or s == sizes[-1]]
    curves: dict[str, dict[str, list[float]]] = {}
    for (op, ranks), part in rows.groupby(["op", "ranks"]):
        known = part.sort_values("size")
        time = np.interp(np.log(keep), np.log(known["size"]), known["time"])
        time = time * np.maximum(1.0, np.array(keep) / known["size"].max())  # beyond the last size: the bandwidth's
        rising = np.maximum.accumulate(time) * 1e6
        curves.setdefault(str(op), {})[str(ranks)] = [float(f"{t:.4g}") for t in rising]
    return keep, curves


def skipping(rows: pd.DataFrame) -> dict[str, Any]:
    """Returns the error of every second size, read off the curve through the others."""
    predicted, measured = [], []
    for _, part in rows.groupby(["op", "ranks"]):
        part = part.sort_values("size")
        x, y = np.log(part["size"].to_numpy()), np.log(part["time"].to_numpy())
        predicted.append(np.exp(np.interp(x[1:-1:2], x[::2], y[::2])))
        measured.append(np.exp(y[1:-1:2]))
    return error(np.concatenate(predicted), np.concatenate(measured))


def fit_all(data: Path) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Returns file name -> content, and JSON-able error records."""
    files: dict[str, dict[str, Any]] = {}
    report: list[dict[str, Any]] = []
    every = {d: rows_of(data, d) for d in MEASURED}
    frames = {d: rows[rows["op"] != PLAIN] for d, rows in every.items()}
    fitted: dict[str, dict[str, Affine]] = {}
    for name, rows in frames.items():
        folder, nccl, custom = MEASURED[name]
        kind, bandwidth = joined(name)
        fitted[name] = {str(op): fit_affine(part, str(op), bandwidth, kind) for op, part in rows.groupby("op")}
        knots, curves = _knots(every[name])
        record = skipping(rows)
        files[name] = {
            "source": f"{AIC}/{folder}/comm {nccl}, vLLM {custom} (ai-dynamo/aiconfigurator, Apache-2.0)",
            "kind": kind, "bandwidth": bandwidth, "spread": record["spread"],
            "affine": {op: rounded(_row(c)) for op, c in fitted[name].items()},
            "size": knots, "curves": curves,
        }  # fmt: skip
        report.append({"family": "collective curve", "device": name, "skipped_knots": record})
    for name, rows in frames.items():
        kind, bandwidth = joined(name)
        kin = [d for d in MEASURED if d != name and joined(d)[0] == kind]
        for key, part in rows.groupby("op"):
            op = str(key)
            time = part["time"].to_numpy(np.float64)
            record = {"family": "collective affine", "device": name, "op": op,
                      "fit": error(affine_time(part, fitted[name][op], op, bandwidth), time),
                      "null": error(null_time(part, op, bandwidth), time)}  # fmt: skip
            known = [_row(fitted[d][op]) for d in kin if op in fitted[d]]
            if known:
                other = Affine(**mean(known))
                record["device_out"] = error(affine_time(part, other, op, bandwidth), time)
            report.append(record)
    kinds = {kind: _kind(kind, fitted, report, f"mean of {AIC}/*/comm over {kind}") for kind in ("nvlink", "pcie")}
    for kind, apex, bandwidth in (
        ("nvlink", ("H100-SXM", "H200-SXM"), 450e9),
        ("pcie", ("V100-PCIE",), 16e9),
    ):
        sends = pd.concat([apex_rows(data, name) for name in apex])
        sends = sends[(sends["op"] == "send") & (sends["num_nodes"] == 1)]
        c = fit_affine(sends, "send", bandwidth)
        kinds[kind]["affine"]["send"] = rounded(_row(c))
        time = sends["time"].to_numpy(np.float64)
        report.append({"family": "collective affine", "device": f"{apex[0]}, {kind}", "op": "send",
                       "fit": error(affine_time(sends, c, "send", bandwidth), time),
                       "null": error(null_time(sends, "send", bandwidth), time)})  # fmt: skip
    net = ethernet_rows(data)
    slow = {str(op): fit_affine(part, str(op), 1.25e9) for op, part in net.groupby("op")}
    for op, part in net.groupby("op"):
        time = part["time"].to_numpy(np.float64)
        report.append({"family": "collective affine", "device": "V100, 10 Gb/s Ethernet", "op": str(op),
                       "fit": error(affine_time(part, slow[str(op)], str(op), 1.25e9), time),
                       "null": error(null_time(part, str(op), 1.25e9), time)})  # fmt: skip
    kinds["ethernet"] = {
        "source": "serving/apex/comm_profiles V100-PCIE-16GB, 2 and 4 nodes (microsoft/apex_plus, MIT)",
        "origin": "link kind", "spread": 0.4,
        "affine": {op: rounded(_row(c)) for op, c in slow.items()},
    }  # fmt: skip
    # No table over InfiniBand, RoCE or a torus is at hand: NVLink's launch, the link's own latency a
    # round, 80 % of the line.
    quick = {op: dict(row) for op, row in kinds["nvlink"]["affine"].items()}
    for row in quick.values():
        row.update(hop=0.0, efficiency=0.8)
    for kind in ("infiniband", "roce", "infinity-fabric", "ici", "other"):
        kinds[kind] = {
            "source": "assumed: NCCL's launch over NVLink, the link's latency a round, 80 % of the line rate",
            "origin": "assumed", "spread": 0.5, "rounds": "torus" if kind == "ici" else "tree", "affine": quick,
        }  # fmt: skip
    for row in kinds.values():
        row["affine"].setdefault("send", dict(row["affine"]["all_to_all"]))
    files["wires"] = {"kinds": kinds}
    return files, report


def _row(c: Affine) -> dict[str, float]:
    row = {"launch": c.launch, "hop": c.hop, "efficiency": c.efficiency}
    return row | ({"shared": c.shared} if c.shared > 1e-3 else {})


def _kind(kind: str, fitted: dict[str, dict[str, Affine]], report: list[dict[str, Any]], source: str) -> dict[str, Any]:
    members = [d for d in MEASURED if joined(d)[0] == kind and d != "b60"]
    operations = sorted({op for d in members for op in fitted[d]})
    held = [r["device_out"]["spread"] for r in report if r.get("device") in members and "device_out" in r]
    return {
        "source": source, "origin": "link kind", "spread": round(float(np.median(held)), 3),
        "affine": {op: rounded(mean([_row(fitted[d][op]) for d in members if op in fitted[d]]))
                   for op in operations},
    }  # fmt: skip


def main() -> None:
    """Fits, prints errors and writes the files."""
    data = root()
    if data is None:
        print("FLEETCAST_DATA not found: nothing to fit")
        return
    files, report = fit_all(data)
    if "--json" in sys.argv:
        print(json.dumps(report, indent=1))
    else:
        for record in report:
            line = f"{record['family']:18} {record['device']:24} {record.get('op', ''):15}"
            for key in ("skipped_knots", "fit", "device_out", "null"):
                if key in record:
                    line += f" {key} {record[key]['median']:6.1%}/{record[key]['p90']:6.1%}"
            print(line)
    if "--dry" not in sys.argv:
        for name, content in files.items():
            head = "# Written by benchmarks/fit/links.py; do not edit. Times in us, sizes in bytes.\n"
            (OUT / f"{name}.links.toml").write_text(head + tomli_w.dumps(content, multiline_strings=False))


if __name__ == "__main__":
    main()
