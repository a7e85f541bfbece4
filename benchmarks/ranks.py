"""The engine in two processes: what it says, what it sends, what it takes, and what sending it was forecast to take.

The model has the shape of `benchmarks.engine` with four layers and random weights, in fp32. All forms run in one run,
in turn, the lower quartile of the decode steps of each, the best of several rounds; both cores are used by one process
with two threads too. What messages add is over two processes side by side that compute what a rank does and
send nothing: they share the memory as ranks do, and launch as many operations. It is forecast from
`runtime.measure.between`, which knows neither of the two models.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs by its path as well

import numpy as np

from benchmarks.engine import CONFIG
from benchmarks.records import Null, Ours, Paper, Record, main, skipped, timer
from fleetcast.base.errors import FleetcastError
from fleetcast.runtime.measure.between import QUIET
from fleetcast.runtime.measure.machine import this_machine

COMMAND = "python -m benchmarks.ranks"
LAYERS, BLOCKS, PROMPT = 4, 160, 64
BATCHES: Final = (1, 8)
OTHER: Final = {
    "hidden_size": 768, "num_attention_heads": 12, "num_key_value_heads": 4, "intermediate_size": 2048,
    "num_hidden_layers": 6, "head_dim": 64,
}  # fmt: skip
"""A second model, of which what messages add is forecast too."""
RANKS = "2 ranks x 1 thread"
EQUAL = "two ranks' logits against one process's, largest difference"
TOLD = "time that two ranks' messages add to a decode step, forecast from messages between products of other sizes"
SPEED = "tokens per second of two ranks over one process with two threads, decoding a batch of 1"
FORMS: Final[dict[str, dict[str, Any]]] = {
    "1 process x 1 thread": {"threads": 1},
    "1 process x 2 threads": {"threads": 2},
    RANKS: {"threads": 1, "tensor_parallel": 2},
    "2 stages x 1 thread": {"threads": 1, "pipeline_parallel": 2},
}


def step(engine: Any, batch: int, count: int) -> float:
    """Returns the lower quartile of the seconds of ``count`` decode steps of ``batch`` requests."""
    draw = np.random.default_rng(batch)
    for _ in range(batch):
        engine.submit(draw.integers(3, 4000, PROMPT).tolist(), count + 2)
    engine.run()
    rows = engine.iterations
    found = [i.duration for i in rows if i.decodes == batch and not i.prefills]
    rows.clear()
    return float(np.quantile(found, QUIET))


def half(table: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config of what one of two ranks computes."""
    cut = ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size")
    return dict(table) | {name: table[name] // 2 for name in cut}


def beside(config: Path, count: int) -> dict[int, float]:
    """Returns s of a decode step by batch of two processes that run a model side by side, the slower one's."""
    context = multiprocessing.get_context("spawn")
    together, said = context.Barrier(2), context.Queue()
    both = [context.Process(target=_beside, args=(config, count, together, said), daemon=True) for _ in range(2)]
    for process in both:
        process.start()
    found = [said.get(timeout=120) for _ in both]
    for process in both:
        process.join()
    return {batch: max(each[batch] for each in found) for batch in BATCHES}


def _beside(config: Path, count: int, together: Any, said: Any) -> None:
    from fleetcast.runtime.llm import open_engine

    engine = open_engine(config, fake=True, dtype="fp32", blocks=BLOCKS, threads=1)
    found = {}
    for batch in BATCHES:
        together.wait(60)
        found[batch] = step(engine, batch, count)
    together.wait(60)
    said.put(found)


def records(quick: bool) -> list[Record]:
    """Returns the claims of system 2 that are about several processes."""
    try:
        import torch

        from fleetcast.runtime.llm import open_engine
        from fleetcast.runtime.llm.requests import Piece
        from fleetcast.runtime.measure.between import added, measure_between
        from fleetcast.runtime.measure.collectives import run
    except (FleetcastError, ImportError) as error:
        return [
            skipped(system=2, claim=claim, bar=bar, why=str(error), command=COMMAND)
            for claim, bar in ((EQUAL, "at most 1e-5"), (SPEED, "shown"), (TOLD, "at most 50 %"))
        ]
    before, rounds, count = os.getloadavg()[0], 2 if quick else 5, 8 if quick else 24
    took: dict[tuple[str, int], list[float]] = {}
    rows: dict[str, Any] = {}
    between = []

    def keep(name: str, batch: int, seconds: float) -> None:
        took.setdefault((name, batch), []).append(seconds)

    with timer() as spent, tempfile.TemporaryDirectory() as made:
        tables = {"": CONFIG | {"num_hidden_layers": LAYERS, "head_dim": 64}, "other": CONFIG | OTHER}
        for name, table in tables.items():
            (Path(made) / f"{name}.json").write_text(json.dumps(table))
            (Path(made) / f"half{name}.json").write_text(json.dumps(half(table)))
        config = Path(made) / ".json"
        ids = np.random.default_rng(0).integers(3, 8000, 48).tolist()
        for turn in range(rounds):
            for name, form in FORMS.items():
                engine = open_engine(config, fake=True, dtype="fp32", blocks=BLOCKS, **form)
                try:
                    if not turn:
                        rows[name] = np.asarray(engine.model.forward([Piece(ids, 0, [0, 1, 2], 8)]))
                    for batch in BATCHES:
                        keep(name, batch, step(engine, batch, count))
                finally:
                    engine.close()
            engine = open_engine(Path(made) / "other.json", fake=True, dtype="fp32", blocks=BLOCKS, **FORMS[RANKS])
            try:
                for batch in BATCHES:
                    keep("other", batch, step(engine, batch, count))
            finally:
                engine.close()
            between.append(measure_between())
            for name in tables:
                for batch, seconds in beside(Path(made) / f"half{name}.json", count).items():
                    keep(f"half{name}", batch, seconds)
        torch.set_num_threads(1)
        sums = {
            int(r["size"]): float(r["best"]) for r in run(2, 240.0, lambda row: None) if r["operation"] == "all_reduce"
        }
    one, two = rows["1 process x 1 thread"], rows[RANKS]
    off = float(np.abs(one - two).max())
    staged = float(np.abs(one - rows["2 stages x 1 thread"]).max())
    cases = []
    for name, table in tables.items():
        for batch in BATCHES:
            layers, size = int(table["num_hidden_layers"]), 4 * batch * int(table["hidden_size"])
            # of the same rounds: what disturbs one disturbs the others
            told = float(np.median([added(b, sums=2 * layers, size=size, batch=batch) for b in between]))
            was = float(np.median(np.subtract(took[name or RANKS, batch], took[f"half{name}", batch])))
            cases.append((f"{layers} layers of {table['hidden_size']}, batch {batch}", told, was))
    busy = min(w for _, _, w in cases) <= 0
    missed = max(abs(t - w) / abs(w) for _, t, w in cases)
    best = {key: min(found) for key, found in took.items()}
    # the rule before: collectives by themselves, over half of what one process takes alone
    before_told = [2 * LAYERS * float(np.interp(4096 * b, list(sums), list(sums.values()))) for b in BATCHES]
    before_was = [best[RANKS, b] - best["1 process x 1 thread", b] / 2 for b in BATCHES]
    plain = max(abs(t - w) / abs(w) for t, w in zip(before_told, before_was, strict=True))
    speeds = {f"{name}, batch {batch}": batch / s for (name, batch), s in best.items() if name in FORMS}
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
        skipped(
            system=2, claim=TOLD, bar="at most 50 %", command=COMMAND,
            why="the machine is too busy: a step without messages took longer than one with",
        ) if busy else Record(
            system=2, claim=TOLD,
            ours=Ours(
                value=round(100 * float(missed), 1), unit="%", setting=where,
                spread="; ".join(f"{c}: {1e3 * t:.2f} ms forecast, {1e3 * w:.2f} ms measured" for c, t, w in cases)
                + f"; collectives by themselves, over half of one process's step: {100 * float(plain):.0f} % off",
            ),
            null=Null(value=100.0, what="messages that cost nothing"), bar="at most 50 %", holds=missed <= 0.5,
            reproduced="other setting", reason="the paper forecasts nothing", command=COMMAND,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(records))
