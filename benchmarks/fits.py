"""Which training runs fit: forecast, then tried under the kernel's own limit, and EasyScale's packings of one GPU.

The runs stand in `benchmarks/fits_inputs.toml`, frozen before any was forecast. Each is a process of its own, whose
limit counts from what it holds once libraries are loaded; memory is asked as for any device, with fp32 weights.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

from benchmarks.records import ROOT, Null, Ours, Paper, Record, absent, data_path, main, skipped, timer
from fleetcast.cost.training.memory import memory
from fleetcast.cost.training.network import Job, of
from fleetcast.cost.training.plans import plans
from fleetcast.cost.training.system import System
from fleetcast.cost.training.system import of as system_of
from fleetcast.scenario.fleet.spec import Fleet
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.workload.training import Shape

COMMAND = "python -m benchmarks.fits"
OWN = "torch runs under a hard limit of memory that were forecast to fit or not"
PACKED = "packings of 1 to 16 workers on a V100 of 32 GB that were foretold to fit or not (EasyScale)"
BAR = "precision and recall at least 0.95, and the boundary has both sides"
KEYS = ("layers", "hidden", "heads", "vocab", "sequence", "micro_batch", "recompute", "limit")
CAPACITY = 32_510.0
"""MiB that a V100 of 32 GB has for programs, as its driver says (recalled)."""
FULL = 0.99
"""A device that holds this share of its memory was full: frameworks take what there is, and fail beyond it."""


def runs() -> list[dict[str, Any]]:
    """Returns the frozen runs, limits in B."""
    table = tomllib.loads((ROOT / "benchmarks" / "fits_inputs.toml").read_text(encoding="utf-8"))
    rows = [dict(zip(KEYS, row, strict=True)) for row in table["runs"]]
    return [row | {"limit": row["limit"] * 1e6} for row in rows]


@lru_cache(maxsize=1)
def device() -> System:
    """Returns a device; its memory and times are not asked for."""
    return system_of(resolve(Fleet(devices="1x a100-80g-sxm")).groups[0])


def forecast(run: dict[str, Any]) -> tuple[float, float]:
    """Returns B that a run takes beyond an empty process, and what 16 B per parameter make."""
    shape = Shape(layers=run["layers"], hidden=run["hidden"], heads=run["heads"], vocab=run["vocab"])
    net = of(shape.model(run["sequence"]))
    net = replace(net, layers=tuple(replace(layer, dropout=False) for layer in net.layers))
    job = Job(run["sequence"], 2 * run["micro_batch"], dtype="fp32", element=4.0)
    found = memory(net, job, plans(micro_batch=run["micro_batch"], recompute=run["recompute"]), device())
    return float(found["total"][0] - found["reserve"][0]), 16.0 * net.params


def tried(run: dict[str, Any]) -> dict[str, Any]:
    """Trains under the run's limit in a process of its own; returns what it said: ``fits``, ``peak`` in B."""
    # Freed blocks go back to the system at once, so that what is mapped is what is held.
    allocator = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "fits_run.py"), json.dumps(run)], capture_output=True, text=True,
        env=os.environ | allocator | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"a run ended with {done.returncode}: {done.stderr[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def confusion(told: list[bool], true: list[bool]) -> tuple[float, float, str]:
    """Returns precision and recall of "fits", 0 where there is none, and the four counts in words."""
    pairs = list(zip(told, true, strict=True))
    right, wrong, missed = pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True))
    counts = f"{right} fit as told, {pairs.count((False, False))} do not as told, {wrong} were told to fit and do not, "
    return right / max(right + wrong, 1), right / max(right + missed, 1), f"{counts}{missed} do though told not to"


def own(quick: bool) -> Record:
    """Returns verdicts on the frozen runs."""
    command = COMMAND + (" --quick" if quick else "")
    if absent("torch"):
        return skipped(system=39, claim=OWN, bar=BAR, why="torch is not installed", command=command)
    chosen = runs()[:6] if quick else runs()
    with timer() as spent:
        tells = [forecast(run) for run in chosen]
        found = [tried(run) for run in chosen]
    true = [bool(one["fits"]) for one in found]
    ours = [taken <= run["limit"] for (taken, _), run in zip(tells, chosen, strict=True)]
    rule = [plain <= run["limit"] for (_, plain), run in zip(tells, chosen, strict=True)]
    precision, recall, counts = confusion(ours, true)
    null = confusion(rule, true)
    peaks = [
        one["peak"] / taken - 1.0 for one, (taken, _) in zip(found, tells, strict=True) if one["fits"] and one["peak"]
    ]
    off = [run["limit"] / taken for run, (taken, _), a, b in zip(chosen, tells, ours, true, strict=True) if a != b]
    said = (
        f"those that were wrong had limits of {', '.join(f'{x:.3f}' for x in off)} of the forecast" if off else "none"
    )
    return Record(
        system=39, claim=OWN, paper=Paper(value=None, setting="our own runs"),
        ours=Ours(value=round(min(precision, recall), 3), unit="the lower of precision and recall",
                  spread=f"precision {precision:.3f}, recall {recall:.3f}: {counts}; wrong: {said}",
                  setting=f"{len(chosen)} frozen runs of 2 iterations of 2 micro-batches, fp32, Adam; peaks of those "
                  f"that fit are {100 * sum(peaks) / max(len(peaks), 1):+.1f} % of the forecast on average, "
                  f"{100 * min(peaks, default=0):+.1f} to {100 * max(peaks, default=0):+.1f} %"),
        null=Null(value=round(min(null[:2]), 3),
                  what=f"16 B per parameter: precision {null[0]:.3f}, recall {null[1]:.3f}; {null[2]}"),
        bar=BAR, holds=min(precision, recall) >= 0.95 and 0 < sum(true) < len(true), reproduced="other setting",
        reason="our own bar; no paper makes the claim", seconds=round(spent.seconds, 1), command=command,
    )  # fmt: skip


def packed(quick: bool) -> Record:
    """Returns verdicts on EasyScale's packings: workers of their own add up, EasyScale's share one worker's memory."""
    command = COMMAND + (" --quick" if quick else "")
    path = data_path("training", "easyscale", "mem.csv")
    if path is None:
        return skipped(system=49, claim=PACKED, bar=BAR, why="the published table is absent: set FLEETCAST_DATA",
                       command=command)  # fmt: skip
    told, true, every = [], [], []
    with timer() as spent, path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            one, shared = float(row["1"]), row["mp"].endswith("_eddp")
            for workers in range(2, 17):  # the first column is what the forecast knows
                told.append(one * (1 if shared else workers) <= CAPACITY)
                true.append(float(row[str(workers)]) < FULL * CAPACITY)
                every.append(True)
    precision, recall, counts = confusion(told, true)
    null = confusion(every, true)
    return Record(
        system=49, claim=PACKED, paper=Paper(value=len(true), unit="packings", setting="two models, shared and not"),
        ours=Ours(value=round(min(precision, recall), 3), unit="the lower of precision and recall",
                  spread=f"precision {precision:.3f}, recall {recall:.3f}: {counts}",
                  setting="from the memory of one worker, measured; a packing that fills 99 % of the device is one "
                  "that did not fit: frameworks take what there is. Convolutions: no layer's memory is forecast here"),
        null=Null(value=round(min(null[:2]), 3), what="every packing fits"),
        bar=BAR, holds=min(precision, recall) >= 0.95 and 0 < sum(true) < len(true), reproduced="yes",
        seconds=round(spent.seconds, 2), command=command,
    )  # fmt: skip


def records(quick: bool) -> list[Record]:
    """Returns verdicts on own runs and on EasyScale's packings."""
    return [own(quick), packed(quick)]


if __name__ == "__main__":
    sys.exit(main(records))
