"""One model under every installed backend: do outputs agree, how long is a pass, what is a profile worth?

The profile is fitted on the three encoders alone. The Llama-shaped decoder is left out, and its latencies are forecast
through the planner (`fleetcast.simulate`), as a scenario would: the same prompt, time to the first token. Weights are
random and synthetic; all backends run in fp32, each in a process of its own with the same number of threads.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

import fleetcast
from benchmarks.records import Null, Ours, Paper, Record, main, timer
from fleetcast.base.errors import FleetcastError
from fleetcast.runtime.measure import backends
from fleetcast.runtime.measure.backends import Cell, Comparison, fitted, shapes
from fleetcast.runtime.measure.machine import this_machine

COMMAND = "python -m benchmarks.backends"
LAYERS, VOCAB = 4, 512
AGREE = "largest difference of an output element between backends, BERT, RoBERTa, XLM-R and Llama"
WIDTH = "95 % confidence interval of a median latency, relative half-width, median cell"
RELOAD = "median error of the Llama shape's first tokens, forecast by the planner from a profile of the encoders"
FASTEST = "slowest backend over the fastest, median cell"
SCENARIO = """
[fleet]
devices = "1x ./profile.toml"
[workload]
model = "./config.json"
arrivals = {{ kind = "closed", concurrency = 1, requests = 2 }}
lengths = {{ kind = "fixed", prompt = {prompt}, output = 2 }}
[plan]
replicas = 1
tensor_parallel = 1
pipeline_parallel = 1
engine = "ideal"
dtype = "fp32"
batch = {{ kind = "prefill_first", max_batch = 1, max_tokens = 8192 }}
"""


def planned(found: Comparison, backend: str, bandwidth: float) -> list[tuple[Cell, float]]:
    """Returns the decoder's cells of one sequence, and the first tokens that the planner forecasts for them, s."""
    llama = next(s for s in found.shapes if s.decoder)
    known = tuple(c for c in found.cells if c.shape != llama.name)
    encoders = Comparison(
        shapes=found.shapes, cells=known, differences={}, skipped={}, threads=found.threads, load=found.load
    )
    table = fitted.profile(encoders, backend, this_machine(), bandwidth)
    cells = [c for c in found.cells if c.shape == llama.name and c.backend == backend and c.batch == 1]
    told = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "profile.toml").write_text(fitted.profile_toml(table))
        shapes.write_config(folder, llama)
        for cell in cells:
            (folder / "pass.toml").write_text(SCENARIO.format(prompt=cell.sequence))
            told.append((cell, fleetcast.simulate(folder / "pass.toml").metrics["ttft"]["p50"]))
    return told


def flat(found: Comparison, backend: str) -> float:
    """Returns the tokens per second that one constant speed over the encoders is."""
    cells = [c for c in found.cells if c.backend == backend and c.shape != "llama"]
    return float(np.median([c.sequence * c.batch / c.median for c in cells]))


def show(found: Comparison) -> None:
    """Prints the medians: a row a point, a column a backend."""
    names = found.backends
    print(f"ms of a pass, median, {found.threads} threads, load {found.load[0]:.2f} to {found.load[1]:.2f} a core")
    print("".join(f"{name:>15}" for name in ("model", "seq x batch", *names)))
    at = {(c.shape, c.sequence, c.batch, c.backend): c for c in found.cells}
    for shape, sequence, batch in dict.fromkeys((c.shape, c.sequence, c.batch) for c in found.cells):
        row = [at.get((shape, sequence, batch, name)) for name in names]
        told = [f"{1e3 * c.median:.2f}" if c else "-" for c in row]
        print("".join(f"{x:>15}" for x in (shape, f"{sequence} x {batch}", *told)))
    for name, reason in found.skipped.items():
        print(f"skipped {name}: {reason}")


def records(quick: bool) -> list[Record]:
    """Returns the claims of system 16."""
    known = [shapes.shape(name, layers=2 if quick else LAYERS, vocab=VOCAB) for name in shapes.SHAPES]
    try:
        with timer() as spent:
            found = backends.compare(
                known, sequences=(16, 64) if quick else (16, 32, 64, 128, 256), batches=(1, 4), runs=3 if quick else 9
            )
    except FleetcastError as error:
        return [
            Record(
                system=16, claim=AGREE, bar="at most 1e-4", holds=None, reproduced="no", reason="not measured",
                skipped=str(error), command=COMMAND,
            )
        ]  # fmt: skip
    show(found)
    names = found.backends
    bandwidth = fitted.stream()
    where = (
        f"{this_machine().name}, {found.threads} threads, load {found.load[0]:.1f} to {found.load[1]:.1f} a core; "
        f"{', '.join(names)}; {known[0].layers} layers of the base widths, random weights"
    )
    worst = max(max(of.values()) for of in found.differences.values())
    widths = [(c.interval[1] - c.interval[0]) / 2 / c.median for c in found.cells]
    points: dict[tuple[str, int, int], list[Cell]] = {}
    for cell in found.cells:
        points.setdefault((cell.shape, cell.sequence, cell.batch), []).append(cell)
    ratios = [max(c.median for c in row) / min(c.median for c in row) for row in points.values()]
    wins = [min(row, key=lambda c: c.median).backend for row in points.values()]
    errors, nulls, by = [], [], []
    for name in names:
        told = planned(found, name, bandwidth)
        off = [abs(forecast / cell.median - 1) for cell, forecast in told]
        errors += off
        nulls += [abs(cell.sequence / flat(found, name) / cell.median - 1) for cell, _ in told]
        by.append(f"{name} {100 * np.median(off):.0f} %")
    median, null = float(np.median(errors)), float(np.median(nulls))
    missing = f"; not run: {'; '.join(f'{k} ({v})' for k, v in found.skipped.items())}" if found.skipped else ""
    return [
        Record(
            system=16, claim=AGREE, ours=Ours(value=float(f"{worst:.2g}"), setting=where + missing),
            null=Null(value=round(float(np.sqrt(2)), 2), what="two unlike outputs of unit variance, typical element"),
            bar="at most 1e-4", holds=worst <= backends.AGREE and len(names) > 1,
            reproduced="other setting", reason="the paper's frameworks (MLX) run on Apple machines alone",
            seconds=spent.seconds, command=COMMAND,
        ),
        Record(
            system=16, claim=WIDTH,
            ours=Ours(value=round(100 * float(np.median(widths)), 1), unit="%", setting=where),
            null=Null(what="none: the paper gives means without intervals"), bar="shown for each cell",
            holds=len(widths) > 0, reproduced="other setting", reason="other machine", command=COMMAND,
        ),
        Record(
            system=16, claim=FASTEST, paper=Paper(setting="MLX over PyTorch, and CUDA over both, by model"),
            ours=Ours(
                value=round(float(np.median(ratios)), 2), unit="x", setting=where,
                spread="fastest in: " + ", ".join(f"{n} {wins.count(n)} of {len(wins)}" for n in names if n in wins),
            ),
            null=Null(value=1.0, what="all backends alike"), bar="shown", holds=max(ratios) > 1,
            reproduced="other setting", reason="other backends and machine", command=COMMAND,
        ),
        Record(
            system=16, claim=RELOAD,
            ours=Ours(value=round(100 * median, 1), unit="%", spread=", ".join(by), setting=where),
            null=Null(value=round(100 * null, 1), what="one constant tokens/s per backend, median over the encoders"),
            bar="at most 20 %, and below one constant speed", holds=median <= 0.2 and median < null,
            reproduced="other setting", reason="the paper forecasts nothing", command=COMMAND,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
