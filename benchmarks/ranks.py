"""The engine in two processes: what it says, what it sends, what it takes, and what sending it was forecast to take.

The model has the shape of `benchmarks.engine` with four layers and random weights, in fp32. All forms run in one run,
in turn, the fastest of several decode steps of each; both cores are used by one process with two threads too.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks.engine import CONFIG
from benchmarks.records import Null, Ours, Paper, Record, main, skipped, timer
from fleetcast.base.errors import FleetcastError
from fleetcast.runtime.measure.machine import this_machine

COMMAND = "python -m benchmarks.ranks"
LAYERS, HIDDEN, BLOCKS, PROMPT = 4, 1024, 160, 64
EQUAL = "two ranks' logits against one process's, largest difference"
TOLD = "time that two ranks' sums add to a decode step, forecast from collectives measured by themselves"
SPEED = "tokens per second of two ranks over one process with two threads, decoding a batch of 1"
FORMS: Final[dict[str, dict[str, Any]]] = {
    "1 process x 1 thread": {"threads": 1},
    "1 process x 2 threads": {"threads": 2},
    "2 ranks x 1 thread": {"threads": 1, "tensor_parallel": 2},
    "2 stages x 1 thread": {"threads": 1, "pipeline_parallel": 2},
}


def steps(engine: Any, batch: int, count: int) -> list[float]:
    """Returns the seconds of each decode step of ``batch`` requests."""
    draw = np.random.default_rng(batch)
    for _ in range(batch):
        engine.submit(draw.integers(3, 8000, PROMPT).tolist(), count + 2)
    engine.run()
    rows = engine.iterations
    found = [i.duration for i in rows if i.decodes == batch and not i.prefills]
    rows.clear()
    return found


def records(quick: bool) -> list[Record]:
    """Returns the claims of system 2 that are about several processes."""
    try:
        import torch

        from fleetcast.runtime.llm import open_engine
        from fleetcast.runtime.llm.requests import Piece
        from fleetcast.runtime.measure.collectives import run
    except (FleetcastError, ImportError) as error:
        return [
            skipped(system=2, claim=claim, bar=bar, why=str(error), command=COMMAND)
            for claim, bar in ((EQUAL, "at most 1e-5"), (SPEED, "shown"), (TOLD, "at most 50 %"))
        ]
    before, rounds, count = os.getloadavg()[0], 2 if quick else 5, 8 if quick else 24
    best: dict[tuple[str, int], float] = {}
    rows = {}
    with timer() as spent, tempfile.TemporaryDirectory() as made:
        config = Path(made) / "config.json"
        config.write_text(json.dumps(CONFIG | {"num_hidden_layers": LAYERS}))
        ids = np.random.default_rng(0).integers(3, 8000, 48).tolist()
        for turn in range(rounds):
            for name, form in FORMS.items():
                engine = open_engine(config, fake=True, dtype="fp32", blocks=BLOCKS, **form)
                try:
                    if not turn:
                        rows[name] = np.asarray(engine.model.forward([Piece(ids, 0, [0, 1, 2], 8)]))
                    for batch in (1, 8):
                        key = (name, batch)
                        best[key] = min([best.get(key, np.inf), *steps(engine, batch, count)])
                finally:
                    engine.close()
        torch.set_num_threads(1)
        sums = {
            int(r["size"]): float(r["best"]) for r in run(2, 240.0, lambda row: None) if r["operation"] == "all_reduce"
        }
    one, two = rows["1 process x 1 thread"], rows["2 ranks x 1 thread"]
    off = float(np.abs(one - two).max())
    staged = float(np.abs(one - rows["2 stages x 1 thread"]).max())
    told, was = [], []
    for batch in (1, 8):
        size = batch * 4 * HIDDEN
        told.append(2 * LAYERS * float(np.interp(size, list(sums), list(sums.values()))))
        # each rank computes half of what one thread does; what is left of its step is what the sums added
        was.append(best["2 ranks x 1 thread", batch] - best["1 process x 1 thread", batch] / 2)
    missed = max(abs(t / w - 1) if w > 0 else np.inf for t, w in zip(told, was, strict=True))
    speeds = {f"{name}, batch {batch}": batch / s for (name, batch), s in best.items()}
    ratio = speeds["2 ranks x 1 thread, batch 1"] / speeds["1 process x 2 threads, batch 1"]
    where = (
        f"{this_machine().name}, load {before:.1f} to {os.getloadavg()[0]:.1f}, {LAYERS} layers of 1,024, fp32, random"
    )
    said = ", ".join(f"{name} {value:.0f} tokens/s" for name, value in speeds.items())
    for name, value in speeds.items():
        print(f"{name}: {value:.0f} tokens/s")
    return [
        Record(
            system=2, claim=EQUAL,
            ours=Ours(value=float(f"{off:.2g}"), spread=f"two stages {staged:.2g}", setting=where),
            null=Null(value=float(f"{np.abs(one - np.roll(one, 1, 0)).max():.2g}"), what="another position's logits"),
            bar="at most 1e-5", holds=off <= 1e-5, reproduced="other setting", reason="the paper shows times alone",
            seconds=spent.seconds, command=COMMAND,
        ),
        Record(
            system=2, claim=SPEED, paper=Paper(value=2.85, unit="x", setting="Llama-2-70B, 4 sockets over 1"),
            ours=Ours(value=round(ratio, 2), unit="x", spread=said, setting=where),
            null=Null(value=1.0, what="one process with both cores"), bar="shown", holds=ratio > 0,
            reproduced="no", reason="two ranks share the cores and the memory of one socket; the paper adds sockets",
            command=COMMAND,
        ),
        Record(
            system=2, claim=TOLD,
            ours=Ours(
                value=round(100 * float(missed), 1), unit="%", setting=where,
                spread="; ".join(
                    f"batch {b}: {1e3 * t:.2f} ms forecast, {1e3 * w:.2f} ms measured"
                    for b, t, w in zip((1, 8), told, was, strict=True)
                ),
            ),
            null=Null(value=100.0, what="sums that cost nothing"), bar="at most 50 %", holds=missed <= 0.5,
            reproduced="other setting", reason="the paper forecasts nothing", command=COMMAND,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
