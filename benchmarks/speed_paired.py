"""Whether plain simulation has become slower since an older commit: a million requests, alternating runs of both.

    python -m benchmarks.speed_paired [--against COMMIT]

The older commit is built in a temporary folder. Each run is a process of its own that says how much CPU time the
simulation itself took; the figure is the median of the pairs' ratios. Needs git, the history and a C compiler.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

from benchmarks.records import ROOT, Null, Ours, Paper, Record, cpu_seconds, main, skipped

BASE = "58c987d"
"""The commit at which the spine was complete: everything before the serving papers."""
PAIRS, COUNT = 7, 1_000_000
PROGRAM = """
import sys, time
import numpy as np
from dataclasses import replace
from fleetcast.base.rng import rng
from fleetcast.scenario.load import load_serving
from fleetcast.scenario.workload.requests import requests
from fleetcast.sim.serving.setting import setting
from fleetcast.sim.serving.world import simulate
try:
    from fleetcast.sim.serving.completing import complete
except ImportError:  # where it lay before
    from fleetcast.sim.serving.setting import complete

count = int(sys.argv[1])
draw = rng(0, "speed")
arrival = np.cumsum(draw.exponential(0.2, count))
prompt = np.minimum(draw.lognormal(6.5, 1.0, count), 8000).astype(int) + 1
output = np.minimum(draw.lognormal(5.0, 0.9, count), 1500).astype(int) + 1
state = setting(load_serving({
    "fleet": {"devices": "8x h100-sxm"},
    "workload": {"model": "llama-3.1-70b", "arrivals": {"kind": "poisson", "rate": 1.0, "requests": 100},
                 "lengths": {"kind": "fixed", "prompt": 500, "output": 100}},
    "plan": {"replicas": 1, "tensor_parallel": 8, "pipeline_parallel": 1},
}))
plan = complete(state, state.scenario.plan)
simulate(state, plan)
state = replace(state, requests=requests(arrival, prompt, output))
start = time.process_time()
outcome = simulate(state, plan)
print(time.process_time() - start, outcome.metrics["e2e"]["mean"])
"""


def built(commit: str, folder: Path) -> Path:
    """Returns where ``commit`` lies installed, its hot loops compiled.

    Raises:
        OSError: no git, an unknown commit, or no way to build it.
    """
    source, site = folder / "source", folder / "site"
    try:
        git = ["git", "-C", str(ROOT)]
        archive = subprocess.run([*git, "archive", commit], check=True, capture_output=True).stdout
        source.mkdir()
        subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(source)]
        subprocess.run(pip, check=True, capture_output=True)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        raise OSError(f"{commit} cannot be built: {error}") from None
    return site


def once(site: Path, count: int) -> tuple[float, float]:
    """Returns CPU seconds of one simulation with the package at ``site``, and its mean time of a request, s."""
    environment = os.environ | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-c", PROGRAM, str(count)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=site)
    seconds, mean = out.stdout.split()
    return float(seconds), float(mean)


def records(quick: bool) -> list[Record]:
    """Returns the ratio of today's CPU time to the older commit's."""
    start, command = cpu_seconds(), "python -m benchmarks.speed_paired"
    claim = "CPU time of a million plain requests over that of the commit before the serving papers, median of pairs"
    bar = "at most 1.1"
    against = os.environ.get("FLEETCAST_AGAINST", BASE)
    count, pairs = (COUNT // 10, 3) if quick else (COUNT, PAIRS)
    with tempfile.TemporaryDirectory() as place:
        try:
            then = built(against, Path(place))
        except OSError as error:
            return [skipped(system=5, claim=claim, bar=bar, why=str(error), command=command)]
        now = ROOT / "src"
        found = [(once(then, count), once(now, count)) for _ in range(pairs)]
        shutil.rmtree(then, ignore_errors=True)
    ratios = [new[0] / old[0] for old, new in found]
    old, new = (statistics.median(pair[i][0] for pair in found) for i in (0, 1))
    value = statistics.median(ratios)
    return [
        Record(
            system=5, claim=claim, paper=Paper(setting="a bar of our own"),
            ours=Ours(
                value=value, unit="x",
                spread=f"pairs {min(ratios):.3f} to {max(ratios):.3f}; {old:.2f} s then, {new:.2f} s now",
                setting=f"{count:,} synthetic requests on TP8, alternating runs, against {against}",
            ),
            null=Null(value=1.0, what="the older commit"), bar=bar, holds=value <= 1.1, reproduced="other setting",
            reason="no paper's claim", skipped=None, seconds=cpu_seconds() - start, command=command,
        )
    ]  # fmt: skip


if __name__ == "__main__":
    if "--against" in sys.argv:
        at = sys.argv.index("--against")
        os.environ["FLEETCAST_AGAINST"] = sys.argv[at + 1]
        del sys.argv[at : at + 2]
    sys.exit(main(records))
