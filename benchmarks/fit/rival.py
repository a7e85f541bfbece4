"""aiconfigurator on the same rows, in an environment of its own; only its public estimate is called.

Its package also holds measured end-to-end rows and kernel tables: they are not opened, fitted on or copied here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.fit.silicon import RANDOM, Row
from benchmarks.records import ROOT, Null, Ours, Paper, Record, skipped, timer

PLACE = ROOT / ".cache" / "aiconfigurator"
SAMPLE = 10
"""Every so many rows are asked for: an estimate takes seconds when its tables are first read."""
SYSTEMS = {"h100-sxm": "h100_sxm", "h200-sxm": "h200_sxm"}
KNOWN = {
    "meta-llama/Llama-3.1-70B": "meta-llama/Meta-Llama-3.1-70B",
    "meta-llama/Llama-3.1-8B-Instruct": "meta-llama/Meta-Llama-3.1-8B",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "meta-llama/Meta-Llama-3.1-8B",
}
"""Names of the same architectures that the rival knows without a download."""
CLAIMS = {"TPOT": 1, "TTFT": 0}
BAR = "below aiconfigurator's on the same rows"
_CHILD = """
import contextlib, importlib.metadata as m, json, logging, sys, warnings
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
from aiconfigurator.cli.api import cli_estimate
out = []
for job in json.load(sys.stdin):
    try:
        with contextlib.redirect_stdout(sys.stderr):
            r = cli_estimate(job.pop("model"), job.pop("system"), **job)
        out.append([r.ttft * 1e-3, r.tpot * 1e-3])
    except Exception as error:
        out.append(f"{type(error).__name__}: {error}"[:200])
print("RESULT" + json.dumps({"version": m.version("aiconfigurator"), "rows": out}))
"""


class Judged(Protocol):
    """What `accuracy_silicon.Held` offers."""

    cases: list[Any]
    forecast: np.ndarray
    measured: np.ndarray


def job(row: Row) -> dict[str, Any]:
    """Returns the arguments of the rival's estimate for a row, with the layout as decoded and mean lengths."""
    size = (1.0 + RANDOM) / 2 if row.random else 1.0
    asked: dict[str, Any] = {
        "model": KNOWN.get(row.model, row.model), "system": SYSTEMS[row.device], "backend_name": row.backend,
        "isl": int(row.prompt * size), "osl": int(row.output * size), "batch_size": max(1, row.users // row.dp),
        "tp_size": row.tp, "attention_dp_size": row.dp,
    }  # fmt: skip
    if row.columns.moe_tp_size == row.columns.moe_tp_size and not any(n in row.model for n in ("Llama", "Qwen3-32B")):
        asked |= {"moe_ep_size": row.ep, "moe_tp_size": row.devices // row.ep}
    if row.dtype == "fp8" or "Llama-3.1-8B-Instruct-FP8" in row.model:
        asked |= {"gemm_quant_mode": "fp8"}
    if row.kv_dtype == "fp8":
        asked |= {"kvcache_quant_mode": "fp8"}
    return asked


def environment() -> Path:
    """Returns the interpreter of the rival's own environment, made on first use."""
    python = PLACE / "bin" / "python"
    if not python.exists():
        venv.create(PLACE, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "aiconfigurator"], check=True)
    return python


def rival(held: Judged, ask: bool) -> list[Record]:
    """Returns our error and the rival's on the same sample of rows, a record per metric.

    Args:
        held: our forecasts, models left out of the fit.
        ask: run the rival; otherwise the records are skipped and earlier results stay.
    """
    command = "python -m benchmarks.accuracy_silicon --rival"
    if not ask:
        return [
            skipped(system=5, claim=_claim(m), bar=BAR, why="the rival runs on request: --rival", command=command)
            for m in CLAIMS
        ]
    order = sorted(range(len(held.cases)), key=lambda i: held.cases[i].row.index)[::SAMPLE]
    with timer() as clock:
        done = subprocess.run(
            [environment(), "-c", _CHILD], input=json.dumps([job(held.cases[i].row) for i in order]),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    line = next((x for x in done.stdout.splitlines() if x.startswith("RESULT")), None)
    if line is None:
        return [
            skipped(system=5, claim=_claim(m), bar=BAR, why=f"the rival failed: {done.stderr[-200:]}", command=command)
            for m in CLAIMS
        ]
    answer = json.loads(line.removeprefix("RESULT"))
    both = [(i, r) for i, r in zip(order, answer["rows"], strict=True) if isinstance(r, list)]
    refused = [r for r in answer["rows"] if isinstance(r, str)]
    print(f"aiconfigurator {answer['version']}: {len(both)} rows estimated, {len(refused)} refused", file=sys.stderr)
    for text in sorted(set(refused)):
        print("  refused:", text, file=sys.stderr)
    index = [i for i, _ in both]
    theirs = np.array([r for _, r in both])
    found = []
    for metric, j in CLAIMS.items():
        ours = 100.0 * float(np.median(np.abs(held.forecast[index, j] / held.measured[index, j] - 1.0)))
        other = 100.0 * float(np.median(np.abs(theirs[:, j] / held.measured[index, j] - 1.0)))
        found.append(
            Record(
                system=5, claim=_claim(metric), bar=BAR, holds=ours < other, reproduced="other setting",
                paper=Paper(value=other, unit="%", setting=f"aiconfigurator {answer['version']}, same rows"),
                ours=Ours(value=ours, unit="%", setting=f"{len(both)} rows, every {SAMPLE}th, models left out"),
                null=Null(value=other, what=f"aiconfigurator {answer['version']}"),
                reason=f"a tool, not a paper; it refused {len(refused)} of the {len(order)} rows",
                seconds=clock.seconds, command=command,
            )
        )  # fmt: skip
    return found


def _claim(metric: str) -> str:
    return f"{metric}, median error beside aiconfigurator on the same rows"
