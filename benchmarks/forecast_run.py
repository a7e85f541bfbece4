"""How far forecasts of the engine are off what it does here: from `fleetcast measure` alone, and calibrated.

The calibration (`fleetcast calibrate`) sees four settings and is judged on the others. Settings and their split are
frozen in ``forecast_inputs.toml``. Each is run three times, interleaved, every run in a process of its own, with the
machine's load noted; a setting's time is the median of its runs. A setting whose own runs are more than 10 % apart is
discarded, unless most would be. A bar is never below 1.5 times the spread of the runs that are left. The null has one
speed for everything: tokens per second of a user, and of a prompt, both fitted on the same four settings.

    python -m benchmarks.forecast_run [--folder DIR] [--profile FILE] [--repeats N] [--only NAME ...] [--fresh]

Every run is kept as it ends, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks.records import ROOT, Null, Ours, Record, main, skipped
from fleetcast.base.host import cores
from fleetcast.base.spec import dump_toml, read_toml

SYSTEM = 5
COMMAND = "python -m benchmarks.forecast_run"
INPUTS = ROOT / "benchmarks" / "forecast_inputs.toml"
METRICS = {"tpot": "TPOT", "ttft": "TTFT"}
BARS = {
    ("measured", "tpot"): 0.10, ("measured", "ttft"): 0.20, ("calibrated", "tpot"): 0.05, ("calibrated", "ttft"): 0.10,
}  # fmt: skip
"""Median errors held to."""
NOISE = 1.5
"""A bar is at least so many times the median spread of the runs."""
QUICK = ("small-fp32-open", "small-bf16-closed", "small-fp32-closed", "small-bf16-open")


@dataclass(frozen=True)
class Point:
    """A setting's times, s: medians over its runs, and how far they are apart as a share of it."""

    name: str
    tpot: float
    ttft: float
    spread: Mapping[str, float]
    load: float
    prompt: float

    def kept(self, metric: str, most: float) -> bool:
        """Whether its runs agree."""
        return self.spread[metric] <= most


def inputs() -> dict[str, Any]:
    """Returns the frozen settings."""
    return read_toml(INPUTS.read_text(encoding="utf-8"), INPUTS.name)


def scenario_of(name: str, given: Mapping[str, Any], folder: Path, profile: Path, quick: bool) -> Path:
    """Writes a setting's model and scenario; returns the scenario's file."""
    model, dtype, traffic = name.split("-")
    home = folder / "scenarios" / name
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.json").write_text(json.dumps(given["models"][model]), encoding="utf-8")
    workload = {"model": "config.json", **given["traffic"][model][traffic]}
    if quick:
        workload["arrivals"] = dict(workload["arrivals"]) | {"requests": 8}
    made = {
        "seed": given["seed"], "fleet": {"devices": f"1x {os.path.relpath(profile.resolve(), home.resolve())}"},
        "workload": workload,
        "plan": {
            "replicas": 1, "tensor_parallel": 1, "pipeline_parallel": 1, "engine": "fleetcast", "dtype": dtype,
            "batch": given["policies"][given["settings"][name]],
        },
    }  # fmt: skip
    file = home / "scenario.toml"
    file.write_text(dump_toml(made), encoding="utf-8")
    return file


def fleetcast(*words: str, threads: int = 1) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own, with so many threads."""
    return subprocess.run(
        [sys.executable, "-m", "fleetcast", *words], capture_output=True, text=True, check=False, timeout=900,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip


def measured(
    names: Sequence[str], repeats: int, given: Mapping[str, Any], folder: Path, files: Mapping[str, Path], threads: int
) -> dict[str, str]:
    """Runs settings ``repeats`` times, interleaved, but for what is there already; returns why some cannot run."""
    refused: dict[str, str] = {}
    order = np.random.default_rng(given["seed"])
    for repeat in range(repeats):
        for i in order.permutation(len(names)):
            name = names[i]
            home = folder / "runs" / name / str(repeat)
            if (home / "load.json").is_file() or name in refused:
                continue
            shutil.rmtree(home, ignore_errors=True)
            before, begun = os.getloadavg()[0], time.time()
            done = fleetcast("run", str(files[name]), "--out", str(home), "--json", threads=threads)
            if done.returncode == 2:
                refused[name] = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                print(f"{name}: cannot be run: {refused[name]}", flush=True)
            if done.returncode not in (0, 1):
                print(f"{name}: ended with {done.returncode}; {done.stderr[-300:]}", flush=True)
                continue
            load = {"before": before, "after": os.getloadavg()[0], "wall": time.time() - begun}
            (home / "load.json").write_text(json.dumps(load), encoding="utf-8")
            times = json.loads((home / "outcome.json").read_text(encoding="utf-8"))["metrics"]
            print(
                f"run {repeat + 1} of {repeats}, {name}: TPOT {times['tpot']['mean'] * 1e3:.2f} ms, TTFT "
                f"{times['ttft']['mean'] * 1e3:.1f} ms, {load['wall']:.0f} s, load {before:.1f}", flush=True,
            )  # fmt: skip
    return refused


def points(names: Sequence[str], folder: Path) -> list[Point]:
    """Returns the settings that were run, with what their runs say."""
    found = []
    for name in names:
        homes = [home for home in sorted((folder / "runs" / name).glob("*")) if (home / "load.json").is_file()]
        if not homes:
            continue
        outcomes = [json.loads((home / "outcome.json").read_text(encoding="utf-8"))["metrics"] for home in homes]
        loads = [json.loads((home / "load.json").read_text(encoding="utf-8"))["before"] for home in homes]
        values = {metric: np.array([o[metric]["mean"] for o in outcomes]) for metric in METRICS}
        middle = {metric: float(np.median(v)) for metric, v in values.items()}
        spread = {metric: float((v.max() - v.min()) / middle[metric]) for metric, v in values.items()}
        prompt = outcomes[0]["prompt_tokens"] / outcomes[0]["requests"]
        found.append(Point(name, middle["tpot"], middle["ttft"], spread, float(np.mean(loads)), prompt))
    return found


def forecasts(
    found: Sequence[Point], given: Mapping[str, Any], folder: Path, profile: Path, quick: bool
) -> dict[str, dict[str, float]]:
    """Returns the forecast times of each setting, s, from a profile."""
    from fleetcast.view.verbs import simulate

    made = {}
    for point in found:
        metrics = simulate(scenario_of(point.name, given, folder, profile, quick)).metrics
        made[point.name] = {metric: float(metrics[metric]["mean"]) for metric in METRICS}
    return made


def null(fitted: Sequence[Point], found: Sequence[Point]) -> dict[str, dict[str, float]]:
    """Returns what one speed for everything says: a user's tokens per second, and a prompt's, from ``fitted``."""
    token = float(np.exp(np.mean([np.log(p.tpot) for p in fitted])))
    prompt = float(np.exp(np.mean([np.log(p.ttft / p.prompt) for p in fitted])))
    return {p.name: {"tpot": token, "ttft": prompt * p.prompt} for p in found}


def middle(points: Sequence[Point], forecast: Mapping[str, Mapping[str, float]], metric: str) -> float:
    """Returns the median error as a share."""
    return float(np.median([abs(forecast[p.name][metric] / getattr(p, metric) - 1.0) for p in points]))


def settled(asked: Sequence[Point], metric: str, most: float) -> list[Point]:
    """Returns the settings whose runs are close enough together, or all where those are fewer than half.

    Where most of them would go, the machine is as unsteady as that for the rest too, and the bar says so by the spread.
    """
    kept = [p for p in asked if p.kept(metric, most)]
    return kept if 2 * len(kept) >= len(asked) else list(asked)


def run(
    folder: Path, profile: Path | None, repeats: int, only: Sequence[str], quick: bool, threads: int
) -> list[Record]:
    """Measures what is not there yet, forecasts, calibrates, and returns the records."""
    given = inputs()
    folder.mkdir(parents=True, exist_ok=True)
    own = profile or folder / "profile.toml"
    if not own.is_file():
        print("measuring this machine", flush=True)
        done = fleetcast("measure", "--threads", str(threads), "--out", str(own), threads=threads)
        if done.returncode:
            raise SystemExit(done.stderr)
    names = [name for name in given["settings"] if (not only or name in only) and (not quick or name in QUICK)]
    files = {name: scenario_of(name, given, folder, own, quick) for name in names}
    refused = measured(names, repeats, given, folder, files, threads)
    found = points(names, folder)
    if not found:
        why = next(iter(refused.values()), "nothing was run")
        return [skipped(system=SYSTEM, claim=claim(*key), bar=bar(key, 0.0), why=why, command=COMMAND) for key in BARS]
    split = set(given["fit"] if not quick else QUICK[:2])
    chosen = [p for p in found if p.name in split]
    fit = settled(chosen, "tpot", given["spread"])
    made = {"measured": forecasts(found, given, folder, own, quick), "null": null(fit, found)}
    calibrated = folder / "calibrated.toml"
    homes = [str(home) for p in fit for home in sorted((folder / "runs" / p.name).glob("*"))]
    done = fleetcast("calibrate", *homes, "--device", str(own), "--out", str(calibrated))
    print(done.stdout + done.stderr, flush=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    made["calibrated"] = forecasts(found, given, folder, calibrated, quick)
    for p in found:
        scenario_of(p.name, given, folder, own, quick)  # the scenarios as they were run
    show(found, made, split, given["spread"])
    return [record(key, found, made, split, given, repeats, refused, threads) for key in BARS]


def show(found: Sequence[Point], made: Mapping[str, Any], split: set[str], most: float) -> None:
    """Prints a row per setting: what was measured, how far each forecast is off."""
    print(f"{'setting':20} {'TPOT ms':>8} {'spread':>7} {'profile':>8} {'calibr.':>8} {'null':>8}   "
          f"{'TTFT ms':>8} {'spread':>7} {'profile':>8} {'calibr.':>8} {'null':>8}")  # fmt: skip
    for p in found:
        cells = []
        for metric in METRICS:
            value = getattr(p, metric)
            off = [f"{made[k][p.name][metric] / value - 1:+8.1%}" for k in ("measured", "calibrated", "null")]
            mark = " " if p.kept(metric, most) else "x"
            cells.append(f"{value * 1e3:8.2f} {p.spread[metric]:6.1%}{mark} {' '.join(off)}")
        print(f"{p.name:20} {'   '.join(cells)}  {'fit' if p.name in split else ''} load {p.load:.1f}")


def claim(kind: str, metric: str) -> str:
    """Returns the claim of a record."""
    how = "from fleetcast measure alone" if kind == "measured" else "after calibration on four settings, on the others"
    return f"{METRICS[metric]} of the engine on this machine {how}, median error"


def bar(key: tuple[str, str], spread: float) -> str:
    """Returns the bar in words."""
    return f"at most {max(BARS[key], NOISE * spread):.1%} ({BARS[key]:.0%}, or 1.5 times the runs' own spread)"


def record(
    key: tuple[str, str], found: Sequence[Point], made: Mapping[str, Any], split: set[str], given: Mapping[str, Any],
    repeats: int, refused: Mapping[str, str], threads: int,
) -> Record:  # fmt: skip
    """Returns the record of a kind of forecast and a metric."""
    kind, metric = key
    asked = [p for p in found if kind == "measured" or p.name not in split]
    kept = settled(asked, metric, given["spread"])
    apart = sum(not p.kept(metric, given["spread"]) for p in asked)
    spread = float(np.median([p.spread[metric] for p in kept]))
    error = middle(kept, made[kind], metric)
    worst = max(abs(made[kind][p.name][metric] / getattr(p, metric) - 1.0) for p in kept)
    parts = [f"worst {worst:.1%}", f"runs {spread:.1%} apart, median"]
    if len(kept) < len(asked):
        parts.append(f"{apart} of {len(asked)} settings discarded, runs too far apart")
    elif apart:
        parts.append(
            f"the runs of {apart} of {len(asked)} settings are more than {given['spread']:.0%} apart: none discarded"
        )
    if refused:
        parts.append(f"not run: {', '.join(refused)}")
    return Record(
        system=SYSTEM, claim=claim(*key),
        ours=Ours(
            value=round(100 * error, 3), unit="%", spread="; ".join(parts),
            setting=f"{len(kept)} settings x {repeats} runs, interleaved, mean load "
            f"{np.mean([p.load for p in kept]):.1f}, {threads} threads; 28 M and 125 M parameters, random weights",
        ),
        null=Null(
            value=round(100 * middle(kept, made["null"], metric), 3),
            what="one speed for everything, fitted on the same four",
        ),
        bar=bar(key, spread), holds=bool(error <= max(BARS[key], NOISE * spread)), reproduced="other setting",
        reason="no paper's figure: our own engine on this machine", command=COMMAND,
    )  # fmt: skip


def own() -> argparse.ArgumentParser:
    """Returns the options of this script beside ``--json`` and ``--quick``."""
    parser = argparse.ArgumentParser(add_help=False, usage=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where runs are kept; default build/forecast_run")
    parser.add_argument("--profile", type=Path, help="a profile that was measured already")
    parser.add_argument("--threads", type=int, default=cores(), help="of the engine; default all cores")
    parser.add_argument("--repeats", type=int, help="runs of each setting; default three")
    parser.add_argument("--only", nargs="*", default=(), help="names of settings")
    parser.add_argument("--fresh", action="store_true", help="forget the runs that are there")
    return parser


OPTIONS = own().parse_args([])


def records(quick: bool) -> list[Record]:
    """Returns the records; a quick run has four short settings, run twice."""
    repeats = OPTIONS.repeats or (2 if quick else inputs()["repeats"])
    with tempfile.TemporaryDirectory() as name:
        folder = OPTIONS.folder or (Path(name) if quick else ROOT / "build" / "forecast_run")
        if OPTIONS.fresh:
            shutil.rmtree(folder / "runs", ignore_errors=True)
        return run(folder, OPTIONS.profile, repeats, OPTIONS.only, quick, OPTIONS.threads)


if __name__ == "__main__":
    OPTIONS, sys.argv[1:] = own().parse_known_args()
    sys.exit(main(records))
