"""How far forecasts are off runs that no table of the project holds: recalled or read, and used for nothing else.

Each run goes through the keys of a scenario alone, so the rules that complete a plan are tested with the costs. LLM
Foundry's rows of 8-bit products are here too: the devices' fit leaves them out.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np
from numpy.typing import NDArray

from benchmarks.records import Null, Ours, Record, cpu_seconds, data_path, main
from benchmarks.training_data import H100, Run, foundry, system
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.step import step
from fleetcast.scenario.load import load_training
from fleetcast.scenario.outcome import Outcome
from fleetcast.sim.training.completing import columns, complete
from fleetcast.sim.training.setting import Setting, setting
from fleetcast.sim.training.world import simulate

COMMAND = "python -m benchmarks.recalled_training"
RUNS = Path(__file__).parent / "recalled_training.toml"


def records(quick: bool) -> list[Record]:
    """Returns the errors on recalled runs, and on 8-bit rows where the published tables are there."""
    start = cpu_seconds()
    found = [recalled()]
    if data_path("training") is not None:
        found.append(byte_wide())
    took = round((cpu_seconds() - start) / len(found), 2)
    return [Record(**{**{f: getattr(r, f) for f in r.__struct_fields__}, "seconds": took}) for r in found]


def state(run: dict[str, Any]) -> Setting:
    """Returns one run of the file as a scenario, resolved."""
    work = {"kind": "training", "model": run["model"], "sequence": run["sequence"], "batch": run["batch"]}
    fleet = {"devices": run["devices"]} | {name: run[name] for name in ("links",) if name in run}
    return setting(load_training({"fleet": fleet, "workload": work, "plan": run["plan"]}))


def planned(run: dict[str, Any]) -> tuple[Setting, Job, Plans, float]:
    """Returns one run of the file resolved, its job, its plan completed as any scenario's, and its measured seconds."""
    found = state(run)
    made = complete(found, found.scenario.plan).plan
    return found, found.job(str(made.dtype)), columns(made), measured(run, simulate(found))


def measured(run: dict[str, Any], found: Outcome) -> float:
    """Returns the run's measured seconds of an iteration from what its source prints."""
    if "seconds" in run:
        return float(run["seconds"])
    metrics = found.metrics
    if "tokens_per_device" in run:
        return float(metrics["tokens"] / (run["tokens_per_device"] * metrics["devices"]))
    name = "mfu" if "mfu" in run else "hfu"
    return float(metrics[name] * metrics["iteration_time"] / run[name])


def recalled() -> Record:
    """Returns the errors on the runs of the file."""
    with RUNS.open("rb") as file:
        runs = tomllib.load(file)["run"]
    found = [simulate(state(run)) for run in runs]
    taken = np.array([measured(run, o) for run, o in zip(runs, found, strict=True)])
    off = np.array([o.metrics["iteration_time"] for o in found]) / taken - 1.0
    work = np.array([o.metrics["flops"] / o.metrics["devices"] for o in found])
    plain = constant(work / taken, [f"{run['devices'].split()[-1]}" for run in runs])
    said = ", ".join(f"{run['name']} {100 * e:+.1f}" for run, e in zip(runs, off, strict=True))
    refused = [run["name"] for run, o in zip(runs, found, strict=True) if not o.metrics["fits"]]
    return Record(
        system=39, claim="iteration time of thirteen runs recalled from papers or read, used for nothing else",
        ours=Ours(value=mean(off), unit="%", spread=f"mean bias {100 * off.mean():+.1f} %: {said}",
                  setting=f"plans through scenario keys alone; said not to fit: {'; '.join(refused) or 'none'}"),
        null=Null(value=mean(plain), what="one constant FLOP/s per kind of device, the median of its other runs"),
        bar="mean at most 15 %, and below the null", holds=bool(mean(off) <= 15 and mean(off) < mean(plain)),
        reproduced="other setting", reason="what the sources do not print is assumed; the file says what was recalled",
        command=COMMAND,
    )  # fmt: skip


def byte_wide() -> Record:
    """Returns the errors on LLM Foundry's seven rows whose products are 8 bits wide."""
    runs = foundry(wide=8)
    off, plain = (errors(runs, dtype) for dtype in ("fp8", "bf16"))
    said = ", ".join(f"{r.label[len('h100_80gb ') :]} {100 * e:+.0f}" for r, e in zip(runs, off, strict=True))
    return Record(
        system=39, claim="iteration time of LLM Foundry's seven fp8 rows, to which nothing is fitted",
        ours=Ours(value=mean(off), unit="%", spread=said, setting="1B and 3B on 8 H100s, Transformer Engine"),
        null=Null(value=mean(plain), what="the forecast in bf16: 8 bits change nothing"),
        bar="mean at most 15 %, and below the null", holds=bool(mean(off) <= 15 and mean(off) < mean(plain)),
        reproduced="yes", command=COMMAND,
    )  # fmt: skip


def errors(runs: Sequence[Run], dtype: str) -> NDArray[np.float64]:
    """Returns predicted over measured, less one, with the products in ``dtype``."""
    jobs = [Job(r.job.sequence, r.job.batch, dtype=dtype, message=r.job.message) for r in runs]
    return np.array([
        step(r.network, job, r.plan, system(H100, r.devices))["total"][0] / r.seconds - 1.0
        for r, job in zip(runs, jobs, strict=True)
    ])  # fmt: skip


def constant(rate: NDArray[np.float64], kinds: Sequence[str]) -> NDArray[np.float64]:
    """Returns the errors of one rate per kind of device, the median of the other runs on it."""
    names, rows = np.array(kinds), np.arange(len(rate))
    guess = [np.median(rate[(names == names[i]) & (rows != i)]) for i in rows]
    return np.asarray(rate / np.array(guess) - 1.0)


def mean(off: NDArray[np.float64]) -> float:
    """Returns the mean absolute error, %."""
    return round(100.0 * float(np.abs(off).mean()), 1)


if __name__ == "__main__":
    sys.exit(main(records))
