"""One application on three emulated tiers with three sizes of model: forecast first, then measured.

Sensor logs are synthetic and frozen. The models are trained once, in a minute or two each, and then kept; the tiers are
this machine with a CPU quota, a memory limit and a shaping proxy. Run it on an idle one: the cloud has its own core.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks.records import Null, Ours, Paper, Record, main, skipped, timer
from fleetcast.base.errors import FleetcastError
from fleetcast.base.host import waiting
from fleetcast.runtime.measure.machine import this_machine
from fleetcast.runtime.measure.trial import TIERS, contexts, small
from fleetcast.search.tiers import trial

SYSTEM = 19
COMMAND = "python -m benchmarks.tier_trial"
LOGS, BEFORE = 40, 20
"""Logs asked in each cell, and to calibrate with."""
ERROR = "median error of the latency forecast per tier and model, three emulated tiers"
ORDER = "model sizes for which latency falls from device to edge to cloud, emulated tiers"
FITS = "cells of tier and model in which the memory's verdict was foretold"
QUALITY = "right contexts told from synthetic sensor logs, largest model that runs on the device tier"
BARS = {
    ERROR: "at most 20 % in the median, and below the null", ORDER: "all",
    FITS: "all, and the largest model does not run on the device", QUALITY: "above the null",
}  # fmt: skip


def show(found: trial.Trial) -> None:
    """Prints the cells."""
    print("tier    model    mean ms  p50 ms  p90 ms  forecast  right  mapped MB (forecast)  held by")
    for row in found.table()["cells"]:
        head = f"{row['tier']:<8}{row['model']:<8}"
        if not row["fits"]:
            print(f"{head} does not fit (forecast {row['forecast_mapped'] / 1e6:.0f} MB)")
            continue
        times = "".join(f"{1e3 * row[name]:>8.0f}" for name in ("mean", "p50", "p90"))
        told = f"{1e3 * row['forecast']:.0f}" if row["forecast"] is not None else "-"
        size = f"{row['memory']['mapped'] / 1e6:.0f} ({row['forecast_mapped'] / 1e6:.0f})"
        print(f"{head}{times}{told:>10}{row['quality']:>7.0%}{size:>22}  {row['cpu_held_by']}")
    for k in found.known:
        print(f"{k.name}: {k.model.params() / 1e6:.2f}M, {1e3 * k.seconds:.1f} ms at full speed, CPU {1e3 * k.cpu:.1f}")


def records(quick: bool) -> list[Record]:
    """Returns the claims of system 19."""
    count = 5 if quick else LOGS
    logs = contexts.logs(count, small.SEEDS[1])
    before = contexts.logs(5 if quick else BEFORE, small.SEEDS[2])
    load = waiting()
    with timer() as spent:
        try:
            models = {size.name: small.trained(size) for size in (small.QUICK if quick else small.SIZES)}
            found = trial.run(models, logs, before)
        except FleetcastError as error:
            return [skipped(system=SYSTEM, claim=name, bar=bar, why=str(error)) for name, bar in BARS.items()]
    show(found)
    off, plain = (np.abs(errors) for errors in found.errors())
    rows = found.table()["cells"]
    by = sorted({row["cpu_held_by"] for row in rows if row["fits"]} - {"none"})
    where = (
        f"{this_machine().name}, load {load:.1f} a core; synthetic logs, {count} a cell; "
        f"{', '.join(f'{k.name} {k.model.params() / 1e6:.2f}M' for k in found.known)} parameters, fp32, one thread; "
        f"{', '.join(f'{t.name} {t.share:.0%} of a core{_by(t.links)}' for t in TIERS)}; CPU held by {', '.join(by)}, "
        f"memory by RLIMIT_DATA, links by a proxy"
    )
    median = {(row["tier"], row["model"]): 1e3 * row["p50"] for row in rows if row["fits"]}
    times = "; ".join(
        f"{k.name} " + ", ".join(f"{t.name} {median[t.name, k.name]:.0f}" if (t.name, k.name) in median else
                                 f"{t.name} does not fit" for t in TIERS)
        for k in found.known
    ) + " ms"  # fmt: skip
    order, cells = found.in_order(), len(found.cells)
    device = [row for row in rows if row["tier"] == TIERS[0].name and row["fits"]]
    largest = not found.cells[TIERS[0].name, found.known[-1].name].fits
    memory = np.abs(found.memory_errors())
    qualities = {row["model"]: row["quality"] for row in rows if row["fits"]}
    best = float(np.mean([contexts.likeliest(log) == log.context for log in logs]))
    emulated = "emulated tiers and models of our own; the paper has phones, edge boxes and cloud APIs"
    return [
        Record(
            system=SYSTEM, claim=ERROR,
            ours=Ours(
                value=round(100 * float(np.median(off)), 1), unit="%",
                spread=f"worst {100 * off.max():.0f} %, {int((off <= 0.2).sum())} of {len(off)} cells within 20 %; "
                + times,
                setting=where,
            ),
            null=Null(value=round(100 * float(np.median(plain)), 1), what="the latency at full speed, without a link"),
            bar=BARS[ERROR], holds=bool(np.median(off) <= 0.2 and np.median(off) < np.median(plain)),
            reproduced="other setting", reason="the paper forecasts nothing", seconds=spent.seconds, command=COMMAND,
        ),
        Record(
            system=SYSTEM, claim=ORDER, paper=Paper(setting="> 30 s on phones, < 10 s from the cloud, edge between"),
            ours=Ours(value=sum(order.values()), unit=f"of {len(order)}", spread=times, setting=where),
            null=Null(value=0, what="all tiers alike: none is in order"),
            bar=BARS[ORDER], holds=all(order.values()) and len(order) == len(found.known),
            reproduced="other setting", reason=emulated, command=COMMAND,
        ),
        Record(
            system=SYSTEM, claim=FITS, paper=Paper(setting="only models below 4B run on a phone"),
            ours=Ours(
                value=found.fits_told(), unit=f"of {cells}",
                spread=f"bytes mapped foretold from the smallest model: worst error {100 * memory.max():.0f} %"
                if len(memory) else None,
                setting=where,
            ),
            null=Null(value=sum(cell.fits for cell in found.cells.values()), what="every model fits every tier"),
            bar=BARS[FITS], holds=found.fits_told() == cells and largest,
            reproduced="other setting", reason=emulated, command=COMMAND,
        ),
        Record(
            system=SYSTEM, claim=QUALITY,
            ours=Ours(
                value=round(100 * device[-1]["quality"], 1) if device else 0.0, unit="%",
                spread=", ".join(f"{name} {value:.0%}" for name, value in qualities.items())
                + f"; the tables' own posterior {best:.0%}",
                setting=where,
            ),
            null=Null(value=round(100 * found.usual(), 1), what="always the most common context"),
            bar=BARS[QUALITY], holds=bool(device and device[-1]["quality"] > found.usual()),
            reproduced="other setting", reason="synthetic logs and small models of our own", command=COMMAND,
        ),
    ]  # fmt: skip


def _by(links: tuple[str, ...]) -> str:
    return f" behind {' and '.join(links)}" if links else ""


if __name__ == "__main__":
    sys.exit(main(records))
