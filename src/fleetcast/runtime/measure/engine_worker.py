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
from fleetcast.runtime.llm import Engine, open_engine
from fleetcast.runtime.llm.linear import Linear, joined
from fleetcast.runtime.measure.machine import this_machine
from fleetcast.runtime.measure.passes import LOADS, MODELS, Budget, Clock, Load, blocks_for, time_iterations
from fleetcast.runtime.measure.products import KEPT, ROWS, SHAPES
from fleetcast.runtime.measure.roofs import time_cache, time_products, time_streams

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

REPEATS, ROUNDS = 6, 3
ALONE = (1, 8, 64, 512)
"""Tokens at which products are timed on one thread beside those on all."""
ACTIVATIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Formats in which whole iterations are timed, and the dtype of their activations."""
FORMATS: Mapping[str, tuple[Any, float]] = {"fp32": (torch.float32, 4.0), "bf16": (torch.bfloat16, 2.0)}
"""Formats of products: the dtype of their activations, and bytes of a weight."""


def main(threads: int) -> int:
    """Measures with ``threads`` threads, and prints."""
    torch.set_num_threads(threads)
    clock = clock_for(threads)
    machine = this_machine()
    total = (REPEATS + 1) * len(FORMATS) + ROUNDS * len(MODELS) * len(ACTIVATIONS) + 2
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
        for name, (dtype, weight) in FORMATS.items():
            found = time_products(
                maker(name), weight, dtype, machine.last, rows=ALONE, shapes=(KEPT,), repeats=3, clock=time.thread_time
            )
            alone[name] = found.cold[0].tolist()
        torch.set_num_threads(threads)
    step()
    cached = time_cache(maker("fp32"), 4.0, torch.float32, machine.last, clock=clock)
    step()
    products = {}
    for name, (dtype, weight) in FORMATS.items():
        found = time_products(
            maker(name), weight, dtype, machine.last, rows=ROWS, shapes=SHAPES, repeats=REPEATS, clock=clock,
            progress=step,
        )  # fmt: skip
        products[name] = {
            "weight": weight, "shapes": [list(s) for s in found.shapes], "rows": list(found.rows),
            "cold": found.cold.tolist(), "warm": found.warm.tolist(), "noise": found.noise,
        }  # fmt: skip
    cases = [
        {
            "model": model,
            "dtype": dtype,
            "config": dict(config),
            "timed": timed(config, dtype, LOADS[model], clock, step),
        }
        for dtype in ACTIVATIONS
        for model, config in MODELS.items()
    ]
    result = {
        "threads": threads, "streams": streams, "alone": alone, "cached": sorted(cached.items()),
        "products": products, "cases": cases,
    }  # fmt: skip
    print(json.dumps(result), flush=True)
    return 0


def clock_for(threads: int) -> Clock:
    """Returns the clock to time with: what other processes take is no part of it where one thread works."""
    return time.thread_time if threads == 1 else time.perf_counter


def maker(name: str) -> Callable[[Any], Linear]:
    """Returns what turns fp32 weights into the engine's matrix of a format."""
    dtype, _ = FORMATS[name]
    return lambda weight: joined([weight.to(dtype)], [None])


def engine_of(config: Mapping[str, Any], dtype: str, blocks: int, batch: Budget, seed: int = 0) -> Engine:
    """Returns an engine with a model of random weights.

    Args:
        config: its config.json.
        dtype: a key of `ACTIVATIONS`.
        blocks: of the cache.
        batch: its batch policy.
        seed: of the weights.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        return open_engine(path, blocks=blocks, dtype=dtype, device="cpu", fake=True, seed=seed, batch=batch)


def timed(
    config: Mapping[str, Any], dtype: str, loads: Sequence[Load], clock: Clock, progress: Callable[[], None],
    rounds: int = ROUNDS,
) -> list[dict[str, Any]]:  # fmt: skip
    """Returns the iterations of one model, as tables."""
    budget = Budget()
    engine = engine_of(config, dtype, blocks_for(loads), budget)
    return [asdict(t) for t in time_iterations(engine, budget, loads, repeats=rounds, clock=clock, progress=progress)]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
