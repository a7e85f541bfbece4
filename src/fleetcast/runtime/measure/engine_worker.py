"""Times torch and the engine in a process of its own, whose threads are set before torch is loaded.

Prints one JSON object a line: ``{"done": 3, "total": 44}`` while it works, then all that was timed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm import open_engine
from fleetcast.runtime.llm.linear import Format, Linear, joined
from fleetcast.runtime.llm.weights import DTYPES
from fleetcast.runtime.measure.machine import this_machine
from fleetcast.runtime.measure.passes import LOADS, MODELS, Budget, Clock, Load, blocks_for, time_iterations
from fleetcast.runtime.measure.products import KEPT, ROWS, SHAPES
from fleetcast.runtime.measure.roofs import time_cache, time_products, time_streams

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

REPEATS, ROUNDS = 5, 2
ALONE = (1, 8, 64, 512)
"""Tokens at which products are timed on one thread beside those on all."""
FORMATS: Mapping[Format, float] = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.625}
"""Formats of products, and bytes of a weight."""
CASES: Sequence[tuple[Format, str, tuple[str, ...]]] = (
    ("fp32", "fp32", tuple(MODELS)), ("bf16", "bf16", tuple(MODELS)),
    ("int8", "bf16", ("square", "wide")), ("int4", "bf16", ("square", "wide")), ("bf16", "int8", ("heads", "grouped")),
)  # fmt: skip
"""In which formats and with which caches whole iterations are timed, and on which models."""


def main(threads: int) -> int:
    """Measures with ``threads`` threads, and prints."""
    torch.set_num_threads(threads)
    clock = clock_for(threads)
    machine = this_machine()
    total = (REPEATS + 1) * len(FORMATS) + ROUNDS * sum(len(models) for *_, models in CASES) + 2
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        print(json.dumps({"done": done, "total": total}), flush=True)

    streams = {str(threads): time_streams(machine.last, clock=clock)}
    alone: dict[str, Any] = {}
    if threads > 1:
        torch.set_num_threads(1)
        streams["1"] = time_streams(machine.last, clock=time.thread_time)
        for name, weight in FORMATS.items():
            found = time_products(
                maker(name), weight, DTYPES[name], machine.last, rows=ALONE, shapes=(KEPT,), repeats=3,
                clock=time.thread_time,
            )  # fmt: skip
            alone[name] = found.cold[0].tolist()
        torch.set_num_threads(threads)
    step()
    cached = time_cache(maker("fp32"), 4.0, torch.float32, machine.last, clock=clock)
    step()
    products = {}
    for name, weight in FORMATS.items():
        found = time_products(
            maker(name), weight, DTYPES[name], machine.last, rows=ROWS, shapes=SHAPES, repeats=REPEATS, clock=clock,
            progress=step,
        )  # fmt: skip
        products[name] = {
            "weight": weight, "shapes": [list(s) for s in found.shapes], "rows": list(found.rows),
            "cold": found.cold.tolist(), "warm": found.warm.tolist(), "tiny": found.tiny.tolist(), "noise": found.noise,
        }  # fmt: skip
    cases = [
        {
            "model": name, "form": form, "dtype": "fp32" if form == "fp32" else "bf16", "kv_dtype": kv_dtype,
            "config": dict(MODELS[name]), "timed": timed(MODELS[name], form, kv_dtype, LOADS[name], clock, step),
        }
        for form, kv_dtype, models in CASES
        for name in models
    ]  # fmt: skip
    result = {
        "threads": threads, "streams": streams, "alone": alone, "cached": sorted(cached.items()),
        "products": products, "cases": cases,
    }  # fmt: skip
    print(json.dumps(result), flush=True)
    return 0


def clock_for(threads: int) -> Clock:
    """Returns the clock to time with: what other processes take is no part of it where one thread works."""
    return time.thread_time if threads == 1 else time.perf_counter


def maker(form: Format) -> Callable[[Any], Linear]:
    """Returns what turns fp32 weights into the engine's matrix of a format."""
    return lambda weight: joined([weight.to(DTYPES[form])], [None], form)


def timed(
    config: Mapping[str, Any], form: str, kv_dtype: str, loads: Sequence[Load], clock: Clock,
    progress: Callable[[], None], rounds: int = ROUNDS,
) -> list[dict[str, Any]]:  # fmt: skip
    """Returns the iterations of one model of random weights, as tables.

    Args:
        config: the model's config.json.
        form: of its matrices.
        kv_dtype: of its cache.
        loads: what to time.
        clock: s.
        progress: called after each round.
        rounds: over the loads.
    """
    budget, blocks = Budget(), blocks_for(loads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        engine = open_engine(
            path, blocks=blocks, dtype=form, kv_dtype=kv_dtype, device="cpu", fake=True, batch=budget
        )  # fmt: skip
    return [asdict(t) for t in time_iterations(engine, budget, loads, repeats=rounds, clock=clock, progress=progress)]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
