"""One fleet and one breaker: jobs, a service and functions together; POLCA's question asked of all of them.

Jobs are synthetic (the packaged generator), traffic is a day's wave over Poisson arrivals, functions are the frozen
generator's. A breaker that carries 64 GPUs at full power is given ever more of them.
"""

from __future__ import annotations

import sys
import tempfile
from importlib import resources
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import fleetcast
from benchmarks.records import Null, Ours, Paper, Record, main, timer

COMMAND = "python -m benchmarks.one_fleet"
GPUS, WATTS, REST = 64, 400.0, 8 * 360.0
SEEDS = (0, 1, 2)


def shown(name: str) -> str:
    """Returns the text of a packaged example."""
    return (resources.files("fleetcast") / "view" / "examples" / f"{name}.toml").read_text()


def played(changes: dict[str, dict[str, str]], seed: int = 0) -> dict[str, Any]:
    """Returns the metrics of one-fleet with words of its three files replaced."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("one-fleet", "chat", "web"):
            text = shown(name)
            for old, new in changes.get(name, {}).items():
                assert old in text, f"{name} does not say {old}"
                text = text.replace(old, new)
            (Path(folder) / f"{name}.toml").write_text((f"seed = {seed}\n" if name == "one-fleet" else "") + text)
        return dict(fleetcast.simulate(fleetcast.load(Path(folder) / "one-fleet.toml")).metrics)


BUSY = {'every = "8 min"': 'every = "5 min"', 'share = ["fifo", "easy", "srtf"]': 'share = "easy"'}
BUDGET = f"{(GPUS * WATTS + REST) / 1e3:.2f} kW"


def together(quick: bool) -> list[Record]:
    """What a change in one of the three does to the jobs."""
    seeds = SEEDS[:1] if quick else SEEDS
    changes: dict[str, dict[str, dict[str, str]]] = {
        "the service's replicas hold 8 devices instead of 4": {
            "chat": {"replicas = 2\ntensor_parallel = 4": "replicas = 1\ntensor_parallel = 8"}
        },
        "the service has four times the traffic": {"chat": {'rate = "3 /s"': 'rate = "12 /s"'}},
        "functions stay warm for an hour instead of a minute": {"web": {"keep = 60": "keep = 3600"}},
        "the breaker carries 20 kW instead of 26": {"one-fleet": {'budget = "26 kW"': 'budget = "20 kW"'}},
    }
    with timer() as spent:
        base = [played({"one-fleet": BUSY}, seed) for seed in seeds]
        found = {}
        for said, change in changes.items():
            mine = {**change, "one-fleet": BUSY | change.get("one-fleet", {})}
            found[said] = [played(mine, seed) for seed in seeds]

    def ratio(rows: list[dict[str, Any]], path: str) -> float:
        if path == "jct":
            return float(mean(r["jct"]["mean"] / b["jct"]["mean"] for r, b in zip(rows, base, strict=True)))
        return float(mean(r[path] / b[path] for r, b in zip(rows, base, strict=True)))

    setting = "; ".join(
        f"{said}: jobs {ratio(rows, 'jct'):.3f} x, energy {ratio(rows, 'energy'):.3f} x" for said, rows in found.items()
    )
    moved = sum(abs(ratio(rows, "jct") - 1) > 1e-6 or abs(ratio(rows, "energy") - 1) > 1e-6 for rows in found.values())
    return [
        Record(
            system=11, claim="Changes to a service, to functions and to the breaker that show in the jobs beside them",
            paper=Paper(setting="no paper's claim"), ours=Ours(value=moved, unit=f"of {len(changes)}", setting=setting),
            null=Null(value=0, what="each simulated by itself"), bar="all", holds=moved == len(changes),
            reproduced="other setting", reason="a check of our own world", seconds=spent.seconds, command=COMMAND,
        )
    ]  # fmt: skip


POLICIES = {
    "uncapped": '"uncapped"', "polca": '"polca"',
    "deeper": '{ kind = "polca", low_first = 0.8, low_second = 0.55, hysteresis = 0.3 }',
}  # fmt: skip
"""POLCA as published, and for training, which draws its full power all the time: lower clocks, given back later."""


def oversubscribed(quick: bool) -> list[Record]:
    """How many more GPUs live under a breaker before it brakes, and what jobs gain."""
    seeds = SEEDS[:1] if quick else SEEDS
    hurry = 'every = "3 min"'
    words = BUSY | {'budget = "26 kW"': f'budget = "{BUDGET}"', 'every = "8 min"': hurry}

    def rows(gpus: int, power: str) -> list[dict[str, Any]]:
        change = words | {f'"{GPUS}x a100': f'"{gpus}x a100', 'power = "polca"': f"power = {power}"}
        return [played({"one-fleet": change}, seed) for seed in seeds]

    with timer() as spent:
        few = rows(GPUS, '"uncapped"')
        most, last = {}, {}
        for name, power in POLICIES.items():
            for gpus in range(GPUS, GPUS + 28, 4):
                found = rows(gpus, power)
                if any(r["brakes"] for r in found):
                    break
                most[name], last[name] = gpus / GPUS - 1, found

    def gain(name: str) -> str:
        if name not in last:
            return "none"
        ratio = mean(r["jct"]["mean"] / f["jct"]["mean"] for r, f in zip(last[name], few, strict=True))
        return f"{most[name]:+.0%}, jobs take {ratio:.2f} x"

    return [
        Record(
            system=11, claim="GPUs beyond what a breaker carries before it brakes, jobs and a service under POLCA",
            paper=Paper(value=0.3, unit="share", setting="a row of inference servers"),
            ours=Ours(
                value=most.get("deeper", 0.0), unit="share",
                setting=f"clocks 0.8 and 0.55, hysteresis 0.3: {gain('deeper')}; as published (0.90, 0.79, 0.05): "
                f"{gain('polca')}; {len(seeds)} seeds, {BUDGET} for {GPUS} x A100 and 8 CPUs",
            ),
            null=Null(value=most.get("uncapped", 0.0), what=f"uncapped: {gain('uncapped')}"),
            bar="more than uncapped, no brakes", holds=most.get("deeper", 0.0) > most.get("uncapped", 0.0),
            reproduced="other setting",
            reason="training draws its full power all the time: clocks must fall further, and be given back later; the "
            "paper's 30 % is for inference. Readings every 300 s and at every change",
            seconds=spent.seconds, command=COMMAND,
        )
    ]  # fmt: skip


def records(quick: bool = False) -> list[Record]:
    """Returns what this script measures."""
    return [*together(quick), *oversubscribed(quick)]


if __name__ == "__main__":
    sys.exit(main(records))
