"""How far forecasts are off runs that no table of the project holds: recalled or read, and used for nothing else.

Each run goes through the keys of a scenario alone, so the rules that complete a plan are tested with the costs. LLM
Foundry's rows of 8-bit products are here too: the devices' fit leaves them out.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np
from numpy.typing import NDArray

from benchmarks.records import Null, Ours, Record, cpu_seconds, data_path, main
from benchmarks.training_data import H100, Run, foundry, system
from fleetcast.cost.intervals import Z80
from fleetcast.cost.training.network import Job
from fleetcast.cost.training.plans import Plans
from fleetcast.cost.training.step import step
from fleetcast.scenario.load import load_training
from fleetcast.scenario.outcome import Outcome
from fleetcast.sim.training.completing import columns, complete
from fleetcast.sim.training.setting import Setting, setting
from fleetcast.sim.training.world import simulate

COMMAND = "python -m benchmarks.recalled_training"
ALIKE = 0.089
"""Standard deviation of log(time) that the fits leave of held-out groups of the tables they were fitted on."""
RUNS = Path(__file__).parent / "recalled_training.toml"


def records(quick: bool) -> list[Record]:
    """Returns the errors on recalled runs, and on 8-bit rows where the published tables are there."""
    start = cpu_seconds()
    table = Table.read()
    found = [recalled(table, "open"), recalled(table, "kept"), covered(table)]
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


@dataclass(frozen=True)
class Table:
    """The runs of the file, each with its forecast and its measured seconds."""

    runs: list[dict[str, Any]]
    states: list[Setting]
    found: list[Outcome]
    taken: NDArray[np.float64]

    @classmethod
    def read(cls) -> Table:
        """Returns the file's runs, forecast."""
        with RUNS.open("rb") as file:
            runs = tomllib.load(file)["run"]
        states = [state(run) for run in runs]
        found = [simulate(s) for s in states]
        return cls(runs, states, found, np.array([measured(r, o) for r, o in zip(runs, found, strict=True)]))

    def of(self, half: str) -> list[int]:
        """Returns the numbers of the runs of a half."""
        return [i for i, run in enumerate(self.runs) if run.get("half", "open") == half]


def covered(table: Table) -> Record:
    """Returns how many kept runs lie inside the 80 % interval of their forecast, its width from the open half."""
    inside, narrow = [], []
    for o, took in zip(table.found, table.taken, strict=True):
        low, high = o.intervals["iteration_time"]
        inside.append(low <= took <= high)
        narrow.append(abs(np.log(o.metrics["iteration_time"] / took)) <= Z80 * ALIKE)
    kept = table.of("kept")
    share = 100.0 * float(np.mean(np.array(inside)[kept]))
    return Record(
        system=39, claim="kept runs inside the 80 % interval of their forecast, whose width the open half set",
        ours=Ours(value=round(share, 1), unit="%",
                  setting=f"{len(kept)} runs; of all {len(inside)}, {100.0 * float(np.mean(inside)):.0f} %"),
        null=Null(value=round(100.0 * float(np.mean(np.array(narrow)[kept])), 1),
                  what="intervals as wide as what fits leave of runs of their own kind"),
        bar="at least 80 %", holds=share >= 80, reproduced="other setting",
        reason="what the sources do not print is assumed", command=COMMAND,
    )  # fmt: skip


def recalled(table: Table, half: str) -> Record:
    """Returns the errors on the runs of one half of the file."""
    runs, states, found = table.runs, table.states, table.found
    off = np.array([o.metrics["iteration_time"] for o in found]) / table.taken - 1.0
    used = (off + 1.0) * np.array([o.metrics["mfu"] for o in found])
    plain = constant(used, [
        f"{s.group.device.architecture} {o.plan['dtype']}" for s, o in zip(states, found, strict=True)
    ])  # fmt: skip
    mine = table.of(half)
    fitted = [i for i in mine if half == "open" and fits(runs[i])]
    free = [i for i in mine if i not in fitted]
    said = ", ".join(f"{runs[i]['name']} {100 * off[i]:+.1f}{'*' if i in fitted else ''}" for i in mine)
    refused = [runs[i]["name"] for i in mine if not found[i].metrics["fits"]]
    what = {
        "open": f"iteration time of {len(mine)} runs recalled or read, looked at while costs were worked on",
        "kept": f"iteration time of {len(mine)} runs recalled or read, kept apart until the costs were done",
    }[half]
    some = f"; the {len(fitted)} with a star helped to fit attention and 8-bit products, the others' mean is "
    return Record(
        system=39, claim=what,
        ours=Ours(value=mean(off[mine]), unit="%", spread=f"mean bias {100 * off[mine].mean():+.1f} %, median error "
                  f"{100 * np.median(np.abs(off[mine])):.1f} %: {said}",
                  setting=f"plans through scenario keys alone; said not to fit: {'; '.join(refused) or 'none'}"
                  f"{f'{some}{mean(off[free])} %' if fitted else ''}"),
        null=Null(value=mean(plain[mine]), what="one constant MFU per generation of device and number format, the "
                  "median of all other runs on it"),
        bar="mean at most 15 %, and below the null",
        holds=bool(mean(off[mine]) <= 15 and mean(off[mine]) < mean(plain[mine])),
        reproduced="other setting", reason="what the sources do not print is assumed; the file says what was recalled",
        command=COMMAND,
    )  # fmt: skip


def fits(run: dict[str, Any]) -> bool:
    """Returns whether a run of the open half helped to fit a factor (`benchmarks/fit/training.py`)."""
    hopper = "h100" in run["devices"] and run.get("origin", "") in ("", "nemo")
    return hopper or ("b200" in run["devices"] and run.get("origin") == "bridge")


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


def constant(used: NDArray[np.float64], kinds: Sequence[str]) -> NDArray[np.float64]:
    """Returns the errors of one MFU per kind, the median of the other runs of its kind, or of all where it is alone."""
    names, rows = np.array(kinds), np.arange(len(used))
    others = [(names == names[i]) & (rows != i) for i in rows]
    guess = [np.median(used[those] if those.any() else used) for those in others]
    return np.asarray(used / np.array(guess) - 1.0)


def mean(off: NDArray[np.float64]) -> float:
    """Returns the mean absolute error, %."""
    return round(100.0 * float(np.abs(off).mean()), 1)


if __name__ == "__main__":
    sys.exit(main(records))
