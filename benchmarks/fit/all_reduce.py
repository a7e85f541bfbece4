"""All-reduce times by size and ranks, from published measurements.

python -m benchmarks.fit.all_reduce       # writes src/fleetcast/cost/coefficients/all_reduce.toml
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from benchmarks.records import data_path
from fleetcast.cost.collectives.piecewise import Array, fit

OUT = Path(__file__).parents[2] / "src" / "fleetcast" / "cost" / "coefficients" / "all_reduce.toml"
VTRAIN = "nccl-tests on one node, vTrain (VIA-Research/vTrain, MIT licence; arXiv 2312.12391)"
ENGINEERING = "stas00/ml-engineering, network benchmarks (CC BY-SA 4.0): one sweep of doubling sizes"
SWEEPS = {
    "A100 8x NVLink3": "a100-nvlink-3-sweep", "H200 8x NVLink4": "h200-nvlink-4-sharp",
    "B200 8x NVLink5": "b200-nvlink-5", "B200 4x8 EFAv4": "b200-efa-4", "4 nodes": "four-nodes-unnamed",
}  # fmt: skip
UNSWITCHED = ("v100-nvlink-2",)
"""DGX-1: eight GPUs in a cube of NVLinks, no switch."""

Curves = Mapping[tuple[str, int], tuple[Array, Array]]


def curves() -> Curves | None:
    """Returns (machine, ranks) -> (B, s), or None where the measurements are absent."""
    lut = data_path("training", "vtrain", "allreduce_lut_1node.csv")
    sweeps = data_path("training", "nccl", "allreduce_busbw_ml_engineering.csv")
    if lut is None or sweeps is None:
        return None
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with lut.open() as file:
        for row in csv.DictReader(file):
            name = {"a100": "a100-nvlink-3", "v100": "v100-nvlink-2"}[row["gpu"]]
            point = float(row["bytes"]), float(row["outofplace_us"]) * 1e-6
            found.setdefault((name, int(row["n_gpus"])), []).append(point)
    with sweeps.open() as file:
        for row in csv.DictReader(file):
            name = next(name for head, name in SWEEPS.items() if row["system"].startswith(head))
            size, ranks = float(row["bytes"]), int(row["ranks"])
            # bus bandwidths of two digits say less than times, where there are any
            moved = 2.0 * (ranks - 1) / ranks * size
            seconds = float(row["time_us"]) * 1e-6 if row["time_us"] else moved / (float(row["busbw_GBps"]) * 1e9)
            found.setdefault((name, ranks), []).append((size, seconds))
    return {key: tuple(np.array(sorted(rows)).T) for key, rows in found.items()}


def per_node(name: str, ranks: int) -> int:
    """Returns the ranks of a node of a machine."""
    return 8 if ranks <= 8 or name in ("b200-efa-4", "four-nodes-unnamed") else ranks


def main() -> int:
    """Writes the file."""
    measured = curves()
    if measured is None:
        print("the measurements are absent: set FLEETCAST_DATA", file=sys.stderr)
        return 1
    table: dict[str, dict[str, Any]] = {}
    for (name, ranks), (size, seconds) in measured.items():
        source = VTRAIN if name in ("a100-nvlink-3", "v100-nvlink-2") else ENGINEERING
        row = table.setdefault(
            name,
            {"source": source, "switched": name not in UNSWITCHED, "per_node": per_node(name, ranks), "ranks": {}},
        )
        line = fit(size, seconds)
        row["ranks"][str(ranks)] = {
            "size": [int(x) for x in line.size], "us": [float(f"{1e6 * t:.5g}") for t in line.time],
        }  # fmt: skip
    text = "# Written by benchmarks/fit/all_reduce.py; do not edit. Corners of broken lines: B, us.\n"
    OUT.write_text(text + _compact(tomli_w.dumps(table)), encoding="utf-8")
    return 0


def _compact(text: str) -> str:
    """Returns TOML with each list on a line."""
    lines, inside = [], False
    for line in text.splitlines():
        if line.endswith("= ["):
            inside = True
            lines.append(line)
        elif inside:
            inside = line != "]"
            lines[-1] += line.strip() + (" " if inside else "")
        else:
            lines.append(line)
    return "\n".join(lines).replace(", ]", "]") + "\n"


if __name__ == "__main__":
    sys.exit(main())
