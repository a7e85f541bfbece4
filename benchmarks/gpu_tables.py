"""What `benchmarks.gpu_run` measured, kept in the repository: a table of kernels, one of iterations, and the rest.

``python -m benchmarks.gpu_tables OUT`` takes the files of a run over into the tables, in place of its card's.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
KERNELS, PASSES, REST = (FOLDER / name for name in ("gpu_kernels.csv", "gpu_passes.csv", "gpu_runs.json"))
OF_KERNELS = ("card", "family", "kernel", "dtype", "m", "n", "k", "heads", "kv_heads", "head_dim", "seconds")
OF_PASSES = ("card", "model", "kind", "decodes", "context", "piece", "cached", "emits", "seconds", "watts")
CARDS = {"NVIDIA H100 80GB HBM3": "h100-sxm", "NVIDIA H200": "h200-sxm"}
"""Name that the driver gives a card -> its id in the catalogue."""
METRICS = ("ttft", "tpot", "e2e", "throughput", "makespan")


def kernels() -> list[dict[str, Any]]:
    """Returns the measured kernels; ``m``, ``n``, ``k`` are as `benchmarks.gpu_kernels` has them."""
    return _read(KERNELS)


def passes() -> list[dict[str, Any]]:
    """Returns the measured iterations of the engine in bf16; ``context`` is of all sequences together."""
    return _read(PASSES)


def runs() -> dict[str, Any]:
    """Returns all else by card: facts, roofs, power, training, peer, formats, outcomes of scenarios."""
    found: dict[str, Any] = json.loads(REST.read_text(encoding="utf-8")) if REST.is_file() else {}
    return found


def keep(out: Path) -> str:
    """Takes the files of a run over; returns the card's id."""
    parts = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted(out.glob("*.json"))}
    facts = next(iter(parts.values()))["facts"]
    card = CARDS[facts["card"]]
    rows = [{"card": card} | row for row in parts["kernels"]["kernels"]["rows"]]
    _write(KERNELS, OF_KERNELS, [r for r in _read(KERNELS) if r["card"] != card] + rows)
    engine = parts["engine"]["engine"]
    rows = [
        {"card": card, "model": engine["model"]} | row | {"watts": row.get("power", {}).get("watts")}
        for row in engine["rows"] if row["kind"] in ("decode", "prompt", "piece", "mixed")
    ]  # fmt: skip
    powered = [r for r in engine["rows"] if r["kind"] == "prefill power"]
    _write(PASSES, OF_PASSES, [r for r in _read(PASSES) if r["card"] != card] + rows)
    found = {
        "facts": facts, "roofs": parts["kernels"]["kernels"]["roofs"], "power": parts["power"]["power"],
        "prefill_power": powered[0]["power"] if powered else {}, "training": parts["training"]["training"],
        "formats": {k: v for k, v in engine.items() if isinstance(v, dict) and k != "memory"},
        "peer": parts.get("peer", {}).get("peer"), "checks": parts.get("checks", {}).get("checks"),
        "served": {p.name: _served(p) for p in sorted(out.iterdir()) if (p / "outcome.json").is_file()},
    }  # fmt: skip
    REST.write_text(json.dumps(runs() | {card: found}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return card


def _served(folder: Path) -> dict[str, Any]:
    outcome = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
    scenario = (folder / "scenario.toml").read_text(encoding="utf-8")
    return {"scenario": scenario, "metrics": {name: outcome["metrics"][name] for name in METRICS}}


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(file)]


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


def _write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        for row in rows:
            values = (row.get(name) for name in columns)
            table.writerow([f"{v:.5g}" if isinstance(v, float) else "" if v is None else v for v in values])


if __name__ == "__main__":
    print(keep(Path(sys.argv[1])))
