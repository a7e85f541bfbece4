"""Fits ``cost/coefficients/training.toml``: what training adds to the kernels' curves on A100s and H100s.

    python benchmarks/fit/training.py

A100: vTrain's 51 rows of several nodes and every 28th of its 1,440 rows of one node; then fused attention and
PyTorch's own kernels on LLM Foundry's A100 rows. H100: LLM Foundry's bf16 rows; then Megatron-LM's attention and 8-bit
products on the open half of recalled runs of its kind (`recalled_training.toml`). Anything else: the geometric mean of
the two. The tables that are forecast with the result (SC 2021, selective recompute, MegaScale) are in none of the fits.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
from scipy.optimize import least_squares

from benchmarks.recalled_training import RUNS, fits, planned
from benchmarks.training_data import Run, costed, foundry, seconds, vtrain
from fleetcast.cost.intervals import Z80
from fleetcast.cost.training.fit import FACTORS, SCALE, Calibration, fit, take
from fleetcast.cost.training.step import settle, step
from fleetcast.cost.training.system import Practice

MEGATRON = Practice(kernel=4e-5, pace=4e-5, gap=1e-5)
"""Before any fit, for a host that runs Megatron's Python: read off vTrain's smallest layers."""
PYTORCH = Practice(kernel=1e-5, pace=2e-5, gap=3e-6)
"""The same for PyTorch's FSDP; assumed, as its rows are never bound by the host."""
PYTORCHS = ("fused", "narrow", "eager")
MEGATRONS = ("", "nemo")
"""Origins of recalled runs on H100s with tensor and pipeline parallelism of Megatron-LM's kind; "" = the first list."""
FITTED = [name for name in FACTORS if name != "flash"]
WRITTEN = (*FACTORS, "eight")
WEIGHT = 20.0
EVERY = 28
ELSEWHERE = 2.0
"""How much wider an interval is on devices where no training was measured; assumed."""
FILE = Path(__file__).resolve().parents[2] / "src/fleetcast/cost/coefficients/training.toml"


def ampere() -> tuple[Calibration, Calibration]:
    """Returns what vTrain's rows say, and what fused attention takes beside that."""
    runs = vtrain("multi") + vtrain("single")[::EVERY]
    first = fit(
        *costed(runs, MEGATRON), seconds(runs), MEGATRON, [n for n in FITTED if n not in PYTORCHS], weight=WEIGHT
    )
    flash = [r for r in foundry() if r.tags["gpu"] == "a100"]
    return first, fit(*costed(flash, MEGATRON), seconds(flash), first.practice, PYTORCHS, weight=WEIGHT)


def hopper() -> Calibration:
    """Returns what LLM Foundry's H100 rows say."""
    runs = [r for r in foundry() if r.tags["gpu"] == "h100"]
    return fit(*costed(runs, PYTORCH), seconds(runs), PYTORCH, FITTED, weight=WEIGHT)


def megatron(prior: Practice, names: Sequence[str], devices: str, origins: Sequence[str]) -> Practice:
    """Returns ``prior`` with factors fitted on open recalled runs on ``devices``, robustly."""
    with RUNS.open("rb") as file:
        rows = [r for r in tomllib.load(file)["run"] if r.get("half", "open") == "open" and devices in r["devices"]]
    cases = [planned(r) for r in rows if r.get("origin", "") in origins]

    def made(x: Any) -> Practice:
        said: dict[str, Any] = {name: float(value) for name, value in zip(names, x, strict=True)}
        return replace(prior, **said)

    def off(x: Any) -> Any:
        practice = made(x)
        return [
            np.log(step(s.network, job, plan, replace(s.system, practice=practice))["total"][0] / took)
            for s, job, plan, took in cases
        ]  # fmt: skip

    found = least_squares(off, np.ones(len(names)), loss="soft_l1", f_scale=SCALE)
    print("Megatron-LM's on", devices, f"{len(cases)} runs, mean {np.abs(off(found.x)).mean():.3f}")
    return made(found.x)


def spread(runs: Sequence[Run], prior: Practice) -> float:
    """Returns the standard deviation of log(time) that forecasts leave of groups of runs that a fit did not see.

    Of a normal distribution as wide in its middle 80 %: rows that something else slowed down count as rows, no more.
    """
    table, plan = costed(runs, prior)
    took, groups, off = seconds(runs), np.array([r.group for r in runs]), np.zeros(len(runs))
    for group in np.unique(groups):
        out = np.flatnonzero(groups == group)
        seen = np.flatnonzero(groups != group)
        found = fit(*take(table, plan, seen), took[seen], prior, FITTED, weight=WEIGHT).practice
        left, rows = take(table, plan, out)
        off[out] = np.abs(np.log(settle(left, rows, found)["total"] / took[out]))
    return float(np.quantile(off, 0.8)) / Z80


def abroad(architecture: str, known: Mapping[str, Practice]) -> float:
    """Returns the same of open recalled runs that no factor was fitted on: other teams' frameworks and clusters."""
    with RUNS.open("rb") as file:
        rows = [r for r in tomllib.load(file)["run"] if r.get("half", "open") == "open" and not fits(r)]
    off = []
    for row in rows:
        s, job, plan, took = planned(row)
        own = s.group.device.architecture
        if (own if own in known else "generic") == architecture:
            system = replace(s.system, practice=known[architecture])
            off.append(abs(np.log(step(s.network, job, plan, system)["total"][0] / took)))
    return float(np.quantile(off, 0.8)) / Z80


def main() -> int:
    """Writes the file."""
    (first, second), other = ampere(), hopper()
    slim = second.practice.narrow / second.practice.fused  # no H100 row has heads of 64; none is Megatron-LM's
    known = replace(other.practice, narrow=slim * other.practice.fused, vector=other.practice.eager)
    known = megatron(known, ("flash", "eight"), "h100", MEGATRONS)
    spreads = {
        "ampere": spread(vtrain("multi"), MEGATRON),
        "hopper": spread([r for r in foundry() if r.tags["gpu"] == "h100"], PYTORCH),
    }  # fmt: skip
    vtrain_said = "vTrain's measurements (MIT), 51 rows of several nodes and 52 of one"
    found = {
        "ampere": (
            replace(first.practice, flash=second.practice.fused, **{n: getattr(second.practice, n) for n in PYTORCHS}),
            f"{vtrain_said}; fused attention, PyTorch's kernels: LLM Foundry's A100 rows (Apache-2.0)",
        ),
        "hopper": (
            known,
            "LLM Foundry's 70 bf16 rows on H100s (Apache-2.0); flash, eight: 14 runs of Megatron-LM, NeMo and Llama 3",
        ),
    }  # fmt: skip
    wide = ELSEWHERE * max(spreads.values())
    mean: dict[str, Any] = {
        n: float(np.sqrt(getattr(found["ampere"][0], n) * getattr(found["hopper"][0], n))) for n in WRITTEN
    }
    mean |= {"kernel": PYTORCH.kernel, "pace": PYTORCH.pace}
    found["generic"] = (replace(PYTORCH, **mean), "geometric mean of A100 and H100; host: assumed")
    known_by = {name: practice for name, (practice, _) in found.items()}
    spreads = {n: max(value, abroad(n, known_by)) for n, value in (spreads | {"generic": wide}).items()}
    blackwell = megatron(found["generic"][0], ("flash",), "b200", ("bridge",))
    lines = ["# Written by benchmarks/fit/training.py; do not edit. Seconds, and factors on times of kernels' curves."]
    for name in ("generic", "ampere", "hopper"):
        practice, source = found[name]
        lines += ["", f"[{name}]", f'source = "{source}"', f"spread = {spreads[name]:.3f}"]
        lines += [f"{n} = {float(f'{getattr(practice, n):.4g}')!r}" for n in WRITTEN]
    source = "as generic; flash: five recalled runs of Megatron-LM on B200s and GB200s"
    lines += ["", "[blackwell]", f'source = "{source}"', f"spread = {spreads['hopper']:.3f}"]
    lines += [f"flash = {float(f'{blackwell.flash:.4g}')!r}"]
    lines += ["", "[blackwell-ultra]", 'source = "as blackwell"', *lines[-2:]]
    FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, c in (("vTrain", first), ("fused", second), ("H100", other)):
        print(name, f"mean {np.abs(c.residual).mean():.3f}, median {np.median(np.abs(c.residual)):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
